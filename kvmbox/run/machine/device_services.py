"""What a run does for its devices: the services behind their grants.

An effect that a device was granted calls one of these. They know the console, the judge, the interrupt lines
and guest memory. What moves bulk data is loaded for the devices that want it (`bulk_transfers`).
"""

from __future__ import annotations

from collections.abc import Callable

from kvmbox.base.outcome import CLEAN, GUEST_CRASHED, Outcome, debug_exit_status
from kvmbox.contract import device_spec
from kvmbox.run.machine.loop_implementations import window_kind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from kvmbox.base.judge import Judge
    from kvmbox.base.memory import GuestMemory
    from kvmbox.contract.device_spec import DeviceSpec, Medium, Queues, Resource
    from kvmbox.host.console.serial_ports import Console
    from kvmbox.host.disk.transfers import Store, TransferThread
    from kvmbox.host.interrupt_lines import InterruptRouter
    from kvmbox.remote.bus.machine_buses import Buses
    from kvmbox.remote.channel.grants import ChecksEffects
    from kvmbox.remote.published.data_window import DataWindow
    from kvmbox.remote.published.guest_memory import Submit
    from kvmbox.remote.published.medium import MediumAccess
    from kvmbox.remote.published.queues import DeviceQueues
    from kvmbox.run.machine.bulk_transfers import Mover
    from kvmbox.run.vcpu.late_writes import LateWrites


class DeviceServices:
    """What a run does for its devices: see `remote.channel.grants.Host`."""

    def __init__(
        self,
        judge: Judge,
        console: Console,
        router: InterruptRouter,
        buses: Buses,
        ram: GuestMemory,
        stores: Mapping[str, Store],
        wake: Callable[[], None],
        *,
        reset: Callable[[], None],
        suspend: Callable[[str, int], None],
        late: LateWrites,
        aperture: ChecksEffects,
    ) -> None:
        """`stores` are the resources of the host that devices were granted, by name; `wake` wakes the main
        thread, which tells devices what has become of their transfers. `reset` is called when a device asks
        for one, `suspend` with its name and the wake-ups that it wants when it asks for that.
        `aperture` is `Host.aperture`.
        """
        self.irq_source = router.source
        self.replacing_irq_source = router.replacing_source
        self.rise_of = router.rise_of
        self.ask_for_reset = reset
        self.suspend = suspend
        self.aperture = aperture
        self.buses = buses
        self.ram = ram
        self._judge = judge
        self._console = console
        self._stores = stores
        self._wake = wake
        self._mover: Mover | None = None
        self._late = late
        self._crash_kernel = False

    def output(self, stream: str) -> Callable[[bytes], None]:
        """A stream of the console, or the disk of that name, which has asked the device."""
        hear: Callable[[bytes], None] | None = getattr(self._stores.get(stream), "hear", None)
        return self._console.sink(stream) if hear is None else hear

    def input_room(self, stream: str) -> Callable[[int], None]:
        """That of a stream of the console, or of the wire of that name."""
        room: Callable[[int], None] | None = getattr(self._stores.get(stream), "room", None)
        return self._console.room(stream) if room is None else room

    def bios_reports(self) -> tuple[Callable[[bytes], None], Callable[[int, int, int], None]]:
        """Reports become lines for the person, or the end of the run."""
        from kvmbox.host.console.bios_messages import BiosReports

        reports = BiosReports(self._judge, self._console.note)
        return reports.take, reports.stop

    @property
    def transfer_thread(self) -> TransferThread | None:
        """The thread that has what may have to wait moved, if a device may want that."""
        return None if self._mover is None else self._mover.thread

    def _moves(self) -> Mover:
        if self._mover is None:
            from kvmbox.run.machine.bulk_transfers import Mover

            self._mover = Mover(self.ram, self._stores, self._wake)
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

    def late_writes(self, device: DeviceSpec, grant: device_spec.LateWrites) -> Callable[[int], None]:
        """KVM coalesces writes to the register's port while they may be late. Those to memory always exit."""
        port = device.port_of(grant.register)
        if port is None:
            return lambda _allowed: None
        return self._late.add(port)

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
