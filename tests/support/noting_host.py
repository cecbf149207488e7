"""A host for devices that notes what they ask for, and does nothing but give them memory."""

from __future__ import annotations

from collections.abc import Callable

from kvmbox.base import layout
from kvmbox.base.memory import GuestMemory
from kvmbox.contract import device_spec
from kvmbox.contract.bulk_data import Aperture
from kvmbox.contract.device_spec import DeviceSpec
from kvmbox.contract.model import NO_RISE, Effect
from kvmbox.remote.bus.machine_buses import Buses
from kvmbox.remote.channel.effect_calls import Application
from kvmbox.remote.channel.grants import Rise
from kvmbox.remote.published.data_window import DataWindow
from kvmbox.remote.published.guest_memory import Submit
from kvmbox.remote.published.medium import MediumAccess
from kvmbox.remote.published.queue_kinds import queues_of
from kvmbox.remote.published.queues import DeviceQueues
from tests.support.log import Calls


class NotingRise:
    """Notes what it is announced."""

    slack = 0

    def __init__(self, log: Calls, number: int) -> None:
        self.at = NO_RISE
        self._log = log
        self._number = number

    def announce(self, at: int) -> None:
        self._log.append(("rise", self._number, at))

    def guarded_by(self, lock: object) -> None:
        """It is used by one thread."""

    def raise_ahead(self) -> None:
        raise AssertionError

    def settle(self) -> None:
        """Nothing was raised ahead."""


class NotingStore:
    """Notes what a device has done to its medium, which is all zeros."""

    writes_now = True

    def __init__(self, log: Calls, device: str, name: str) -> None:
        self._log = log
        self._whose = (device, name)

    def read(self, offset: int, size: int) -> bytes:
        self._log.append(("read", *self._whose, offset, size))
        return bytes(size)

    read_now = read

    def write(self, offset: int, data: bytes) -> None:
        self._log.append(("write", *self._whose, offset, data))

    def flush(self) -> None:
        self._log.append(("flush", *self._whose))


class NotingHost:
    """See `remote.channel.grants.Host`. Rises have the numbers of their sources, from 1."""

    def __init__(self) -> None:
        self.log: Calls = []
        self.ram = GuestMemory(layout.PAGE_SIZE)
        self.sources = 0
        self.buses = Buses((), self.ram, self.irq_source)

    def transfers(self, device: str, grant: device_spec.Resource) -> Submit:
        def submit(*order: object) -> bool:
            self.log.append(("transfer", device, grant.name, *order))
            return True

        return submit

    def medium(self, device: str, grant: device_spec.Medium) -> MediumAccess:
        return MediumAccess(grant, NotingStore(self.log, device, grant.name), lambda *_errand: False)

    def window(self, register: int) -> DataWindow:
        return DataWindow(register)

    def queues(self, device: str, grant: device_spec.Queues) -> DeviceQueues:
        del device
        return queues_of(grant, self.ram, lambda _settle: False)

    def aperture(self, index: int, effect: Effect) -> Application | None:
        if not isinstance(effect, Aperture):
            return None
        return self.log.append, (("aperture", index, effect),), 0

    def irq_source(self, gsi: int) -> Callable[[int, int], None]:
        return lambda *what: self.log.append(("irq", gsi, *what))

    def replacing_irq_source(self, gsi: int) -> tuple[Callable[[int, int], None], Callable[[int], None]]:
        return self.irq_source(gsi), lambda *what: self.log.append(("take", gsi, *what))

    def rise_of(self, line: Callable[[int, int], None]) -> Rise | None:
        del line
        self.sources += 1
        return NotingRise(self.log, self.sources)

    def output(self, stream: str) -> Callable[[bytes], None]:
        return lambda *what: self.log.append(("output", stream, *what))

    def input_room(self, stream: str) -> Callable[[int], None]:
        return lambda *what: self.log.append(("room", stream, *what))

    def ask_for_reset(self) -> None:
        self.log.append(("reset",))

    def late_writes(self, device: DeviceSpec, grant: device_spec.LateWrites) -> Callable[[int], None]:
        return lambda *what: self.log.append(("late", device.name, grant.register, *what))

    def bios_reports(self) -> tuple[Callable[[bytes], None], Callable[[int, int, int], None]]:
        return (
            lambda *what: self.log.append(("report", *what)),
            lambda *what: self.log.append(("stop of the BIOS", *what)),
        )

    def stop(self, value: int | None) -> None:
        self.log.append(("stop", value))

    def suspend(self, device: str, wakes: int) -> None:
        self.log.append(("suspend", device, wakes))

    def panic(self, *, crash_kernel: bool) -> None:
        self.log.append(("panic", crash_kernel))
