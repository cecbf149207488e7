"""A snapshot of a machine that stands still: from its parts to a description, sections, and a file.

The order. Coalesced writes are delivered and transfers are ended first, so that what is under way is in the
devices or in memory. Then the CPUs, because their clocks go on while the machine stands still; then guest
time, the interrupt controllers, and the devices. Memory is last, and is the bulk.

Of disks it has what `disks` says. What it does not have: what was typed and not yet taken by a UART, what is
still to be written to the host, and the stores of a program's own devices.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from kvmbox.base.errors import DeviceProcessError, KvmboxError, KvmError, SnapshotFileError
from kvmbox.kvm import uapi
from kvmbox.parts.snapshot import vcpu_state
from kvmbox.parts.snapshot.description import (
    PCI_SECTION,
    BoardFacts,
    BootFacts,
    Description,
    DeviceFacts,
    HostFacts,
    LineFacts,
    PortText,
    Times,
    cpu_section,
    device_section,
    file_section,
    rom_section,
)
from kvmbox.parts.snapshot.device_checksum import checksum_of
from kvmbox.parts.snapshot.disks import take_disks, take_queues, take_windows
from kvmbox.parts.snapshot.file import write_snapshot
from kvmbox.parts.snapshot.snapshots import Request
from kvmbox.remote.channel.model_state import take_state
from kvmbox.remote.channel.on_demand import NoProcess
from kvmbox.run.machine.device_set import Devices
from kvmbox.run.machine.guest_vm import GuestVm

if TYPE_CHECKING:
    from kvmbox.boot.boot_files import HostFiles
    from kvmbox.host.console.serial_ports import Console
    from kvmbox.kvm.system import Kvm
    from kvmbox.run.options.config import RunConfig
    from kvmbox.run.vcpu.coalesced_ring import CoalescedRing

_CR4_VMXE: Final = 1 << 13  # Intel SDM volume 3, 2.5
_EFER_SVME: Final = 1 << 12  # AMD APM volume 2, 3.1.7

# What `BootFacts` and `BoardFacts` have as `RunConfig` and its parts do.
_BOOT: Final = ("guest", "append", "initrd", "boot", "bios", "load_address", "entry", "segments")
_BOARD: Final = ("cpus", "cpu", "rtc_base", "debug_exit_port", "uart_pace", "testdev")
_BOARD_OF_PARTS: Final = ("disk_overlay", "rng", "pci")


class Taker:
    """Takes snapshots of one machine."""

    def __init__(
        self,
        kvm: Kvm,
        config: RunConfig,
        files: HostFiles,
        devices: Devices,
        console: Console,
        *,
        say: Callable[[str], None],
    ) -> None:
        """`files` are those that the machine was booted from; `say` tells the person a line."""
        self._kvm = kvm
        self._config = config
        self._files = files
        self._devices = devices
        self._console = console
        self._say = say

    def take(self, request: Request, guest: GuestVm, ring: CoalescedRing | None) -> Callable[[], None]:
        """Write one. The vCPUs of `guest` stand still. Raises DeviceProcessError.

        They may go on before what is returned is called, which gives the file its name, or says why there is
        none: to wait for the disk takes most of the time.
        """
        began = time.monotonic_ns()
        try:
            description, sections = self._describe(guest, ring)
            stored = write_snapshot(request.descriptor, description, sections, guest.memory)
        except DeviceProcessError as error:
            request.end(str(error))
            raise
        except (KvmboxError, OSError) as error:
            why = _reason(error)
            return lambda: self._refuse(request, why)
        took = (time.monotonic_ns() - began) / 1e6
        return lambda: self._finish(request, f"{stored >> 10} KiB of memory, {took:.0f} ms")

    def _finish(self, request: Request, facts: str) -> None:
        try:
            os.fsync(request.descriptor)
            request.commit()
        except OSError as error:
            self._refuse(request, _reason(error))
            return
        self._say(f"snapshot '{request.path}' written: {facts}")
        request.end(None)

    def _refuse(self, request: Request, why: str) -> None:
        with suppress(OSError):  # the run goes on, and the disk may be full of it
            os.ftruncate(request.descriptor, 0)
        self._say(f"cannot write snapshot '{request.path}': {why}; the run goes on")
        request.end(why)

    def _describe(self, guest: GuestVm, ring: CoalescedRing | None) -> tuple[Description, dict[str, bytes]]:
        devices, config = self._devices, self._config
        while ring is not None and ring.flush():
            pass
        if config.of_part("virtio_console") is not None:
            raise SnapshotFileError("a virtio console is in no snapshot")
        if devices.transfers is not None and not devices.transfers.settle_all(devices.complete_transfers):
            raise SnapshotFileError("a transfer of a device does not end: its file does not answer")
        host = self._host_facts(guest)
        sections: dict[str, bytes] = {}
        indices = self._kvm.msr_indices()
        counter = 0
        for vcpu in guest.vcpus:
            state = vcpu_state.capture(vcpu, indices, xsave_size=host.xsave_size, sregs2=host.sregs2)
            if state.sregs.cr4 & _CR4_VMXE or state.sregs.efer & _EFER_SVME:
                raise SnapshotFileError("the guest has switched hardware virtualization on for itself")
            counter = counter or state.msrs.get(vcpu_state.MSR_TSC, 0)
            sections[cpu_section(vcpu.index)] = vcpu_state.encode(state)
        clock, now = guest.vm.get_clock(), devices.clock.now()
        pics = tuple(bytes(guest.vm.get_irqchip(chip)) for chip in uapi.KVM_IRQCHIPS)
        facts, reset_at = self._take_devices(sections)
        if devices.pci is not None:
            sections[PCI_SECTION] = devices.pci.state()
        for index, data in enumerate(self._files.kept.values()):
            sections[file_section(index)] = data
        for index, rom in enumerate(guest.memory.roms):
            sections[rom_section(index)] = rom.pages[:]
        description = Description(
            host,
            self._boot_facts(guest.boot.format),
            BoardFacts(
                serial=tuple(config.serial),
                nets=tuple(map(str, config.of_part("nets"))),
                **{name: getattr(config, name) for name in _BOARD},
                **{name: config.of_part(name) for name in _BOARD_OF_PARTS},
            ),
            Times(now, clock, time.time_ns(), counter, reset_at),
            tuple(facts),
            tuple(
                LineFacts(gsi, line.asserted, line.heard)
                for gsi, line in sorted(devices.router.lines.items())
            ),
            devices.late.forbidden,
            pics,
            tuple(rom.start for rom in guest.memory.roms),
            tuple(tuple(PortText(*port) for port in mirror) for mirror in self._console.lines()),
            take_disks(devices.disks, sections),
            take_windows(devices, sections),
            take_queues(devices, sections),
        )
        return description, sections

    def _host_facts(self, guest: GuestVm) -> HostFacts:
        try:
            rate = guest.vcpus[0].tsc_khz()
        except KvmError:
            rate = 0
        return HostFacts(
            guest.is_pvm,
            rate,
            guest.vm.xsave_size(),
            self._kvm.check_extension(uapi.KVM_CAP_SREGS2) > 0,
            tuple(guest.leaves),
        )

    def _take_devices(self, sections: dict[str, bytes]) -> tuple[list[DeviceFacts], int | None]:
        facts = []
        reset_at: int | None = None
        for device_type, index, device in self._devices.pool.places():
            channel = self._devices.pool.channel(device_type)
            transport = channel.transport
            if isinstance(transport, NoProcess) and transport.stands_still:
                reset_at = transport.reset_at
            else:
                state = take_state(channel, index)
                if not state:
                    raise SnapshotFileError(f"device process '{device_type}' is lost")
                sections[device_section(device.name)] = state
            facts.append(DeviceFacts(device.name, checksum_of(device), channel.is_started))
        return facts, reset_at

    def _boot_facts(self, boot_format: str) -> BootFacts:
        config = self._config
        return BootFacts(
            format=boot_format,
            modules=tuple((module.path, module.arguments) for module in config.modules),
            fw_cfg=tuple((file.name, file.path) for file in config.fw_cfg),
            firmware_tables=config.firmware_tables,
            files=tuple(self._files.kept),
            **{name: getattr(config, name) for name in _BOOT},
        )


def _reason(error: KvmboxError | OSError) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)
