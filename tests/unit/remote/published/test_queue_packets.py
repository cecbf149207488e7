"""Packets between virtqueues and a medium that keeps them apart, in both halves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import cast

import pytest

from kvmbox.contract.bulk_data import Connect, Walk
from kvmbox.contract.device_spec import Medium
from kvmbox.contract.model import Effect
from kvmbox.devices.virtio import board as virtio_board
from kvmbox.devices.virtio import mmio
from kvmbox.devices.virtio.net import F_MRG_RXBUF, MOST_FRAME, RECEIVED, SENT
from kvmbox.host.disk.transfers import BytesStore
from kvmbox.remote.published.queues import MOST_MOVED, PACKET_MOVED
from kvmbox.wire import protocol
from kvmbox.wire.protocol import Request
from tests.support.halves import Half, built_halves
from tests.support.virtio_driver import INDIRECT, NEXT, WRITE, RealMemory
from tests.support.virtio_rig import VirtioRig

HEADER = 12
PLACE = 0x8000
WRITE_SENT = Request(protocol.WRITE, 0, 4, 1, 1, 0, mmio.QUEUE_NOTIFY).encode()


class Wire:
    """Keeps what is sent, and counts how often the guest has had buffers again."""

    writes_now = True

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.told = 0
        self.when_sent: Callable[[], None] = lambda: None

    def write(self, _offset: int, data: bytes) -> None:
        self.sent.append(data)
        self.when_sent()

    def has_buffers(self) -> None:
        self.told += 1


class Net(VirtioRig):
    """A guest with a network interface, whose frames nobody records."""

    def __init__(self, half: Half, features: int = 0, *, is_recorded: bool = False) -> None:
        self.wire = Wire()
        memory = None if is_recorded else RealMemory(1 << 20)
        super().__init__(virtio_board.virtio_net(0, bytes(6)), self.wire, half=half, memory=memory)
        self.start(queues=2, features=mmio.F_VERSION_1 | features)

    def give(self, *sizes: int, first: int = 0) -> None:
        """Buffers for received frames, at PLACE + 0x800 * number."""
        driver = self.drivers[RECEIVED]
        for number, size in enumerate(sizes, first):
            driver.chain((PLACE + 0x800 * number, size, WRITE), first=number)
            driver.offer(number)
        self.notify(RECEIVED)

    def send(self, *frames: bytes) -> None:
        driver = self.drivers[SENT]
        for number, frame in enumerate(frames):
            self.memory.write(PLACE + 0x800 * number, bytes(HEADER) + frame)
            driver.chain((PLACE + 0x800 * number, HEADER + len(frame), 0), first=number)
            driver.offer(number)
        self.notify(SENT)

    def put(self, packet: bytes) -> int | None:
        """See DeviceQueues; and what is to be sent is sent."""
        found: list[int | None] = []

        def act() -> list[object]:
            found.append(self.queues.put(self.wire, packet))
            return [self.queues.next_request]

        self.channel.serve(act, 10)  # type: ignore[arg-type]  # a list of what it takes
        return found[0]

    def used(self) -> list[tuple[int, bytes]]:
        """Head and bytes of the chains that have come back with a frame."""
        return [
            (head, self.memory.read(PLACE + 0x800 * head, size))
            for head, size in self.drivers[RECEIVED].take_used()
        ]


@pytest.fixture(params=built_halves(), ids=lambda half: "compiled" if half.is_compiled else "pure")
def net(request: pytest.FixtureRequest) -> Iterator[Net]:
    found = Net(request.param)
    yield found
    cast(RealMemory, found.memory).close()


@pytest.fixture(params=built_halves(), ids=lambda half: "compiled" if half.is_compiled else "pure")
def merging(request: pytest.FixtureRequest) -> Iterator[Net]:
    found = Net(request.param, F_MRG_RXBUF)
    yield found
    cast(RealMemory, found.memory).close()


def header(chains: int) -> bytes:
    return bytes(10) + bytes((chains, 0))


def numbered(number: int, size: int = 60) -> bytes:
    return bytes((number,)) * size


# --- From the guest -------------------------------------------------------------------------------------


def test_frames_are_sent_within_the_notification(net: Net) -> None:
    net.send(numbered(1), numbered(2, 1514))

    assert net.wire.sent == [numbered(1), numbered(2, 1514)]
    assert net.drivers[SENT].take_used() == [(0, 0), (1, 0)]
    assert net.lines()


def test_no_process_is_asked() -> None:
    net = Net(Half(), is_recorded=True)
    net.requests.clear()
    net.give(1526)
    net.send(numbered(1))

    assert net.put(numbered(2)) == 1
    assert net.wire.sent == [numbered(1)]
    assert net.requests == []


def test_frame_in_pieces_and_tables_is_sent_whole(net: Net) -> None:
    driver = net.drivers[SENT]
    net.memory.write(PLACE, bytes(HEADER) + numbered(1, 20))
    net.memory.write(0xA001, numbered(2, 50))
    driver.chain((PLACE, 5, 0), (PLACE + 5, HEADER + 15, 0), (0xA001, 50, 0), first=3)
    driver.offer(3)
    net.notify(SENT)

    assert net.wire.sent == [numbered(1, 20) + numbered(2, 50)]


@pytest.mark.parametrize("size", [0, HEADER - 1, HEADER, HEADER + MOST_FRAME + 1, 1 << 19])
def test_what_is_no_frame_by_its_length_goes_back_and_is_not_sent(net: Net, size: int) -> None:
    net.drivers[SENT].chain((0x1_0000, size, 0))
    net.drivers[SENT].offer(0)
    net.notify(SENT)

    assert net.wire.sent == []
    assert net.drivers[SENT].take_used() == [(0, 0)]


def test_guest_that_feeds_the_ring_for_ever_does_not_keep_its_access_for_ever(net: Net) -> None:
    driver = net.drivers[SENT]
    net.memory.write(PLACE, bytes(HEADER + 60))
    driver.chain((PLACE, HEADER + 60, 0))
    net.wire.when_sent = lambda: driver.offer(0)
    driver.offer(*[0] * 16)
    net.notify(SENT)

    most = MOST_MOVED // PACKET_MOVED
    assert most <= len(net.wire.sent) <= most + 16
    assert net.do_errands(1) == 1
    assert len(net.wire.sent) > most + 16


# --- To the guest ---------------------------------------------------------------------------------------


def test_frame_is_behind_its_header_and_interrupts(net: Net) -> None:
    net.give(1526, 1526)

    assert net.put(numbered(1)) == net.put(numbered(2, 1514)) == 1
    assert net.used() == [(0, header(1) + numbered(1)), (1, header(1) + numbered(2, 1514))]
    assert net.lines()
    assert net.wire.told == 1


def test_frame_waits_for_a_chain_and_the_wire_is_told_of_it(net: Net) -> None:
    assert net.put(numbered(1)) is None
    net.give(1526)
    assert net.put(numbered(1)) == 1
    assert net.put(numbered(2)) is None
    net.give(1526, first=1)

    assert net.wire.told == 2
    assert net.put(numbered(2)) == 1
    assert [head for head, _ in net.used()] == [0, 1]


def test_driver_is_asked_to_notify_only_where_chains_are_missing(net: Net) -> None:
    net.give(1526, 1526)
    net.put(numbered(1))
    assert net.drivers[RECEIVED].used_flags == 1

    net.put(numbered(2))
    net.put(numbered(3))
    assert net.drivers[RECEIVED].used_flags == 0


def test_frame_that_does_not_fit_is_lost_and_the_chain_stays(net: Net) -> None:
    net.give(HEADER + 60)

    assert net.put(numbered(1, 61)) == 0
    assert net.used() == []
    assert net.put(numbered(2)) == 1
    assert net.used() == [(0, header(1) + numbered(2))]


def test_frame_goes_over_several_chains_which_come_back_together(merging: Net) -> None:
    merging.give(30, 10, 100)

    assert merging.put(numbered(1, 40)) == 3
    data = header(3) + numbered(1, 40)
    assert merging.used() == [(0, data[:30]), (1, data[30:40]), (2, data[40:])]


def test_frame_for_more_chains_than_there_are_takes_none(merging: Net) -> None:
    merging.give(30, 10)

    assert merging.put(numbered(1, 40)) is None
    assert merging.used() == []
    merging.give(100, first=2)
    assert merging.put(numbered(1, 40)) == 3


def test_frame_for_too_many_chains_is_lost(merging: Net) -> None:
    merging.give(*[20] * 17)

    assert merging.put(numbered(1, 330)) == 0
    assert merging.put(numbered(1, 300)) == 16


def test_event_index_within_the_chains_of_a_frame_interrupts() -> None:
    net = Net(Half(), F_MRG_RXBUF | mmio.F_EVENT_IDX, is_recorded=True)
    net.give(*[32] * 4)
    net.drivers[RECEIVED].want_interrupt_at(1)
    net.lines()

    assert net.put(numbered(1, 50)) == 2
    assert net.lines() == [1]
    assert net.put(numbered(2, 50)) == 2
    assert net.lines() == []


@pytest.mark.parametrize("flags", [NEXT, INDIRECT])
def test_ring_that_becomes_none_makes_the_device_need_a_reset(net: Net, flags: int) -> None:
    net.drivers[RECEIVED].describe(0, PLACE, 100, flags, 99)
    net.drivers[RECEIVED].offer(0)

    assert net.put(numbered(1)) is None
    assert net.read(mmio.STATUS) & mmio.NEEDS_RESET
    net.give(1526)
    assert net.put(numbered(1)) is None


# --- Who says so ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "effect",
    [
        Connect(2, 0, 0, 12, 0, 1),
        Connect(0, 1, 1, 12, 10, 1),
        Connect(0, 1, 0, 65, 10, 1),
        Connect(0, 1, 0, 12, 11, 1),
        Connect(0, 1, 0, 12, 10, 0),
        Connect(0, 1, 0, 12, 10, 65),
        Connect(0, 1, 0, 12, 1 << 63, 1),
    ],
)
def test_what_no_model_would_connect_is_not_granted(net: Net, effect: Effect) -> None:
    assert net.grants.check(0, Connect(0, 1, 0, 12, 10, 16), WRITE_SENT) is not None
    assert net.grants.check(0, effect, WRITE_SENT) is None


def test_disk_is_not_connected() -> None:
    disk = VirtioRig(virtio_board.virtio_blk(0, Medium("disk", 512, writable=True)), BytesStore(bytes(512)))

    assert disk.grants.check(0, Connect(0, 0, 0, 16, 0, 1), WRITE_SENT) is None


@pytest.mark.parametrize("way", ["walk", "queue", "reset", "machine"])
def test_connection_ends_with_its_queue(net: Net, way: str) -> None:
    net.give(1526, 1526)
    if way == "walk":
        application = net.grants.check(0, Walk(RECEIVED, 0), WRITE_SENT)
        assert application is not None
        application[0](*application[1])
    elif way == "queue":
        net.write(mmio.QUEUE_SEL, RECEIVED)
        net.write(mmio.QUEUE_READY, 0)
    elif way == "reset":
        net.write(mmio.STATUS, 0)
    else:
        net.reset()

    assert not net.queues.is_connected(net.wire)
    assert net.put(numbered(1)) is None
    assert net.used() == []


def test_state_has_the_connections(net: Net) -> None:
    net.give(1526, 1526)
    state = net.queues.state()
    net.channel.serve(lambda: net.queues.restore(0, state, net.media), 10)

    assert net.queues.state() == state
    assert net.put(numbered(1)) == 1
    net.send(numbered(2))
    assert net.wire.sent == [numbered(2)]
    with pytest.raises(ValueError, match="a connection of queue 0"):
        net.queues.restore(0, state, lambda _: None)
