"""The devices of a run, as long as it lasts: processes, channels, buses, clock and interrupt lines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from kvmbox.contract import device_spec
from kvmbox.contract.device_spec import DeviceSpec
from kvmbox.host.time.guest_clock import GuestClock
from kvmbox.remote.bus.proxy import DeviceProxy
from kvmbox.remote.bus.routing import BusDevice
from kvmbox.remote.channel.grants import bind
from kvmbox.remote.process.device_pool import DevicePool

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kvmbox.host.disk.stores import RunDisk
    from kvmbox.host.disk.transfers import TransferThread
    from kvmbox.host.interrupt_lines import InterruptRouter
    from kvmbox.remote.bus.machine_buses import Buses
    from kvmbox.remote.bus.pci_fabric import PciFabric
    from kvmbox.remote.channel.grants import Grants, Host
    from kvmbox.run.machine.device_services import DeviceServices
    from kvmbox.run.vcpu.late_writes import LateWrites


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
    """All devices of a run: wired, and connected to two buses."""

    def __init__(
        self,
        board: Sequence[DeviceSpec],
        pool: DevicePool,
        clock: GuestClock,
        router: InterruptRouter,
        buses: Buses,
        host: DeviceServices,
        *,
        late: LateWrites,
        deadline_changed: DeadlineChanged,
        wait_for_output: Callable[[], None],
        shims: Shims | None = None,
        disks: Sequence[RunDisk] = (),
        exact: bool = False,
    ) -> None:
        """Wire `board`, whose processes `pool` has launched, and put it on `buses`. Nobody has asked the
        processes anything yet.

        `shims` are between devices and guest, if anything is. With `exact`, each write that prints exits:
        then the vCPU stands at the instruction that has printed a text when the text is found.
        Raises SandboxError, DeviceProcessError.
        """
        self.board = board
        self.pool = pool
        self.clock = clock
        self.router = router
        self.ports, self.mmio = buses.ports, buses.mmio
        self.proxies: list[DeviceProxy] = []
        self.coalesced: dict[int, tuple[DeviceProxy, int]] = {}
        """Device and register of each port whose writes may always come late."""
        self.late_ports: dict[int, tuple[DeviceProxy, int]] = {}
        """The same of those whose writes may come late at times."""
        self.late = late
        """What KVM coalesces of these."""
        self.late_forbidden: tuple[int, ...] = ()
        """The ports whose writes must not be late when the next virtual machine starts."""
        self.shims = shims
        """What is between devices and guest, if anything is."""
        self.disks = disks
        """The disks of the guest."""
        self._buses = buses
        self._host = host
        grants, deadline_changed = self._grants(deadline_changed)
        pool.connect(
            grants, now=clock.now, deadline_changed=deadline_changed, wait_for_output=wait_for_output
        )
        for device_type, index, device in pool.places():
            self._attach(device, DeviceProxy.of(pool.channel(device_type), index, device), exact=exact)

    @property
    def pci(self) -> PciFabric | None:
        """The PCI of the board, if it has any."""
        return self._buses.fabric

    @property
    def transfers(self) -> TransferThread | None:
        """The thread that has moved what may have to wait, if there is one."""
        return self._host.transfer_thread

    def _grants(self, deadline_changed: DeadlineChanged) -> tuple[dict[str, Grants], DeadlineChanged]:
        """The grants of the devices, and what hears of the deadlines of their processes."""
        shims, host = self.shims, self._host
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
        from kvmbox.run.machine.bulk_transfers import complete_transfers

        return complete_transfers(self.transfers, self.pool)

    def _attach(self, device: DeviceSpec, proxy: DeviceProxy, *, exact: bool) -> None:
        self.proxies.append(proxy)
        if self.shims is not None:
            shim = self.shims.device_of(device, proxy)
            if shim is not proxy:  # each access of the guest goes to it, at once, and none by a fast path
                self._buses.attach(device, shim, None)
                return
        self._buses.attach(device, proxy, proxy)
        if exact and device.granted(device_spec.Output):
            return
        for port in device.coalesced:
            mapping = self.ports.find(port)
            assert mapping is not None
            self.coalesced[port] = (proxy, mapping.register(port))
        for grant in device.granted(device_spec.LateWrites):
            late = device.port_of(grant.register)
            if late is not None:
                self.late_ports[late] = (proxy, grant.register)
