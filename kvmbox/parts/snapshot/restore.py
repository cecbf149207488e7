"""A machine from a snapshot: which configuration it has, what the host must be, and the order of things.

    start = SnapshotOrigin(SnapshotFile(path))           # header and description are checked
    memory = start.memory()              # read, and checked whole
    GuestVm(…, state=start)              # `apply`: host, CPUs, interrupt controllers, KVM's clock
    start.resume(devices)                # device states, lines, guest time

Interrupt lines. KVM neither gives nor takes the levels of its lines, only the registers of its controllers,
where the last edge of each line is. A line that is high is therefore not raised again: the controllers
would see a second edge. Its next change is its fall. The local APICs come before the I/O APIC, which may
pass on what is still pending.

Time stands still between the snapshot and the restore: guest time, KVM's clock and the time-stamp counter go
on where they were. The RTC alone may be set to what has passed since. The backend PVM cannot set the counter:
there it jumps.
"""

from __future__ import annotations

import ctypes
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from kvmbox.base import layout
from kvmbox.base.errors import ImageError, KvmError, SnapshotFileError, UsageError
from kvmbox.base.layout import ram_ranges
from kvmbox.boot.plan import BootPlan
from kvmbox.boot.real_mode.entry_registers import waking_state
from kvmbox.contract.model import NANOSECONDS
from kvmbox.kvm import uapi
from kvmbox.kvm.cpuid.difference import difference
from kvmbox.parts.snapshot import vcpu_state
from kvmbox.parts.snapshot.description import (
    PCI_SECTION,
    Description,
    PortText,
    cpu_section,
    device_section,
    file_section,
    rom_section,
)
from kvmbox.parts.snapshot.device_checksum import checksum_of
from kvmbox.parts.snapshot.disks import give_disks, give_queues, give_windows
from kvmbox.parts.snapshot.stored_files import StoredFiles
from kvmbox.remote.channel.model_state import give_state
from kvmbox.run.machine.start_state import Origin
from kvmbox.wire import protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kvmbox.base.memory import GuestMemory
    from kvmbox.contract.device_spec import DeviceSpec
    from kvmbox.host.console.duplicate_output import PortLines
    from kvmbox.host.console.serial_ports import Console
    from kvmbox.kvm.system import Kvm
    from kvmbox.parts.snapshot.file import SnapshotFile
    from kvmbox.run.machine.device_set import Devices
    from kvmbox.run.machine.guest_vm import GuestVm

TSC_TOLERANCE_PPM: Final = 250
"""How far the rates of two time-stamp counters may be apart: KVM takes such rates for the same
(tsc_tolerance_ppm)."""

_SAME_HOST: Final = "start the snapshot on the same kind of CPU and kernel, or take a new one"


