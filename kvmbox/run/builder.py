"""The builder: from a configuration to devices on their buses, and to one virtual machine per boot.

`Devices` exist as long as the run: processes, channels, buses, clock. A `GuestVm` exists from one reset to
the next, because a new VM with new interrupt controllers is the most reliable reset that KVM has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from collections.abc import Mapping as ZoneMap
from typing import Protocol

from kvmbox import board, layout
from kvmbox.board import BoardOptions, BootDrive, DeviceSpec, Medium, Queues, Resource, StopValue, pc_board
from kvmbox.bus import BusDevice
from kvmbox.errors import UsageError
from kvmbox.firmware.fw_cfg import FwCfgItem
from kvmbox.host.clock import GuestClock
from kvmbox.host.console import Console
from kvmbox.host.interrupts import InterruptRouter
from kvmbox.judge import Judge
from kvmbox.kvm import uapi
from kvmbox.kvm.system import Kvm
from kvmbox.kvm.vcpu import Vcpu
from kvmbox.kvm.vm import Vm
from kvmbox.memory import GuestMemory
from kvmbox.outcome import CLEAN, GUEST_CRASHED, Outcome, debug_exit_status
from kvmbox.remote.buses import Buses
from kvmbox.remote.grants import bind
from kvmbox.remote.pool import DevicePool
from kvmbox.remote.proxy import DeviceProxy
from kvmbox.run.boot_source import BootSource
from kvmbox.run.coalescing import CoalescedRing, OutputRoom
from kvmbox.run.kinds import guest_clock, interrupt_router, ring_kind, window_kind
from kvmbox.run.late_writes import LateWrites
from kvmbox.run.processors import Processors, apply_state

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kvmbox.host.disks import RunDisk
    from kvmbox.host.transfers import Store, TransferThread
    from kvmbox.remote.grants import ChecksEffects, Grants, Host
    from kvmbox.remote.guest_memory import Submit
    from kvmbox.remote.medium import MediumAccess
    from kvmbox.remote.pci import PciFabric
    from kvmbox.remote.queues import DeviceQueues
    from kvmbox.remote.window import DataWindow
    from kvmbox.run.config import RunConfig
    from kvmbox.run.moving import Mover

    Stores = ZoneMap[str, Store]


VIDEO_SLOT = 16  # behind those of RAM and ROMs


def board_of(
    config: RunConfig,
    *,
    bios: bool = False,
    drives: Sequence[BootDrive] = (),
    fw_cfg: Sequence[FwCfgItem] = (),
) -> list[DeviceSpec]:
    """The devices of this run, with those behind the built-in BIOS, whose drives are `drives`.

    `fw_cfg` are items beyond those that every guest is told: the module `fw_cfg_files` has the user's.

    Raises UsageError if two devices claim the same port.
    """
    options = BoardOptions(
        serial_ports=tuple(config.serial),
        rtc_base=config.rtc_base,
        memory_size=config.memory_size,
        debug_exit_port=config.debug_exit_port,
        uart_pace=config.uart_pace,
        cpus=config.cpus,
        testdev=config.testdev,
        fw_cfg=tuple(fw_cfg),
        has_bios=bios,
        boot_drives=tuple(drives),
    )
    board = pc_board(options)
    if config.testdev or bios:
        from kvmbox.board_extras import pc_extras

        board += pc_extras(options)
    board += config.devices
    refuse_conflicts(config, board)
    return board


def refuse_conflicts(config: RunConfig, board: Sequence[DeviceSpec]) -> None:
    """UsageError if two devices claim the same port: one that the user puts somewhere, and another one."""
    for device in board:
        if device.granted(StopValue):
            for other in board:
                if other is not device and _overlap(device, other):
                    raise UsageError(f"--debug-exit {config.debug_exit_port:#x} belongs to {other.name}")
    for device in config.devices:
        for other in board:
            if other is not device and (other.name == device.name or _overlap(device, other)):
                raise UsageError(f"device {device.name} is in the place of {other.name}")
        for name in [one.name for one in device.grants if isinstance(one, Resource | Medium)]:
            if name not in config.resources:
                raise UsageError(f"device {device.name} needs a resource '{name}'")


def _overlap(one: DeviceSpec, other: DeviceSpec) -> bool:
    return any(
        mine.first < theirs.first + theirs.count and theirs.first < mine.first + mine.count
        for mine_all, theirs_all in ((one.ports, other.ports), (one.mmio, other.mmio))
        for mine in mine_all
        for theirs in theirs_all
    )


class RunHost:
    """What a run does for its devices: see `remote.grants.Host`."""

    def __init__(
        self,
        router: InterruptRouter,
        console: Console,
        judge: Judge,
        reset: Callable[[], None],
        suspend: Callable[[str, int], None],
        ram: GuestMemory,
        stores: Stores,
        wake: Callable[[], None],
        exact: bool,
        buses: Buses,
        aperture: ChecksEffects,
    ) -> None:
        """For the rest see `Devices`."""
        self.aperture = aperture
        self.late = LateWrites()
        """The ports whose writes may be late at times."""
        self.irq_source = router.source
        self.replacing_irq_source = router.replacing_source
        self.rise_of = router.rise_of
        self.ask_for_reset = reset
        self.suspend = suspend
        self.ram = ram
        self._console = console
        self._moving = ram, stores, wake
        self._mover: Mover | None = None
        self.buses = buses
        self._judge = judge
        self.exact = exact
        self._crash_kernel = False

    def output(self, stream: str) -> Callable[[bytes], None]:
        """A stream of the console, or the disk of that name, which has asked the device."""
        hear: Callable[[bytes], None] | None = getattr(self._moving[1].get(stream), "hear", None)
        return self._console.sink(stream) if hear is None else hear

    def input_room(self, stream: str) -> Callable[[int], None]:
        """That of a stream of the console, or of the wire of that name."""
        room: Callable[[int], None] | None = getattr(self._moving[1].get(stream), "room", None)
        return self._console.room(stream) if room is None else room

    def bios_reports(self) -> tuple[Callable[[bytes], None], Callable[[int, int, int], None]]:
        """Reports become lines for the person, or the end of the run."""
        from kvmbox.host.bios_reports import BiosReports

        reports = BiosReports(self._judge, self._console.note)
        return reports.take, reports.stop

    @property
    def transfer_thread(self) -> TransferThread | None:
        """The thread that has what may have to wait moved, if a device may want that."""
        return None if self._mover is None else self._mover.thread

    def _moves(self) -> Mover:
        if self._mover is None:
            from kvmbox.run.moving import Mover

            self._mover = Mover(*self._moving)
        return self._mover

    def transfers(self, device: str, grant: Resource) -> Submit:
        """See `Mover`."""
        return self._moves().transfers(device, grant)

    def medium(self, device: str, grant: Medium) -> MediumAccess:
        """See `Mover`."""
        return self._moves().medium(device, grant)

    def queues(self, device: str, grant: Queues) -> DeviceQueues:
        """Those whose output, like all, waits while the console has no room."""
        return self._moves().queues(device, grant, self._console.wait_for_room)

    def window(self, register: int) -> DataWindow:
        """One that the chosen loop can look into."""
        return window_kind()(register)

    def late_writes(self, device: DeviceSpec, grant: board.LateWrites) -> Callable[[int], None]:
        """KVM coalesces writes to the register's port while they may be late. Those to memory always exit."""
        port = device.port_of(grant.register)
        if port is None:
            return lambda _allowed: None
        return self.late.note(port) if self.exact else self.late.add(port)

    def stop(self, value: int | None) -> None:
        """The guest ends the run: with `value` at the debug-exit port, or cleanly (None)."""
        if value is None:
            outcome = Outcome(CLEAN, "the guest shut down")
        else:
            outcome = Outcome(debug_exit_status(value), f"the guest wrote {value:#x} to the debug-exit port")
        self._judge.ends(outcome)

    def panic(self, *, crash_kernel: bool) -> None:
        """The guest says that it has panicked: the end, unless it goes on with a crash kernel."""
        if not crash_kernel:
            reason = "the guest reported a panic (pvpanic)"
            self._judge.ends(Outcome(GUEST_CRASHED, reason, error=True))
        elif not self._crash_kernel:
            self._crash_kernel = True
            self._console.note("the guest reported a panic, and boots its crash kernel (pvpanic)")


