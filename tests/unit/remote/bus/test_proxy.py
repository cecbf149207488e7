"""The proxy: a device in another process, as the bus sees it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kvmbox.base.errors import ProtocolError
from kvmbox.remote.bus.proxy import DeviceProxy
from kvmbox.remote.bus.routing import Bus, Mapping
from kvmbox.remote.channel.connection import Channel
from kvmbox.remote.channel.grants import Grants
from kvmbox.wire import protocol
from tests.support.far_end import FarEnd
from tests.support.racing import race


class Far:
    """The other end of a channel with one granted device."""

    def __init__(self) -> None:
        self.end = FarEnd()
        grants = [Grants(str(number)) for number in range(4)]
        self.channel = Channel("debug", self.end.link, grants, now=lambda: 11)

    def will_answer(self, kind: int, size: int, value: int = 0, device: int = 3) -> None:
        self.end.reply(kind, device=device, size=size, value=value)


@pytest.fixture
def far() -> Iterator[Far]:
    peer = Far()
    yield peer
    peer.channel.close()
    peer.end.close()


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_read_of_each_size_asks_for_it_and_takes_the_largest_value(far: Far, size: int) -> None:
    proxy = DeviceProxy(far.channel, 3, "debug-exit", frozenset())
    largest = (1 << 8 * size) - 1
    far.will_answer(protocol.READ, size, largest)
    assert proxy.read(6, size) == largest
    assert far.end.asked() == [protocol.Request(protocol.READ, 3, size, 1, 11, 0, 6)]
    assert (proxy.reads, proxy.writes) == (1, 0)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_read_value_beyond_its_size_is_a_lie(far: Far, size: int) -> None:
    proxy = DeviceProxy(far.channel, 3, "debug-exit", frozenset())
    far.will_answer(protocol.READ, size, 1 << 8 * size)
    with pytest.raises(ProtocolError):
        proxy.read(0, size)


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_write_of_each_size_forwards_the_value(far: Far, size: int) -> None:
    proxy = DeviceProxy(far.channel, 3, "debug-exit", frozenset())
    far.will_answer(protocol.WRITE, size)
    proxy.write(2, size, 0x7F)
    assert far.end.asked() == [protocol.Request(protocol.WRITE, 3, size, 1, 11, 0x7F, 2)]
    assert (proxy.reads, proxy.writes) == (0, 1)


def test_proxy_on_a_bus_takes_whole_what_it_says(far: Far) -> None:
    bus = Bus(16)
    bus.attach(Mapping(0xF4, 4, DeviceProxy(far.channel, 3, "debug-exit", frozenset({2}))))
    for size in (2, 1, 1, 1, 1):
        far.will_answer(protocol.WRITE, size)
    bus.write(0xF4, 2, 0x2211)
    bus.write(0xF4, 4, 0x44332211)
    assert [(one.offset, one.size, one.value) for one in far.end.asked()] == [
        (0, 2, 0x2211),
        (0, 1, 0x11),
        (1, 1, 0x22),
        (2, 1, 0x33),
        (3, 1, 0x44),
    ]


class Slow(int):
    """A number that takes a while to add: another thread may run before the sum is stored."""

    def __radd__(self, other: int) -> int:
        return other + int(self)


def test_threads_that_count_at_once_lose_nothing(far: Far) -> None:
    proxy = DeviceProxy(far.channel, 3, "debug-exit", frozenset())

    def count() -> None:
        for _ in range(5000):
            proxy.count(True, Slow(1))
            proxy.count(False, Slow(2))

    race(count, count, count, count)
    assert (proxy.reads, proxy.writes) == (20_000, 40_000)
