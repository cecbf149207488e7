"""Hostile rings.

A case is a queue whose every byte is made up, mostly so that it looks like one, and a device process that
asks for whatever it likes. What must hold, by an oracle that shares nothing with the walker: bytes are stored
in the used ring, or where a writable descriptor points. Bytes are read from the rings, from tables, or where
a readable descriptor points. Nothing raises, and no case takes more than a bounded number of accesses.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any, Final, cast
from unittest.mock import patch

from kvmbox.base.memory import GuestMemory
from kvmbox.contract.bulk_data import (
    ChainRead,
    ChainServe,
    ChainTransfer,
    ChainUsed,
    ChainWrite,
    ConfigChanged,
    Connect,
    Flush,
    Queue,
    Walk,
)
from kvmbox.contract.device_spec import Medium, Queues
from kvmbox.contract.model import Effect
from kvmbox.devices.virtio import mmio
from kvmbox.devices.virtio.vmm import Virtqueues
from kvmbox.host.disk.transfers import BytesStore
from kvmbox.remote.published import queues
from kvmbox.remote.published.medium import MediumAccess
from kvmbox.wire import protocol
from kvmbox.wire.chains import decode_chains
from tests.support.dice import Dice
from tests.support.halves import built_halves
from tests.support.virtio_driver import DESCRIPTOR, INDIRECT, NEXT, WRITE, Driver, FlatMemory, RealMemory

SIZE: Final = 1 << 16
HOLE: Final = (0xC000, 0x1000)
TABLES: Final = (0x7000, 0x7800)
PLACES: Final = (
    *(0x8000, 0x8100, 0x9000, 0xBFFF, 0xC000, 0xCFFF, 0xFFF0, 0xFFFF),
    *(0x1_0000, 1 << 32, (1 << 64) - 8),
)
FLAGS: Final = (0, *(WRITE,) * 6, *(NEXT,) * 3, NEXT | WRITE, INDIRECT)
LENGTHS: Final = (0, 1, 4, 16, 32, 48, 64, 512, 0x1001, 0xFFFF_FFFF)
MOST_ACCESSES: Final = 20_000
MOST_FOLLOWING: Final = 40
MOST_ENTRIES: Final = 16
PLACED: Final = (0x80, 0x84, 0x90, 0xA0, 0x608)
"""Registers that say where a queue is."""
STATUSES: Final = (0x70, 0x612)
"""Registers that reset a device with 0: its queues are at 0 until the guest writes where they are."""
MOST_ERRANDS: Final = 3


class Fault(AssertionError):
    """What must not happen."""


def describe(memory: Any, dice: Dice, place: int, *, is_evil: bool) -> None:
    """Make up a descriptor: a good one, or, where the case is evil, any."""
    address, length, flags = 0x8000 + 0x30 * dice.byte(), dice.byte() * 2, dice.some(FLAGS)
    following = (place // DESCRIPTOR + 1) % 8
    if flags & INDIRECT and place in range(TABLES[0], TABLES[-1] + 8 * DESCRIPTOR):
        flags = WRITE
    elif flags & INDIRECT:
        address, length = dice.some(TABLES), dice.some((16, 32, 64, 128))
    evil = dice.byte() if is_evil else 0
    if evil & 0x88 == 0x88:
        address = dice.some(PLACES)
    if evil & 0x84 == 0x84:
        length = dice.some(LENGTHS)
    if evil & 0x82 == 0x82:
        flags = dice.byte() % 16
    if evil & 0x81 == 0x81:
        following = dice.number(2)
    memory.poke(place, "QIHH", address, length, flags, following)


class Memory(FlatMemory):
    """Memory that another CPU of the guest changes between any two looks, if it races."""

    def __init__(self, dice: Dice) -> None:
        super().__init__(SIZE, [HOLE])
        self._dice = dice
        self.accesses = 0
        self.is_racing = False
        self.index_at = 0
        """Where the index of the available ring is."""
        self.seen: list[tuple[int, int, int]] = []
        """(address, length, flags) of everything that was read in this case and may be a descriptor."""

    def read(self, address: int, size: int) -> bytes:
        self.accesses += 1
        if self.accesses > MOST_ACCESSES:
            raise Fault(f"{self.accesses} accesses")
        data = super().read(address, size)
        if size % DESCRIPTOR == 0:
            self.seen += [one[:3] for one in struct.iter_unpack("<QIHH", data)]
        if self.is_racing and self._dice.byte() < 8:
            self.poke(self.index_at, "H", self._dice.number(2))
        elif self.is_racing and self._dice.byte() < 16:
            place = self._dice.some((0x1000, *TABLES)) + DESCRIPTOR * self._dice.randrange(8)
            describe(self, self._dice, place, is_evil=True)
        return data


class Store(BytesStore):
    """A disk that has to be waited for, or that fails, as the case wants."""

    def __init__(self) -> None:
        super().__init__(bytes(SIZE))
        self.waits = self.fails = False

    @property
    def writes_now(self) -> bool:  # type: ignore[override]
        return not self.waits

    def read(self, offset: int, size: int) -> bytes:
        if self.fails:
            raise OSError(5, "the disk of the host")
        return super().read(offset, size)

    def read_now(self, offset: int, size: int) -> bytes | None:  # type: ignore[override]
        return None if self.waits else self.read(offset, size)

    def file_now(self, offset: int, size: int) -> int:
        """There is no file."""
        return -1

    def write(self, offset: int, data: bytes) -> None:
        if self.fails:
            raise OSError(28, "the disk of the host")
        super().write(offset, data)

    def flush(self) -> None:
        """Flush nothing."""
        if self.fails:
            raise OSError(5, "the disk of the host")


class Wire(BytesStore):
    """A medium of packets, which loses them, and never fails. The guest may feed it meanwhile."""

    def __init__(self) -> None:
        super().__init__(bytes(SIZE))
        self.feed: Callable[[], object] = int

    def write(self, offset: int, data: bytes) -> None:
        self.feed()

    def has_buffers(self) -> None:
        """The guest has made chains available for packets."""


class Rings:
    """One case: queues, a driver, and a device process."""

    def __init__(self, dice: Dice, kind: type[Virtqueues] = Virtqueues, *, is_real: bool = False) -> None:
        """With `is_real`, memory is that of a run, which compiled code reaches; nobody races or judges."""
        self.dice = dice
        self.memory: Any = RealMemory(SIZE) if is_real else Memory(dice)
        self.is_real = is_real
        self.is_judged = not is_real
        """Whether its queues are where it began with them."""
        self.store = Store()
        self.medium = MediumAccess(Medium("disk", SIZE, writable=True), self.store, self._submit)
        self.wire = Wire()
        wire = MediumAccess(Medium("wire", SIZE, writable=True), self.wire, self._submit)
        self.media = {0: self.medium, 1: wire}
        self.errands: list[tuple[int, Callable[[], int], Any]] = []
        self.visits: list[Any] = []
        self.trace: list[object] = []
        self.chains = self.dead = self.granted = 0
        self.handles = [0]
        self.places: set[tuple[int, ...]] = set()
        """Where the guest may have its queues: descriptors, available ring and used ring."""
        self.queues = kind(Queues(2, 16, 6, 16), cast(GuestMemory, self.memory), self._come_by)
        self.queues.interrupts.lines = [lambda level, _coalesced: self.trace.append(("line", level))]

    def _submit(self, tag: int, work: Callable[[], int], settle: Any) -> bool:
        if len(self.errands) == MOST_ERRANDS:
            return False
        self.errands.append((tag, work, settle))
        return True

    def _come_by(self, settle: Any) -> bool:
        self.visits.append(settle)
        return len(self.visits) < 4

    def play(self) -> None:
        """All of it. Few bytes are many, now and then."""
        first = self.dice.byte()
        is_small = first >> 6 == 1 and not self.is_real
        with patch.object(queues, "MOST_MOVED", 1000 if is_small else queues.MOST_MOVED):
            self._play(first)

    def _play(self, first: int) -> None:
        dice, memory = self.dice, self.memory
        if not self.is_real:
            memory.is_racing = first & 6 == 6
        size = dice.some((1, 2, 4, 8, 16))
        self.driver = Driver(memory, size, index=0 if first & 8 else dice.some((0, 0xFFFE, dice.number(2))))
        if not self.is_real:
            memory.index_at = self.driver.areas[1] + 2
        for number in range(min(size, 8)):
            describe(memory, dice, self.driver.descriptors + DESCRIPTOR * number, is_evil=bool(first & 1))
        for table in TABLES[: first >> 4 & 3]:
            for number in range(4):
                describe(memory, dice, table + DESCRIPTOR * number, is_evil=bool(first & 1))
        areas = list(self.driver.areas)
        if first > 240:
            areas[dice.randrange(3)] = dice.some((*PLACES, 0x1001, 0x1004))
        self.places.add(tuple(areas))
        for index in range(2):
            publish(self.queues, index, size if first < 250 else 3, areas)
            said = [dice.some((area, *PLACES)) for area in areas]  # by the process, which is not believed
            self._apply(Queue(index, dice.byte() % 20, dice.byte() % 4, *said))
        self._apply(Walk(0, 1 + dice.byte() % 64))
        while not dice.ended:
            self._step()
        if self.is_judged:
            self._judge()

    def _step(self) -> None:
        dice, queues, driver = self.dice, self.queues, self.driver
        match dice.byte() % 14:
            case 0:
                self._apply(Walk(dice.byte() % 3, dice.byte() % 66, dice.byte() % 8 // 7))
            case 1:
                driver.offer(*[dice.byte() % (driver.size + 1) for _ in range(dice.byte() % 4)])
            case 2:
                driver.set_index(driver.index + dice.some((1, 2, 40, dice.number(2))) & 0xFFFF)
                driver.set_flags(dice.byte() & 1)
                driver.want_interrupt_at(driver.index - dice.byte() % 3)
            case 3 | 4:
                self._follow(queues.notified(dice.byte() % 3))
            case 5:
                register = dice.some(
                    (0x30, 0x38, 0x44, 0x70, 0x80, 0x84, 0x90, 0xA0, 0x600 + 8, 0x600 + 18, 0x100)
                )
                value = dice.some((0, 1, 2, 8))
                queues.note(register, value, 1 if register & 2 else 4)
                self.is_judged &= register not in PLACED
                if register in STATUSES and not value:
                    self.places.add((0, 0, 0))
            case 6 if self.errands:
                _, work, settle = self.errands.pop(0)
                self._follow(settle(work()) if settle else [])
            case 6 if self.visits:
                self._follow(self.visits.pop(0)(0))
            case 7:
                self.store.waits, self.store.fails = bool(dice.byte() & 1), dice.byte() % 4 == 0
                self.trace += [one.file_now(SIZE * self.store.fails, 1) for one in self.media.values()]
            case 8:
                self._restore()
            case 9:
                what = dice.some((Flush(1, 0), Flush(1, 1), ConfigChanged(0), ConfigChanged(9)))
                self._apply(what)
                queues.interrupts.acknowledge(dice.byte() % 4)
            case 10:
                size = dice.some((0, driver.size))
                self._apply(Queue(dice.byte() % 3, size, dice.byte() % 5, *driver.areas))
            case 11 if dice.byte() < 20:
                queues.forget()
                self.places.add((0, 0, 0))
                self.errands.clear()
                self.visits.clear()
                self.trace.append(queues.next_request(False))
            case 12:
                self._connect(dice.byte() % 3, dice.byte() & 1)
            case _:
                self._apply(*[self._effect() for _ in range(1 + dice.byte() % 3)])

    def _connect(self, index: int, to_guest: int) -> None:
        """Let packets move without the process, and one come."""
        dice = self.dice
        header, count_at = dice.some((0, 10, 12, 64, 65)), dice.some((0, 10, 62))
        self.wire.feed = (lambda: self.driver.offer(0)) if dice.byte() < 30 else int
        if dice.byte() < 230:
            self._apply(Walk(index, 1 + dice.byte() % 64))
        way = dice.byte()
        resource = int(way < 250) + 2 * (way == 255)
        self._apply(Connect(index, to_guest, resource, header, count_at, dice.some((0, 1, 4, 65))))
        self._follow(self.queues.notified(index))
        store = dice.some((self.wire, self.wire, self.store))
        self.trace.append(self.queues.is_connected(store))
        self.trace.append(self.queues.put(store, bytes([0xA5]) * (1 + dice.number(2) % 1600)))

    def _restore(self) -> None:
        """Be as the state says, or as one that is damaged."""
        if self.errands:
            return
        good = self.queues.state()
        state = bytearray(good)
        is_damaged = self.dice.byte() & 1
        if is_damaged:
            at = self.dice.number(2) % len(state)
            state[at : at + self.dice.byte() % 3] = self.dice.randbytes(1)
        self.visits.clear()
        try:
            self._follow(self.queues.restore(0, bytes(state), self.media.get))
            self.is_judged &= not is_damaged
        except ValueError:
            if not is_damaged:
                raise
            self.trace.append("refused")
            self._follow(self.queues.restore(0, good, self.media.get))

    def _apply(self, *effects: Effect) -> None:
        """What one reply asks for: checked, then done, then answered."""
        found = [self.queues.check(0, one, self.media.get) for one in effects]
        asked: list[Any] = []
        for application in found:
            if application is not None:
                self.granted += 1
                asked += application[0](*application[1]) or ()
        self._follow(asked)

    def _follow(self, asked: Sequence[Any]) -> None:
        """Make the requests that follow, as many as one request may cause."""
        for one in asked:
            for _ in range(MOST_FOLLOWING):
                request = one(self.dice.byte() < 250) if callable(one) else one
                if request is None or not callable(one):
                    break
                self.trace.append(request)
                chains = decode_chains(request.payload) if request.kind == protocol.CHAINS else []
                self.dead += request.kind == protocol.CHAINS and request.value != 0
                self.chains += len(chains)
                self.handles += [chain.handle for chain in chains]

    def _effect(self) -> Effect:
        dice = self.dice
        handle = self.handles[-1 - dice.byte() % min(len(self.handles), 8)]
        skip = dice.some((0, 0, 0, 1, 16, dice.byte(), (1 << 64) - 1))
        size = dice.some((1, 16, 100, 512, 4064, 0xFFFF_FFFF, dice.byte()))
        to_guest, place = dice.byte() & 1, dice.some((0, 512, dice.byte()))
        offset = dice.some((0, dice.number(2), SIZE - 1, 1 << 63))
        resource = max(0, dice.byte() - 253)
        match dice.byte() % 6:
            case 0:
                return ChainRead(handle, skip, size)
            case 1:
                return ChainWrite(handle, skip, bytes([0xA5]) * min(size, 4000))
            case 2 | 3:
                return ChainTransfer(handle, resource, offset, skip, size, to_guest)
            case 4:
                return ChainServe(
                    handle, resource, offset, skip, size, to_guest, place, 0, dice.some((1, 300))
                )
            case _:
                return ChainUsed(handle, dice.some((0, 0, size)))

    def _judge(self) -> None:
        memory, size = self.memory, MOST_ENTRIES
        seen = set(memory.seen)
        writable = _ends([one for one in seen if one[2] & WRITE])
        readable = _ends([one for one in seen if not one[2] & WRITE or one[2] & INDIRECT])
        for descriptors, available, used in self.places:
            writable.append((used, used + 6 + 8 * size))
            readable += [(descriptors, descriptors + 16 * size), (available, available + 6 + 2 * size)]
        for address, length in set(memory.stored):
            if not _within(address, length, writable):
                raise Fault(f"{length} bytes were stored at {address:#x}")
        for address, length in set(memory.fetched):
            if not _within(address, length, readable):
                raise Fault(f"{length} bytes were read at {address:#x}")


def publish(queues: Virtqueues, index: int, size: int, areas: Sequence[int]) -> None:
    """The guest writes where a queue is."""
    written = [(mmio.QUEUE_SEL, index), (mmio.QUEUE_NUM, size)]
    for register, area in zip((mmio.QUEUE_DESC, mmio.QUEUE_DRIVER, mmio.QUEUE_DEVICE), areas, strict=True):
        written += [(register, area & 0xFFFF_FFFF), (register + 4, area >> 32)]
    for register, value in [*written, (mmio.QUEUE_READY, 1)]:
        queues.note(register, value)


def _ends(ranges: Sequence[tuple[int, int, int]]) -> list[tuple[int, int]]:
    return [(address, address + length) for address, length, _ in ranges]


def _within(address: int, length: int, ranges: Sequence[tuple[int, int]]) -> bool:
    return any(start <= address and address + length <= end for start, end in ranges)


def play_both(dice: Dice) -> None:
    """The same case on both halves: the same requests, and the same memory. Raises Fault."""
    data = dice.rest()
    found: list[tuple[list[object], bytes, bytes]] = []
    for half in built_halves():
        rings = Rings(Dice(data), half.queues, is_real=True)
        rings.play()
        found.append((rings.trace, rings.memory.data, bytes(rings.store.data)))
        rings.memory.close()
    if found[0] != found[-1]:
        raise Fault(f"{found[0][0]} and {found[-1][0]}")


TARGETS: Final[dict[str, Callable[[Dice], None]]] = {
    "rings": lambda dice: Rings(dice).play(),
    "rings-compiled": play_both,
}