DeadlineChanged = Callable[[str, int, int], None]
"""Hears that a process, by name, has another deadline, and when it was told: in ns of guest time."""


class Shims(Protocol):
    """What stands between the devices and the guest of a run. `attach` is called first."""

    def attach(
        self,
        now: Callable[[], int],
        processes: Iterable[tuple[str, DeviceSpec]],
        announce: DeadlineChanged,
        /,
    ) -> DeadlineChanged:
        """Guest time is `now`, and `processes` are the devices, each with the name of its process.

        Returns what hears of the deadlines of processes, and calls `announce` with them.
        """
        ...

    def host_of(self, device: DeviceSpec, host: Host, /) -> Host:
        """What does for `device` what `host` would."""
        ...

    def device_of(self, device: DeviceSpec, proxy: DeviceProxy, /) -> BusDevice:
        """What is put on the bus for `device`: `proxy` itself, if nothing stands before it."""
        ...

    def reset(self) -> None:
        """The machine is reset."""
        ...


class Devices:
    """All devices of a run: launched, wired, and connected to two buses."""

    disks: Sequence[RunDisk] = ()
    """The disks of the guest, once they are known."""

    def __init__(
        self,
        board: list[DeviceSpec],
        pool: DevicePool,
        console: Console,
        judge: Judge,
        *,
        reset: Callable[[], None],
        suspend: Callable[[str, int], None],
        deadline_changed: Callable[[str, int, int], None],
        ram: GuestMemory,
        stores: Stores,
        wake: Callable[[], None],
        prepare: Callable[[DevicePool, GuestClock], None] = lambda _pool, _clock: None,
        shims: Shims | None = None,
        exact: bool = False,
        aperture: ChecksEffects,
    ) -> None:
        """Wire `board`, whose processes `pool` has launched. `reset` is called when a device asks for one,
        `suspend` with its name and the wake-ups that it wants when it asks for that.
        `prepare` is called, with `pool` and the clock, before there is any channel.

        `stores` are the resources of the host that devices were granted, by name; `wake` wakes the main
        thread, which tells devices what has become of their transfers. `shims` are between devices and
        guest, if anything is. With `exact`, each write that prints exits: then the vCPU stands at the
        instruction that has printed a text when the text is found. `aperture` is `Host.aperture`.
        """
        self.board = board
        self.pool = pool
        self.clock = guest_clock()
        self.router = interrupt_router(self.clock)
        self._buses = Buses(board, ram, self.router.source, console.note)
        self.ports, self.mmio = self._buses.ports, self._buses.mmio
        self.proxies: list[DeviceProxy] = []
        self.coalesced: dict[int, tuple[DeviceProxy, int]] = {}
        """Device and register of each port whose writes may always come late."""
        self.late_ports: dict[int, tuple[DeviceProxy, int]] = {}
        """The same of those whose writes may come late at times."""
        self._host = host = RunHost(
            *(self.router, console, judge, reset, suspend, ram, stores, wake, exact, self._buses, aperture)
        )
        self.shims = shims
        """What is between devices and guest, if anything is."""
        grants, deadline_changed = self._grants(shims, host, deadline_changed)
        self.late_forbidden: tuple[int, ...] = ()
        """The ports whose writes must not be late when the next virtual machine starts."""
        try:
            prepare(pool, self.clock)
            pool.connect(
                grants,
                now=self.clock.now,
                deadline_changed=deadline_changed,
                wait_for_output=console.wait_for_room,
            )
        except BaseException:
            self.router.close()  # which nobody else has yet
            raise
        for device_type, index, device in pool.places():
            self._attach(device, DeviceProxy.of(pool.channel(device_type), index, device))

    @property
    def pci(self) -> PciFabric | None:
        """The PCI of the board, if it has any."""
        return self._buses.fabric

    @property
    def transfers(self) -> TransferThread | None:
        """The thread that has moved what may have to wait, if there is one."""
        return self._host.transfer_thread

    @property
    def late(self) -> LateWrites:
        """The ports whose writes may be late at times."""
        return self._host.late

    def _grants(
        self, shims: Shims | None, host: RunHost, deadline_changed: Callable[[str, int, int], None]
    ) -> tuple[dict[str, Grants], Callable[[str, int, int], None]]:
        """The grants of the devices, and what hears of the deadlines of their processes."""
        if shims is None:
            return {device.name: bind(device, host) for device in self.board}, deadline_changed
        processes = [(name, device) for name, _, device in self.pool.places()]
        deadline_changed = shims.attach(self.clock.now, processes, deadline_changed)
        grants = {device.name: bind(device, shims.host_of(device, host)) for device in self.board}
        return grants, deadline_changed

    def complete_transfers(self) -> bool:
        """Send COMPLETE for what is done; whether anything was. By the main thread. Raises
        DeviceProcessError.
        """
        if self.transfers is None:
            return False
        from kvmbox.run.moving import complete_transfers

        return complete_transfers(self.transfers, self.pool)

    def _attach(self, device: DeviceSpec, proxy: DeviceProxy) -> None:
        self.proxies.append(proxy)
        if self.shims is not None:
            shim = self.shims.device_of(device, proxy)
            if shim is not proxy:  # each access of the guest goes to it, at once, and none by a fast path
                self._buses.attach(device, shim, None)
                return
        self._buses.attach(device, proxy, proxy)
        if self._host.exact and device.granted(board.Output):
            return
        for port in device.coalesced:
            mapping = self.ports.find(port)
            assert mapping is not None
            self.coalesced[port] = (proxy, mapping.register(port))
        for grant in device.granted(board.LateWrites):
            late = device.port_of(grant.register)
            if late is not None:
                self.late_ports[late] = (proxy, grant.register)


