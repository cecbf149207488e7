"""The VMM's side of virtqueues: handles, what a device may do with them, and questions that wait."""

from __future__ import annotations

import itertools
import struct
from contextlib import suppress
from typing import Any

import pytest

from kvmbox.base.errors import ProtocolError
from kvmbox.contract.bulk_data import (
    Chain,
    ChainRead,
    ChainServe,
    ChainTransfer,
    ChainUsed,
    ChainWrite,
    ConfigChanged,
    Flush,
    Queue,
    Walk,
)
from kvmbox.contract.device_spec import Medium
from kvmbox.contract.model import BAD_ADDRESS, BEYOND_END, DONE, Effect, IrqLine
from kvmbox.devices.virtio import board as virtio_board
from kvmbox.devices.virtio import mmio
from kvmbox.devices.virtio.blk import VirtioBlk
from kvmbox.host.disk.transfers import BytesStore
from kvmbox.remote.channel.effect_calls import MAX_FOLLOW_UPS
from kvmbox.remote.published.queues import piece
from kvmbox.wire import protocol
from kvmbox.wire.protocol import MAX_PAYLOAD, Request
from tests.support.virtio_driver import WRITE, Driver
from tests.support.virtio_rig import VirtioRig

SECTORS = 64
CONTENT = bytes((place * 7 + place // 256) & 0xFF for place in range(SECTORS * 512))
HEADER, DATA, STATUS = 0x8000, 0x9000, 0x8800
WRITE_SENT = Request(protocol.WRITE, 0, 4, 1, 1, 0, mmio.QUEUE_NOTIFY).encode()
READ_SENT = Request(protocol.READ, 0, 4, 1, 1, 0, mmio.STATUS).encode()


class Store(BytesStore):
    """It waits, and fails, as the test wants."""

    def __init__(self) -> None:
        super().__init__(CONTENT)
        self.waits = False
        self.fails = 0

    @property
    def writes_now(self) -> bool:  # type: ignore[override]
        return not self.waits

    def read_now(self, offset: int, size: int) -> bytes | None:  # type: ignore[override]
        return None if self.waits else self.read(offset, size)

    def read(self, offset: int, size: int) -> bytes:
        if self.fails:
            raise OSError(self.fails, "the disk")
        return super().read(offset, size)


class Disk(VirtioRig):
    """A virtio disk, and requests to it."""

    def __init__(self, *, features: int = mmio.F_VERSION_1, size: int = 64) -> None:
        self.store = Store()
        super().__init__(virtio_board.virtio_blk(0, Medium("disk", len(CONTENT), writable=True)), self.store)
        self.start(size=size, features=features)

    @property
    def driver(self) -> Driver:
        return self.drivers[0]

    def ask(self, sector: int, *, number: int = 0, kind: int = 0) -> None:
        """Offer a request for one sector, of the descriptors from 3 * number on; see `answer`."""
        header = HEADER + 16 * number
        self.memory.poke(header, "IIQ", kind, 0, sector)
        data = (DATA + 512 * number, 512, 0 if kind == 1 else WRITE)
        self.driver.chain((header, 16, 0), data, (STATUS + number, 1, WRITE), first=3 * number)
        self.memory.poke(STATUS + number, "B", 0xEE)
        self.driver.offer(3 * number)

    def status(self, number: int = 0) -> int:
        return self.memory.data[STATUS + number]

    def data(self, number: int = 0) -> bytes:
        return bytes(self.memory.data[DATA + 512 * number : DATA + 512 * (number + 1)])

    def check(self, effect: Effect, sent: bytes = WRITE_SENT) -> bool:
        """Whether the device may have this effect now."""
        return self.grants.check(0, effect, sent) is not None


def sector(number: int) -> bytes:
    return CONTENT[512 * number : 512 * (number + 1)]


@pytest.fixture
def disk() -> Disk:
    return Disk()


def test_piece_of_ranges_is_that_of_their_bytes_for_all_small_ones() -> None:
    for sizes in itertools.product(range(4), repeat=3):
        ranges = [(100 * number, size) for number, size in enumerate(sizes)]
        whole = [address + step for address, size in ranges for step in range(size)]
        for skip in range(len(whole) + 1):
            for size in range(len(whole) - skip + 1):
                found = list(piece(ranges, skip, size))
                assert [at + step for at, count in found for step in range(count)] == whole[
                    skip : skip + size
                ]
                assert all(count for _, count in found)


# --- Requests of a guest ------------------------------------------------------------------------------------


def test_sector_is_read_within_the_notification_by_one_request(disk: Disk) -> None:
    disk.ask(5)
    disk.requests.clear()
    disk.notify()

    assert disk.data() == sector(5)
    assert disk.status() == 0
    assert disk.driver.take_used() == [(0, 513)]
    assert disk.lines() == [1]
    assert disk.requests == [protocol.CHAINS]


def test_sector_is_written_and_flushed(disk: Disk) -> None:
    disk.memory.data[DATA : DATA + 512] = bytes([0x5A]) * 512
    disk.ask(7, kind=1)
    disk.ask(0, number=1, kind=4)
    disk.notify()

    assert disk.store.data[7 * 512 : 8 * 512] == bytes([0x5A]) * 512
    assert (disk.status(0), disk.status(1)) == (0, 0)
    assert disk.driver.take_used() == [(0, 1), (3, 0)]  # of 513 bytes only the last one is written


def test_all_chains_behind_a_notification_are_one_request(disk: Disk) -> None:
    for number in range(8):
        disk.ask(number, number=number)
    disk.requests.clear()
    disk.notify()

    assert [disk.data(number) for number in range(8)] == [sector(number) for number in range(8)]
    assert disk.requests == [protocol.CHAINS]


def test_what_has_to_be_waited_for_is_done_by_the_transfer_thread(disk: Disk) -> None:
    disk.store.waits = True
    disk.ask(5)
    disk.memory.data[DATA + 512 : DATA + 1024] = bytes([1]) * 512
    disk.ask(6, number=1, kind=1)
    disk.notify()
    assert disk.driver.take_used() == []
    disk.memory.data[DATA + 512 : DATA + 1024] = bytes([2]) * 512  # too late: it was taken with the request

    assert disk.do_errands() == 2
    assert disk.driver.take_used() == [(0, 513), (3, 1)]
    assert disk.data() == sector(5)
    assert disk.store.data[6 * 512 : 7 * 512] == bytes([1]) * 512


def test_errors_of_the_host_and_places_beyond_the_end_are_told(disk: Disk) -> None:
    disk.store.fails = 5
    disk.ask(5)
    disk.notify()
    assert disk.status() == 1

    disk.store.waits = True
    disk.ask(5, number=1)
    disk.notify()
    disk.do_errands()
    assert disk.status(1) == 1


def test_interrupt_only_if_the_driver_wants_it(disk: Disk) -> None:
    disk.driver.set_flags(1)
    disk.ask(1)
    disk.notify()

    assert disk.status() == 0
    assert disk.lines() == []
    assert disk.read(mmio.INTERRUPT_STATUS) == mmio.USED_BUFFER


def test_queue_of_all_chains_is_served_by_one_notification() -> None:
    disk = Disk(size=256, features=mmio.F_VERSION_1 | mmio.F_EVENT_IDX)
    for number in range(80):
        disk.ask(number % SECTORS, number=number)
    disk.notify()

    assert len(disk.driver.take_used()) == 80
    assert disk.data(79) == sector(79 % SECTORS)
    assert disk.driver.notice_at == 80


# --- A guest that does not play by the rules ----------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 3, 512, 0xFFFF_FFFF])
def test_queue_that_is_none_makes_the_device_need_a_reset(size: int) -> None:
    disk = Disk()
    disk.negotiate()
    bad = Driver(disk.memory, 64)
    bad.size = size
    disk.publish(0, bad)
    disk.write(mmio.STATUS, 15)
    disk.lines()
    disk.notify()

    assert disk.read(mmio.STATUS) & mmio.NEEDS_RESET
    assert disk.lines() == [1]
    disk.start()
    disk.ask(3)
    disk.notify()
    assert disk.data() == sector(3)


def test_ring_that_becomes_none_makes_the_device_need_a_reset(disk: Disk) -> None:
    disk.ask(3)
    disk.driver.set_index(1000)
    disk.notify()

    assert disk.read(mmio.STATUS) & mmio.NEEDS_RESET
    assert disk.driver.take_used() == []


def test_transfer_that_outlives_its_queue_moves_nothing_into_memory(disk: Disk) -> None:
    disk.store.waits = True
    disk.ask(5)
    disk.notify()
    disk.write(mmio.STATUS, 0)
    disk.requests.clear()
    before = bytes(disk.memory.data)

    assert disk.do_errands() == 1
    assert bytes(disk.memory.data) == before
    assert disk.requests == []


@pytest.mark.parametrize("way", ["status", "ready", "machine"])
def test_queue_that_is_published_anew_begins_anew(disk: Disk, way: str) -> None:
    disk.store.waits = True
    disk.ask(5)
    disk.notify()
    if way == "ready":
        disk.write(mmio.QUEUE_SEL, 0)
        disk.write(mmio.QUEUE_READY, 0)
        disk.drivers = [Driver(disk.memory, 16, 0x6000)]
        disk.publish(0, disk.driver)
    else:
        if way == "machine":
            disk.reset()
        disk.start(size=16)
    disk.store.waits = False
    disk.ask(9, number=1)
    disk.notify()

    disk.do_errands()
    assert disk.data(1) == sector(9)
    assert disk.driver.take_used() == [(3, 513)]
    assert disk.status(0) == 0xEE


def test_guest_that_feeds_a_ring_for_ever_does_not_keep_its_access_for_ever() -> None:
    disk = Disk(size=256)
    for number in range(mmio.BATCH):
        disk.ask(number, number=number)
    used_index = disk.driver.used + 2
    original = disk.memory.store16

    def refill(address: int, value: int) -> None:
        original(address, value)
        if address == used_index:  # another CPU offers a chain again as soon as it is back
            disk.driver.offer(*[head for head, _ in disk.driver.take_used()])

    disk.memory.store16 = refill  # type: ignore[method-assign]
    disk.requests.clear()
    disk.notify()
    assert len(disk.requests) == MAX_FOLLOW_UPS - 1
    assert len(disk.host.errands) == 1

    for _ in range(3):  # the main thread gets on with it, bounded in the same way
        disk.requests.clear()
        disk.do_errand()
        assert 0 < len(disk.requests) <= 1 + MAX_FOLLOW_UPS
        assert len(disk.host.errands) == 1
    disk.memory.store16 = original  # type: ignore[method-assign]
    disk.do_errands()
    assert not disk.host.errands


def test_transfer_beyond_the_end_of_the_medium_is_told_and_reads_nothing(disk: Disk) -> None:
    handle = in_hand(disk)
    disk.host.errands.clear()

    application = disk.grants.check(0, ChainTransfer(handle, 0, len(CONTENT) - 256, 0, 512, 1), WRITE_SENT)
    assert application is not None
    (wanted,) = application[0](*application[1])
    request = wanted(True)
    assert request is not None
    assert (request.kind, request.value) == (protocol.COMPLETE, handle | BEYOND_END << 32)
    assert not disk.host.errands


def test_what_waits_is_asked_for_again_after_a_reset_of_the_machine(disk: Disk) -> None:
    disk.ask(1)
    disk.channel.serve(lambda: _postponed(disk), 10)
    disk.reset()  # which drops the errand that was to bring the main thread
    disk.start()
    disk.ask(2)
    disk.channel.serve(lambda: _postponed(disk), 10)

    assert len(disk.host.errands) == 1
    disk.do_errands()
    assert disk.requests[-1] == protocol.CHAINS


def test_walk_that_waits_is_forgotten_with_its_queue(disk: Disk) -> None:
    disk.ask(1)
    disk.channel.serve(lambda: _postponed(disk), 10)
    assert len(disk.host.errands) == 1

    disk.write(mmio.STATUS, 0)
    disk.requests.clear()
    disk.do_errands()
    assert disk.requests == []


def _postponed(disk: Disk) -> list[Any]:
    (wanted,) = disk.queues.notified(0)
    return [lambda _room: wanted(False)]


def test_notification_of_a_queue_that_there_is_not_asks_for_nothing(disk: Disk) -> None:
    assert [disk.queues.notified(index) for index in (1, 1000, 0xFFFF)] == [()] * 3


# --- A device process that does not play by the rules -------------------------------------------------------


def in_hand(disk: Disk) -> int:
    """Let the device have one chain: 16 readable bytes, 513 writable ones; its handle. A flush waits."""
    disk.store.waits = True
    disk.ask(5, kind=4)
    disk.notify()
    ((handle, _, _),) = disk.host.errands
    return handle


def test_effects_within_a_chain_are_granted(disk: Disk) -> None:
    handle = in_hand(disk)

    assert disk.check(ChainRead(handle, 0, 16))
    assert disk.check(ChainRead(handle, 16, 0))
    assert disk.check(ChainWrite(handle, 512, b"x"))
    assert disk.check(ChainUsed(handle, 513))
    assert disk.check(Flush(1, 0))
    assert disk.check(Walk(0, 64))
    assert disk.check(ChainServe(handle, 0, 0, 0, 513, 1, 512, 0, 255))
    assert disk.check(ChainServe(handle, 0, 0, 16, 0, 0, 0, 255, 0))
    assert disk.check(ConfigChanged(0))


@pytest.mark.parametrize(
    "effect",
    [
        ChainRead(1, 0, 17),
        ChainRead(1, 17, 0),
        ChainRead(1, (1 << 64) - 1, 1),
        ChainWrite(1, 513, b"x"),
        ChainWrite(1, 0, bytes(514)),
        ChainWrite(1, (1 << 64) - 1, b"xx"),
        ChainUsed(1, 514),
        ChainServe(1, 0, 0, 0, 514, 1, 0, 0, 1),
        ChainServe(1, 0, 0, 0, 17, 0, 0, 0, 1),
        ChainServe(1, 0, 0, 0, 512, 1, 513, 0, 1),
        ChainServe(1, 0, 0, 0, 512, 1, 512, 256, 1),
        ChainServe(1, 0, 0, 0, 512, 1, 512, 0, 1 << 32),
        ChainServe(1, 1, 0, 0, 512, 1, 512, 0, 1),
        ChainServe(2, 0, 0, 0, 512, 1, 512, 0, 1),
        ChainRead(2, 0, 1),
        ChainRead(0, 0, 1),
        ChainWrite(2, 0, b"x"),
        ChainUsed(2, 0),
        ChainTransfer(2, 0, 0, 0, 1, 1),
        Walk(1, 1),
        Walk(0, 65),
        Queue(1, 8, 0, 0, 0, 0),
        Queue(0, 8, 4, 0, 0, 0),
        Flush(1, 1),
        IrqLine(1, 1),
    ],
)
def test_what_no_model_would_do_is_not_granted(disk: Disk, effect: Effect) -> None:
    assert in_hand(disk) == 1

    assert not disk.check(effect)


@pytest.mark.parametrize(
    "effect",
    [
        ChainTransfer(1, 0, 0, 0, 514, 1),
        ChainTransfer(1, 0, 0, 514, 0, 1),
        ChainTransfer(1, 0, 0, 0, 17, 0),
        ChainTransfer(1, 1, 0, 0, 1, 1),
        ChainTransfer(1, 0, 0, 0, (1 << 20) + 1, 1),
    ],
)
def test_transfer_beyond_its_chain_or_grant_is_not_granted(disk: Disk, effect: Effect) -> None:
    handle = in_hand(disk)
    disk.host.errands.clear()
    assert disk.check(ChainTransfer(handle, 0, 0, 0, 513, 1))
    assert disk.check(ChainTransfer(handle, 0, 0, 0, 16, 0))

    assert not disk.check(effect)


def test_read_of_a_chain_fits_in_a_frame(disk: Disk) -> None:
    disk.store.waits = True
    disk.memory.poke(HEADER, "IIQ", 4, 0, 0)
    disk.driver.chain((HEADER, 16, 0), (DATA, 8192, 0), (STATUS, 1, WRITE))
    disk.driver.offer(0)
    disk.notify()
    ((handle, _, _),) = disk.host.errands

    assert disk.check(ChainRead(handle, 0, MAX_PAYLOAD))
    assert not disk.check(ChainRead(handle, 0, MAX_PAYLOAD + 1))


def test_read_only_medium_is_not_written_to() -> None:
    rig = VirtioRig(virtio_board.virtio_rng(), BytesStore(bytes(4096)))
    driver = rig.start()
    driver.chain((DATA, 8, 0), (DATA + 8, 8, WRITE))
    driver.offer(0)
    (wanted,) = rig.queues.notified(0)
    assert wanted(True) is not None

    assert rig.grants.check(0, ChainTransfer(1, 0, 0, 0, 8, 1), WRITE_SENT) is not None
    assert rig.grants.check(0, ChainTransfer(1, 0, 0, 0, 8, 0), WRITE_SENT) is None


def test_queue_is_published_after_a_write_only(disk: Disk) -> None:
    queue = Queue(0, 8, 0, 0, 0, 0)

    assert disk.check(queue, WRITE_SENT)
    assert not disk.check(queue, READ_SENT)


@pytest.mark.parametrize("way", ["used", "queue", "machine"])
def test_void_handle_is_no_handle(disk: Disk, way: str) -> None:
    handle = in_hand(disk)
    assert disk.check(ChainWrite(handle, 0, b"x"))
    if way == "used":
        disk.do_errands()
    elif way == "queue":
        disk.write(mmio.STATUS, 0)
    else:
        disk.reset()

    assert not disk.check(ChainWrite(handle, 0, b"x"))
    disk.start()
    disk.store.waits = True
    disk.host.errands.clear()
    disk.ask(1)
    disk.notify()
    assert disk.host.errands[0][0] > handle  # no number comes again


@pytest.mark.parametrize("end", [ChainUsed(1, 0), ChainServe(1, 0, 0, 16, 0, 0, 512, 0, 0)])
def test_effects_behind_the_end_of_a_chain_in_one_reply_do_nothing(disk: Disk, end: Effect) -> None:
    handle = in_hand(disk)
    disk.store.waits = False
    effects: list[Effect] = [
        end,
        ChainWrite(handle, 0, b"late"),
        ChainRead(handle, 0, 1),
        ChainUsed(handle, 0),
    ]
    applications = [disk.grants.check(0, effect, WRITE_SENT) for effect in effects]
    assert all(applications)
    wanted: list[Any] = []
    for application in applications:
        assert application is not None
        wanted += application[0](*application[1]) or []

    assert disk.driver.take_used() == [(0, 0)]
    assert disk.data()[:4] == bytes(4)
    assert {one(True) for one in wanted} == {None}


def test_no_more_chains_are_handed_out_than_the_grant_says() -> None:
    disk = Disk(size=256)
    disk.store.waits = True
    for number in range(80):
        disk.ask(number % SECTORS, number=number)
    disk.notify()
    assert len(disk.host.errands) == 64

    disk.requests.clear()
    disk.notify()
    assert disk.requests == []
    disk.do_errand()
    assert disk.requests == [protocol.CHAINS]
    assert len(disk.host.errands) == 64
    disk.do_errands()
    assert len(disk.driver.take_used()) == 80


# --- State --------------------------------------------------------------------------------------------------


def test_state_is_restored_with_chains_in_hand(disk: Disk) -> None:
    disk.ask(4)
    disk.notify()
    handle = in_hand(disk)
    disk.host.errands.clear()
    state = disk.queues.state()
    other = Disk()
    other.memory.data[:] = disk.memory.data

    other.channel.serve(lambda: other.queues.restore(0, state), 10)
    assert other.queues.state() == state
    application = other.grants.check(0, ChainUsed(handle, 5), WRITE_SENT)
    assert application is not None
    application[0](*application[1])
    other.driver.seen = 1
    assert other.driver.take_used() == [(0, 5)]


def test_chains_of_a_queue_that_has_become_none_are_restored(disk: Disk) -> None:
    disk.ask(4)
    disk.notify()
    in_hand(disk)
    disk.driver.set_index(disk.driver.index + 1000 & 0xFFFF)
    disk.notify()
    state = disk.queues.state()
    other = Disk()
    other.memory.data[:] = disk.memory.data

    other.channel.serve(lambda: other.queues.restore(0, state), 10)
    assert other.queues.state() == state


@pytest.mark.parametrize("cut", [0, 3, 10, 20, 40, -1])
def test_state_that_is_none_is_refused(disk: Disk, cut: int) -> None:
    in_hand(disk)
    state = disk.queues.state()

    with pytest.raises(ValueError, match="no state of 1 queues"):
        disk.queues.restore(0, state[:cut])
    with pytest.raises(ValueError, match="no state of 1 queues"):
        disk.queues.restore(0, state + b"\0")


def test_state_with_a_chain_that_is_not_ram_is_refused(disk: Disk) -> None:
    in_hand(disk)
    state = bytearray(disk.queues.state())
    place = state.index(struct.pack("<QI", DATA, 512))
    state[place : place + 8] = (1 << 40).to_bytes(8, "little")

    with pytest.raises(ValueError, match="chain 1"):
        disk.queues.restore(0, bytes(state))


def test_state_leaves_out_a_read_of_a_chain_that_was_taken_back(disk: Disk) -> None:
    handle = in_hand(disk)
    disk.queues.note(mmio.QUEUE_READY, 0)  # the device says nothing of it
    application = disk.grants.check(0, ChainRead(handle, 0, 4), WRITE_SENT)
    assert application is not None
    application[0](*application[1])

    disk.queues.restore(0, disk.queues.state())


def test_state_with_a_read_of_a_chain_that_there_is_not_is_refused(disk: Disk) -> None:
    handle = in_hand(disk)
    application = disk.grants.check(0, ChainRead(handle, 1, 7), WRITE_SENT)
    assert application is not None
    application[0](*application[1])  # and nobody sends what it asked for
    state = bytearray(disk.queues.state())
    place = state.index(struct.pack("<III", handle, 1, 7))
    state[place] ^= 0x55

    for _ in range(2):  # the first one leaves nothing behind
        with pytest.raises(ValueError, match="a read of chain"):
            disk.queues.restore(0, bytes(state))


# --- A process that is taken over ---------------------------------------------------------------------------


def test_reads_that_wait_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Effect] = []
    take_effects = VirtioBlk.take_effects

    def hostile(model: VirtioBlk) -> list[Effect]:
        return take_effects(model) + asked

    monkeypatch.setattr(VirtioBlk, "take_effects", hostile)
    disk = Disk()
    in_hand(disk)
    asked += [ChainRead(1, 0, 1)] * 160  # as many as fit in a reply, of the first chain

    with suppress(ProtocolError):
        for _ in range(2):
            disk.read(mmio.STATUS)
    assert len(disk.queues.state()) < 4096


def test_process_reaches_nothing_but_what_the_guest_has_published(monkeypatch: pytest.MonkeyPatch) -> None:
    """It moves the used ring to where it wants four bytes of its own: so it makes a descriptor, and reads."""
    answers: list[list[Effect]] = []
    seen: list[bytes] = []
    take_effects = VirtioBlk.take_effects

    def hostile(model: VirtioBlk) -> list[Effect]:
        honest = take_effects(model)
        return answers.pop(0) if answers else honest

    def look(_model: VirtioBlk, _now: int, _index: int, chains: list[Chain], _status: int) -> None:
        seen.extend(chain.head for chain in chains)

    monkeypatch.setattr(VirtioBlk, "take_effects", hostile)
    monkeypatch.setattr(VirtioBlk, "chains", look)
    secret, forged, unused = 0x100, 0x40000, 0x50000
    disk = Disk()
    disk.memory.data[secret : secret + 32] = b"nobody has published these bytes"
    disk.ask(5)
    descriptors, available, _ = disk.driver.areas
    # An element of a used ring: the descriptor, which is 0, and the bytes written, which the device says.
    for handle, (used, written) in enumerate([(forged, 32), (forged - 8, secret)], 1):
        answers += [[Queue(0, 64, 0, descriptors, available, used), Walk(0, 1)]]
        answers += [[ChainUsed(handle, written)]]
    answers += [[Queue(0, 64, 0, forged, available, unused), Walk(0, 1)]]
    published = slice(disk.driver.used, disk.driver.end)  # where the VMM writes, whatever the process says
    before = bytes(disk.memory.data)
    with suppress(ProtocolError):
        for _ in range(3):
            disk.write(mmio.DRIVER_FEATURES_SEL, 0)
            disk.notify()
    assert not answers
    disk.memory.data[published] = before[published]
    assert disk.memory.data == before
    assert b"nobody has published these bytes" not in seen


def _hostile(monkeypatch: pytest.MonkeyPatch, asked: list[Effect]) -> None:
    """Let the process answer with what is `asked`, and nothing else, whenever that is not empty."""
    take_effects = VirtioBlk.take_effects

    def hostile(model: VirtioBlk) -> list[Effect]:
        honest = take_effects(model)
        return list(asked) if asked else honest

    monkeypatch.setattr(VirtioBlk, "take_effects", hostile)


@pytest.mark.parametrize("way", ["status", "ready"])
def test_queue_that_the_guest_takes_back_is_out_of_reach_whatever_the_process_says(
    monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    asked: list[Effect] = []
    _hostile(monkeypatch, asked)
    disk = Disk()
    handle = in_hand(disk)
    asked += [
        ChainWrite(handle, 0, b"late"),
        ChainUsed(handle, 512),
        Queue(0, 64, 0, *disk.driver.areas),
        Walk(0, 1),
    ]
    disk.ask(6, number=1)
    before = bytes(disk.memory.data)
    register = mmio.STATUS if way == "status" else mmio.QUEUE_READY
    with suppress(ProtocolError):
        disk.write(register, 0)
        disk.do_errands()

    assert bytes(disk.memory.data) == before


def test_chain_of_a_queue_that_is_taken_back_moves_nothing_and_reads_zeros(disk: Disk) -> None:
    handle = in_hand(disk)
    disk.host.errands.clear()
    disk.store.waits = False
    before = bytes(disk.memory.data)
    disk.queues.note(mmio.STATUS, 0)  # the device has not seen it yet

    sent = []
    for effect in (
        ChainTransfer(handle, 0, 0, 0, 512, 1),
        ChainWrite(handle, 0, b"late"),
        ChainRead(handle, 0, 16),
        ChainUsed(handle, 0),
    ):
        application = disk.grants.check(0, effect, WRITE_SENT)
        assert application is not None
        sent += [found for one in application[0](*application[1]) or [] if (found := one(True))]
    assert bytes(disk.memory.data) == before
    assert [one.kind for one in sent] == [protocol.COMPLETE, protocol.MEMORY]
    assert sent[1].payload.endswith(bytes(16))


@pytest.mark.parametrize("size", [1, 2, 8])
def test_accesses_of_other_sizes_publish_nothing(disk: Disk, size: int) -> None:
    state = disk.queues.state()
    for register in (mmio.QUEUE_SEL, mmio.QUEUE_NUM, mmio.QUEUE_DESC, mmio.QUEUE_READY, mmio.STATUS):
        disk.write(register, 0, size=size)

    assert disk.queues.state() == state
    disk.ask(3)
    disk.notify()
    assert disk.data() == sector(3)


def test_string_of_writes_publishes_as_the_model_sees_it(disk: Disk) -> None:
    disk.proxy.write_string(mmio.QUEUE_READY, 4, struct.pack("<III", 1, 0, 1))
    disk.ask(3)
    disk.notify()
    assert disk.data() == sector(3)

    disk.proxy.write_string(mmio.STATUS, 4, struct.pack("<II", 15, 0))
    disk.ask(4, number=1)
    disk.notify()
    assert disk.status(1) == 0xEE


def test_chain_has_one_transfer_until_the_device_is_told_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Effect] = []
    _hostile(monkeypatch, asked)
    disk = Disk()
    handle = in_hand(disk)
    disk.host.errands.clear()
    disk.store.waits = False
    reads: list[int] = []
    read = disk.store.read

    def count(offset: int, size: int) -> bytes:
        reads.append(size)
        return read(offset, size)

    monkeypatch.setattr(disk.store, "read", count)
    asked += [ChainTransfer(handle, 0, 0, 0, 512, 1)] * 100
    disk.requests.clear()
    disk.read(mmio.STATUS)

    assert len(reads) <= 1 + MAX_FOLLOW_UPS
    assert disk.requests.count(protocol.COMPLETE) >= len(reads) - 1


def test_what_a_request_moves_beyond_its_bound_is_left_to_the_transfer_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("kvmbox.remote.published.queues.MOST_MOVED", 3 * 512)
    disk = Disk()
    for number in range(5):
        disk.ask(number, number=number)
    disk.notify()
    assert [disk.status(number) for number in range(5)] == [0, 0, 0, 0xEE, 0xEE]

    disk.do_errands()
    assert [disk.data(number) for number in range(5)] == [sector(number) for number in range(5)]
    disk.ask(7, number=5)
    disk.notify()
    assert disk.data(5) == sector(7)


def brought(disk: Disk, *effects: Effect) -> tuple[int, bool]:
    """The status, and whether there are chains, of the CHAINS that these effects of the process bring."""
    assert not any(_done(disk, *effects))
    (wanted,) = disk.queues.notified(0)
    request = wanted(True)
    assert request is not None
    assert request.kind == protocol.CHAINS
    return request.value, request.payload != b""


def _done(disk: Disk, *effects: Effect) -> list[Any]:
    wanted: list[Any] = []
    for effect in effects:
        application = disk.grants.check(0, effect, WRITE_SENT)
        assert application is not None
        wanted += application[0](*application[1]) or []
    return [one(True) for one in wanted]


PUBLISH = (Queue(0, 64, 0, 0x1000, 0x1400, 0x1800), Walk(0, 1))
"""What a process says whose queue the guest has published, or has not."""


def test_queue_is_live_again_if_the_process_says_so(disk: Disk) -> None:
    disk.ask(1)

    assert brought(disk, *PUBLISH) == (DONE, True)


@pytest.mark.parametrize("way", ["status", "ready", "string", "machine"])
def test_queue_that_the_guest_has_taken_back_is_not_live_again(disk: Disk, way: str) -> None:
    disk.ask(1)
    match way:
        case "status":
            disk.write(mmio.STATUS, 0)
        case "ready":
            disk.write(mmio.QUEUE_READY, 0)
        case "string":
            disk.proxy.write_string(mmio.STATUS, 4, struct.pack("<II", 15, 0))
        case _:
            disk.reset()

    assert brought(disk, *PUBLISH) == (BAD_ADDRESS, False)


def test_queue_that_is_taken_back_is_not_walked(disk: Disk) -> None:
    disk.ask(1)
    disk.queues.note(mmio.QUEUE_READY, 0)  # the device has not seen it yet

    assert brought(disk, Walk(0, 1)) == (BAD_ADDRESS, False)


def test_restored_queue_is_where_the_guest_has_published_it(disk: Disk) -> None:
    other = Disk()
    other.memory.data[:] = disk.memory.data
    other.write(mmio.STATUS, 0)
    other.channel.serve(lambda: other.queues.restore(0, disk.queues.state()), 10)
    disk.ask(1)
    other.ask(1)

    assert brought(other, *PUBLISH) == brought(disk, *PUBLISH) == (DONE, True)
