"""A disk that uses windows (`window_disk`) on a bus. The test is its transfer thread, and its main thread."""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Callable
from functools import partial

from kvmbox.contract.device_spec import AddressRange, DeviceSpec, Irq, Medium
from kvmbox.host.disk.transfers import BytesStore, Settle
from kvmbox.jail.server import DeviceServer
from kvmbox.remote.bus.proxy import DeviceProxy
from kvmbox.remote.bus.routing import Bus, Mapping
from kvmbox.remote.channel.effect_calls import FollowUp
from kvmbox.remote.channel.grants import bind
from kvmbox.remote.channel.hello import greet
from kvmbox.remote.published.data_window import DataWindow
from kvmbox.remote.published.guest_memory import answer
from kvmbox.remote.published.medium import MediumAccess
from kvmbox.remote.transport.direct import DirectLink
from kvmbox.wire import protocol
from tests.support.halves import Half
from tests.support.noting_host import NotingHost
from tests.support.window_disk import SECTOR, WindowDisk

SECTORS = 8
PORT = 0x1F0
CONTENT = bytes((place * 7 + place // 256) & 0xFF for place in range(SECTORS * SECTOR))

DEVICE = DeviceSpec(
    "disk",
    "disk",
    "window_disk",
    ports=(AddressRange(PORT, 4),),
    grants=(Irq(14), Medium("disk", len(CONTENT), writable=True, window=0, max_bytes=1024)),
    natural_sizes=frozenset({2, 4}),
)


class Store(BytesStore):
    """It waits and fails as the test wants. A file has the same bytes."""

    writes_now = True

    def __init__(self) -> None:
        super().__init__(CONTENT)
        self.waits = False
        self.fails = 0
        self.calls: list[str] = []
        self._file = os.open(tempfile.gettempdir(), os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._file)
        os.write(self._file, CONTENT)
        self._offered = 0

    def _called(self, what: str) -> None:
        self.calls.append(what)
        if self.fails:
            raise OSError(self.fails, "the disk of the host")

    def read(self, offset: int, size: int) -> bytes:
        self._called(f"read {offset}+{size}")
        return super().read(offset, size)

    def read_now(self, offset: int, size: int) -> bytes | None:  # type: ignore[override]
        return None if self.waits else self.read(offset, size)

    def file_now(self, offset: int, _size: int) -> int:
        self._offered = offset
        return -1 if self.waits or self.fails else self._file

    def was_read(self, size: int) -> None:
        self._called(f"read {self._offered}+{size}")

    def write(self, offset: int, data: bytes) -> None:
        self._called(f"write {offset}+{len(data)}")
        super().write(offset, data)
        os.pwrite(self._file, data, offset)

    def flush(self) -> None:
        self._called("flush")


class Host(NotingHost):
    """Errands wait until the test does them."""

    def __init__(self, store: Store, window: type[DataWindow]) -> None:
        super().__init__()
        self.errands: list[tuple[int, Callable[[], int], Settle | None]] = []
        self.is_full = False
        self._store = store
        self._window = window

    def medium(self, device: str, grant: Medium) -> MediumAccess:
        def submit(*errand: object) -> bool:
            self.errands.append(errand)  # type: ignore[arg-type]
            return not self.is_full

        del device
        return MediumAccess(grant, self._store, submit)

    def window(self, register: int) -> DataWindow:
        return self._window(register)


class WindowRig:
    """See the module."""

    def __init__(self, half: Half | None = None) -> None:
        half = half or Half()
        self.store, self.model = Store(), WindowDisk()
        self.host = Host(self.store, half.window)
        self.grants = bind(DEVICE, self.host)
        server = partial(DeviceServer, build=lambda _name, _parameters: self.model)
        self.channel = half.channel("disk", DirectLink(server), [self.grants], now=lambda: 1)
        greet(self.channel, [DEVICE])
        self.proxy = DeviceProxy.of(self.channel, 0, DEVICE)
        self.ports = Bus(16)
        self.mapping = Mapping(PORT, 4, self.proxy, direct=self.proxy)
        self.ports.attach(self.mapping)

    @property
    def medium(self) -> MediumAccess:
        """The disk's medium."""
        assert self.grants.media is not None
        return self.grants.media.by_number[0]

    @property
    def window(self) -> DataWindow:
        assert self.grants.media is not None
        assert self.grants.media.window is not None
        return self.grants.media.window

    @property
    def state(self) -> int:
        return self.ports.read(PORT + 3, 1)

    def command(self, command: int, sector: int = 0, count: int = 1) -> None:
        for register, value in ((1, count), (2, sector), (3, command)):
            self.ports.write(PORT + register, 1, value)

    def do_errand(self) -> None:
        """What the transfer thread and then the main thread do."""
        tag, work, settle = self.host.errands.pop(0)
        status = work()

        def told() -> list[FollowUp]:
            if settle is not None and not settle(status):
                return []
            return [answer(protocol.COMPLETE, 0, tag, status)]

        self.channel.serve(told, 10)