class SavedState(Protocol):
    """The state of a virtual machine that was saved: see `origin.Origin`."""

    def apply(self, kvm: Kvm, guest: GuestVm) -> None:
        """Bring a fresh machine to it. Raises StartError."""
        ...


class GuestVm:
    """One virtual machine from reset to reset: memory, interrupt controllers, vCPUs, a loaded guest.

    The first vCPU is the bootstrap processor. The others wait for INIT and a start-up IPI.
    """

    def __init__(
        self,
        kvm: Kvm,
        memory: GuestMemory,
        source: BootSource,
        *,
        cpu: str,
        cpus: int = 1,
        waits: bool = True,
        state: SavedState | None = None,
    ) -> None:
        """`cpu` is what `--cpu` says. `waits` says whether `close` waits until the VM is destroyed. With a
        `state`, the machine goes on as that says, and `memory` has it already.

        Raises StartError, KvmError and UsageError.
        """
        self._waits = waits
        self._coalesces = kvm.check_extension(uapi.KVM_CAP_COALESCED_PIO) > 0
        self.boot = source.load(memory)
        self.memory = memory
        self.vm: Vm = kvm.create_vm()
        try:
            self.vm.set_identity_map_address(layout.KVM_IDENTITY_MAP_ADDRESS)
            self.vm.set_tss_address(layout.KVM_TSS_ADDRESS)
            # Before the interrupt controllers: KVM then builds its routing once.
            self.vm.map_memory(memory.pieces)
            for slot, rom in enumerate(memory.roms, len(memory.pieces)):
                self.vm.set_user_memory_region(slot, rom.start, rom.size, rom.host_address, read_only=True)
            self.vm.map_memory(memory.video, VIDEO_SLOT)
            memory.show_video = lambda video: self.vm.map_memory(video, VIDEO_SLOT)
            self.vm.create_irqchip()
            self.vm.route_as_pc()
            if self.boot.after_bios:
                from kvmbox.run.after_bios import initialize_pics

                initialize_pics(self.vm)
            processors = Processors(kvm, self.vm, cpus=cpus, cpu=cpu)
            self.vcpus: list[Vcpu] = processors.vcpus
            self.is_pvm = processors.is_pvm
            self.not_hidden = processors.not_hidden
            self.leaves = processors.leaves
            self.lines_are_set = state is not None
            """Whether the interrupt controllers have seen the edges of the lines that are high."""
            if state is None:
                apply_state(self.vcpus[0], self.boot.state)
            else:
                state.apply(kvm, self)
        except BaseException:
            self.vm.close()
            raise

    def coalesce(self, devices: Devices, room: OutputRoom) -> CoalescedRing | None:
        """Coalesce the writes that may be late, if KVM can do this: they do not exit, but go to the ring."""
        zones = devices.coalesced | devices.late_ports
        forbidden, devices.late_forbidden = devices.late_forbidden, ()
        if not self._coalesces or not zones:
            devices.late.attach(self.vm, None, forbidden)
            return None
        for port in devices.coalesced:
            self.vm.register_coalesced(port, 1, pio=True)
        # The ring belongs to the VM: KVM maps the same page behind each vCPU.
        vcpu, alone = self.vcpus[0], len(self.vcpus) == 1
        latches = zones.keys() & {port for device in devices.board for port in device.latches}
        ring = ring_kind()(
            vcpu.words64, vcpu.words32, vcpu.bytes, zones, room=room, latches=latches, carries=alone
        )
        devices.late.attach(self.vm, ring, forbidden)
        return ring

    def close(self) -> None:
        """Close the VM and its vCPUs; the memory stays."""
        self.vm.close(wait=self._waits)