class SnapshotOrigin(Origin):
    """A snapshot that a machine starts from. All methods raise SnapshotFileError."""

    def __init__(self, file: SnapshotFile, *, catch_up: bool = False) -> None:
        """`catch_up` lets the RTC show the time that has passed since."""
        self.file = file
        self._catch_up = catch_up
        self.description: Description = file.description
        self.plan = BootPlan(self.description.boot.format, waking_state(0), 0)
        self.state = self
        self.memory_stage, self.resumed_stage = "snapshot verified", "device states restored"

    # --- Before there is a machine ------------------------------------------------------------------------

    def files(self) -> StoredFiles:
        """The files of the boot."""
        names = self.description.boot.files
        return StoredFiles({name: self.file.section(file_section(index)) for index, name in enumerate(names)})

    def memory(self, _size: int) -> GuestMemory:
        """Guest memory with the ROMs, checked."""
        memory = self.file.memory()
        try:
            self._add_roms(memory)
        except BaseException:
            memory.close()
            raise
        return memory

    def _add_roms(self, memory: GuestMemory) -> None:
        taken = ram_ranges(memory.size)
        for index, start in enumerate(self.description.roms):
            data = self.file.section(rom_section(index))
            if (start | len(data)) % layout.PAGE_SIZE or not data:
                raise self.file.refuse("it is damaged: a ROM is no whole pages")
            if any(start < other + size and other < start + len(data) for other, size in taken):
                raise self.file.refuse("it is damaged: a ROM is where something else is")
            taken.append((start, len(data)))
            memory.add_rom(start, data)

    @contextmanager
    def blamed(self) -> Iterator[None]:
        """What is wrong with the machine's configuration is wrong with the snapshot."""
        try:
            yield
        except (UsageError, ImageError) as error:
            raise self.file.refuse(f"it is damaged: {error}", error.hint) from error

    def check_board(self, board: Sequence[DeviceSpec]) -> None:
        """Whether this kvmbox's board has the same devices."""
        wanted = {device.name: device.checksum for device in self.description.devices}
        for device in board:
            if wanted.pop(device.name, None) != checksum_of(device):
                raise self.file.refuse(
                    f"device {device.name} is another one than in the snapshot",
                    "it was taken with another kvmbox, or with other devices of a program: take it anew",
                )
        if wanted:
            raise self.file.refuse(
                f"there is no device {min(wanted)}",
                "give Machine.from_snapshot the same devices as the machine had that it was taken from",
            )

    # --- The virtual machine ------------------------------------------------------------------------------

    def apply(self, kvm: Kvm, guest: GuestVm) -> None:
        """Bring a fresh virtual machine, whose vCPUs have their CPUID, to the state of the snapshot."""
        try:
            self._apply(kvm, guest)
        except KvmError as error:
            raise self.file.refuse(f"this host's KVM does not take its state: {error}", _SAME_HOST) from error
        except SnapshotFileError as error:
            if str(error).startswith("cannot use snapshot"):
                raise
            raise self.file.refuse(str(error), error.hint) from error

    def _apply(self, kvm: Kvm, guest: GuestVm) -> None:
        host, vm = self.description.host, guest.vm
        self._check_host(kvm, guest)
        for vcpu in guest.vcpus:
            data = self.file.section(cpu_section(vcpu.index))
            state = vcpu_state.decode(data, xsave_size=host.xsave_size, sregs2=host.sregs2)
            vcpu_state.apply(vcpu, state)
        self._check_counter(guest)
        size, pics = ctypes.sizeof(uapi.kvm_irqchip), self.description.pics
        controllers = [uapi.kvm_irqchip.from_buffer_copy(data.ljust(size)) for data in pics]
        found = [(one.chip_id, len(data)) for one, data in zip(controllers, pics, strict=True)]
        if found != [(chip, size) for chip in uapi.KVM_IRQCHIPS]:
            raise self.file.refuse("it is damaged: its interrupt controllers")
        for controller in controllers:
            vm.set_irqchip(controller)
        vm.set_clock(self.description.times.kvm_clock)

    def _check_host(self, kvm: Kvm, guest: GuestVm) -> None:
        host = self.description.host
        if host.pvm != guest.is_pvm:
            one, other = ("is", "is not") if host.pvm else ("is not", "is")
            raise self.file.refuse(
                f"it {one} of a host with KVM's backend PVM, and this {other} one", _SAME_HOST
            )
        differs = difference(host.leaves, guest.leaves)
        if differs is not None:
            raise self.file.refuse(f"the guest's CPU would be another one here: {differs}", _SAME_HOST)
        if host.xsave_size != guest.vm.xsave_size():
            raise self.file.refuse(
                f"its CPUs have {host.xsave_size} bytes of extended state, and {guest.vm.xsave_size()} here",
                _SAME_HOST,
            )
        if host.sregs2 and not kvm.check_extension(uapi.KVM_CAP_SREGS2):
            raise self.file.refuse("this host's KVM lacks KVM_CAP_SREGS2", _SAME_HOST)
        try:
            rate = guest.vcpus[0].tsc_khz()
        except KvmError:
            rate = 0
        if host.tsc_khz and rate and abs(rate - host.tsc_khz) * 1_000_000 > host.tsc_khz * TSC_TOLERANCE_PPM:
            raise self.file.refuse(
                f"its time-stamp counter runs at {host.tsc_khz} kHz, and at {rate} kHz here", _SAME_HOST
            )

    def _check_counter(self, guest: GuestVm) -> None:
        counter = guest.vcpus[0].get_msrs([vcpu_state.MSR_TSC]).get(vcpu_state.MSR_TSC, 0)
        if counter < self.description.times.counter:
            raise self.file.refuse(
                "this host's time-stamp counter is behind the guest's, and its KVM cannot set it",
                "the host was restarted since the snapshot: take it anew",
            )

    # --- The devices --------------------------------------------------------------------------------------

    def resume(self, devices: Devices, console: Console) -> None:
        """Give the devices, whose clock stands still, the states that they had. Raises DeviceProcessError."""
        times, clock = self.description.times, devices.clock
        started = {device.name for device in self.description.devices if device.started}
        if times.reset_at is not None:
            clock.skip_to(times.reset_at)
            for member in devices.pool.members.values():
                if not started.issuperset(device.name for device in member.devices):
                    devices.pool.channel(member.device_type).request(protocol.RESET)
        clock.skip_to(times.guest)
        for device_type, index, device in devices.pool.places():
            if device.name in started:
                state = self.file.section(device_section(device.name))
                if not give_state(devices.pool.channel(device_type), index, state):
                    raise self.file.refuse(f"it is damaged: device {device.name} does not take its state")
        give_disks(self.file, self.description.disks, devices.disks)
        give_windows(self.file, self.description.windows, devices)
        known = [line for line in self.description.lines if line.gsi in devices.router.lines]
        if len(known) != len(devices.router.lines) or len(known) != len(self.description.lines):
            raise self.file.refuse("it is damaged: its interrupt lines are not those of its devices")
        devices.router.resume((line.gsi, line.asserted, line.heard) for line in known)
        if devices.pci is not None:
            try:
                devices.pci.restore(self.file.section(PCI_SECTION))
            except ValueError as error:
                raise self.file.refuse(f"it is damaged: {error}") from error
        give_queues(self.file, self.description.queues, devices)
        devices.late_forbidden = self.description.late_forbidden
        console.go_on([[_lines_of(port) for port in ports] for ports in self.description.mirrors])
        if self._catch_up:
            self._set_clock(devices)

    def _set_clock(self, devices: Devices) -> None:
        away = max(0, time.time_ns() - self.description.times.taken) // NANOSECONDS
        for device_type, index, device in devices.pool.places():
            if device.model == "rtc_mc146818":
                data = away.to_bytes(8, "little")
                devices.pool.channel(device_type).request(
                    protocol.RECEIVE, device=index, payload=data, limit=len(data)
                )


def _lines_of(port: PortText) -> PortLines:
    return port.name, port.text, port.history, port.shown, port.free, port.overlong


ORIGIN = SnapshotOrigin
