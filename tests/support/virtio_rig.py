"""A virtio device behind a channel, with a driver (`virtio_driver`). The test is the transfer thread, and
what the main thread does with what it has done.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, cast

from kvmbox.base.memory import GuestMemory
from kvmbox.contract import device_spec
from kvmbox.contract.device_spec import DeviceSpec
from kvmbox.devices.virtio import mmio
from kvmbox.devices.virtio.board import place_virtio
from kvmbox.host.disk.transfers import Settle
from kvmbox.remote.bus.pci_fabric import PciFabric
from kvmbox.remote.bus.proxy import DeviceProxy
from kvmbox.remote.channel.grants import bind
from kvmbox.remote.channel.hello import greet
from kvmbox.remote.published.guest_memory import settled
from kvmbox.remote.published.medium import MediumAccess
from kvmbox.remote.published.queue_kinds import queues_of
from kvmbox.remote.published.queues import DeviceQueues
from kvmbox.remote.transport.direct import DirectLink
from kvmbox.wire import protocol
from tests.support.halves import Half
from tests.support.noting_host import NotingHost
from tests.support.virtio_driver import Driver, FlatMemory, RealMemory

READY = mmio.ACKNOWLEDGE | mmio.DRIVER | mmio.FEATURES_OK | mmio.DRIVER_OK
Errand = tuple[int, Callable[[], int], Settle | None]


class RigHost(NotingHost):
    """Errands wait until the test does them."""

    def __init__(self, memory: FlatMemory, store: object, half: Half) -> None:
        super().__init__()
        self.memory = memory
        self.ram = cast(GuestMemory, memory)
        self._half = half
        self.errands: deque[Errand] = deque()
        self._store = store

    def medium(self, device: str, grant: device_spec.Medium) -> MediumAccess:
        del device
        return MediumAccess(grant, cast(Any, self._store), self._submit)

    def queues(self, device: str, grant: device_spec.Queues) -> DeviceQueues:
        del device
        return queues_of(
            grant,
            self.ram,
            lambda settle: self._submit(0, lambda: 0, settle),
            compiled=self._half.is_compiled,
        )

    def output(self, stream: str) -> Callable[[bytes], None]:
        hear: Callable[[bytes], None] | None = getattr(self._store, "hear", None)
        return hear or super().output(stream)

    def _submit(self, *errand: Any) -> bool:
        self.errands.append(cast(Errand, errand))
        return True


class VirtioRig:
    """See the module."""

    def __init__(
        self,
        spec: DeviceSpec,
        store: object = None,
        *,
        half: Half | None = None,
        fabric: PciFabric | None = None,
        memory: RealMemory | None = None,
        link: DirectLink | None = None,
    ) -> None:
        """`spec` is placed in memory, unless it is a function of `fabric`. With `memory`, nobody records the
        requests: so the compiled half does what it can. `link` leads to another model.
        """
        half = half or Half()
        self.memory = FlatMemory(1 << 20) if memory is None else cast(FlatMemory, memory)
        self.host = RigHost(self.memory, store, half)
        self.host.buses.fabric = fabric
        (self.spec,) = place_virtio([spec]) if spec.pci is None else [spec]
        self.grants = bind(self.spec, self.host)
        self.requests: list[int] = []
        self.channel = half.channel(
            self.spec.device_type,
            link or DirectLink(),
            [self.grants],
            now=lambda: 1,
            record=None if memory is not None else lambda sent, _reply: self.requests.append(sent[0]),
        )
        greet(self.channel, [self.spec])
        self.proxy = DeviceProxy.of(self.channel, 0, self.spec)
        self.drivers: list[Driver] = []

    @property
    def queues(self) -> DeviceQueues:
        assert self.grants.media is not None
        assert self.grants.media.queues is not None
        return self.grants.media.queues

    @property
    def media(self) -> Callable[[int], MediumAccess | None]:
        assert self.grants.media is not None
        return self.grants.media.by_number.get

    # --- The guest ----------------------------------------------------------------------------------------

    def read(self, register: int, size: int = 4) -> int:
        return self.proxy.read(register, size)

    def write(self, register: int, value: int, size: int = 4) -> None:
        self.proxy.write(register, size, value)

    def negotiate(self, features: int = mmio.F_VERSION_1) -> None:
        self.write(mmio.STATUS, 0)
        self.write(mmio.STATUS, mmio.ACKNOWLEDGE | mmio.DRIVER)
        for half in (0, 1):
            self.write(mmio.DRIVER_FEATURES_SEL, half)
            self.write(mmio.DRIVER_FEATURES, features >> 32 * half & 0xFFFF_FFFF)
        self.write(mmio.STATUS, READY & ~mmio.DRIVER_OK)

    def publish(self, index: int, driver: Driver) -> None:
        self.write(mmio.QUEUE_SEL, index)
        self.write(mmio.QUEUE_NUM, driver.size)
        for register, area in zip(
            (mmio.QUEUE_DESC, mmio.QUEUE_DRIVER, mmio.QUEUE_DEVICE), driver.areas, strict=True
        ):
            self.write(register, area & 0xFFFF_FFFF)
            self.write(register + 4, area >> 32)
        self.write(mmio.QUEUE_READY, 1)

    def start(self, *, size: int = 64, features: int = mmio.F_VERSION_1, queues: int = 1) -> Driver:
        """What a driver does until it uses the device; the driver of the first queue."""
        self.negotiate(features)
        self.drivers = [Driver(self.memory, size, 0x1000 * (index + 1)) for index in range(queues)]
        for index, driver in enumerate(self.drivers):
            self.publish(index, driver)
        self.write(mmio.STATUS, READY)
        return self.drivers[0]

    def notify(self, index: int = 0) -> None:
        self.write(mmio.QUEUE_NOTIFY, index)

    # --- The other threads --------------------------------------------------------------------------------

    def do_errand(self) -> None:
        tag, work, settle = self.host.errands.popleft()
        status = work()
        self.channel.serve(partial(settled, 0, tag, status, settle), 10)

    def do_errands(self, most: int = 10_000) -> int:
        done = 0
        while self.host.errands and done < most:
            self.do_errand()
            done += 1
        return done

    def reset(self) -> None:
        self.host.errands.clear()
        self.channel.request(protocol.RESET)

    def lines(self) -> list[int]:
        """The levels that the interrupt line took since the last call."""
        found = [call[2] for call in self.host.log if call[0] == "irq"]
        self.host.log[:] = [call for call in self.host.log if call[0] != "irq"]
        return cast("list[int]", found)
