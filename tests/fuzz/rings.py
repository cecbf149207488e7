"""Hostile rings, by the million: `python -m tests.fuzz.rings --rings 1000000`.

A case is a queue whose every byte is made up, mostly so that it looks like one, and a device process that
asks for whatever it likes. What must hold, by an oracle that shares nothing with the walker: bytes are stored
in the used ring, or where a writable descriptor points. Bytes are read from the rings, from tables, or where
a readable descriptor points. Nothing raises, and no case takes more than a bounded number of accesses.
"""

from __future__ import annotations

import argparse
import random
import struct
import sys
import time
from collections.abc import Sequence
from typing import Any, Final, cast

from kvmbox.board import Medium, Queues
from kvmbox.devices import virtio_mmio as mmio
from kvmbox.devices.media import (
    ChainRead,
    ChainServe,
    ChainTransfer,
    ChainUsed,
    ChainWrite,
    Connect,
    Queue,
    Walk,
)
from kvmbox.devices.model import Effect
from kvmbox.host.transfers import BytesStore
from kvmbox.memory import GuestMemory
from kvmbox.remote.medium import MediumAccess
from kvmbox.remote.queues import DeviceQueues
from kvmbox.wire.chains import decode_chains
from tests.support.virtio_driver import DESCRIPTOR, INDIRECT, NEXT, WRITE, Driver, FlatMemory

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


class Fault(AssertionError):
    """What must not happen."""


class Memory(FlatMemory):
    """Memory that another CPU of the guest changes between any two looks."""

    def __init__(self, dice: random.Random) -> None:
        super().__init__(SIZE, [HOLE])
        self._dice = dice
        self.accesses = 0
        self.racing = 0.0
        self.evil = 0.0
        self.seen: list[tuple[int, int, int]] = []
        """(address, length, flags) of everything that was read in this case and may be a descriptor."""

    def read(self, address: int, size: int) -> bytes:
        self.accesses += 1
        data = super().read(address, size)
        if size % DESCRIPTOR == 0:
            self.seen += [one[:3] for one in struct.iter_unpack("<QIHH", data)]
        if self._dice.random() < self.racing:
            self.descriptor(self._dice.choice((0x1000, *TABLES)) + DESCRIPTOR * self._dice.randrange(8))
        return data

    def descriptor(self, place: int) -> None:
        """Make up a descriptor: a good one, or, as often as the case is evil, any."""
        dice = self._dice
        address, length, flags = 0x8000 + dice.randrange(0x3000), dice.randrange(600), dice.choice(FLAGS)
        following = (place // DESCRIPTOR + 1) % 8
        if flags & INDIRECT and place in range(TABLES[0], TABLES[-1] + 8 * DESCRIPTOR):
            flags = WRITE
        elif flags & INDIRECT:
            address, length = dice.choice(TABLES), dice.choice((16, 32, 64, 128))
        if dice.random() < self.evil:
            address = dice.choice(PLACES)
        if dice.random() < self.evil:
            length = dice.choice(LENGTHS)
        if dice.random() < self.evil:
            flags = dice.randrange(16)
        if dice.random() < self.evil:
            following = dice.randrange(1 << dice.randrange(17))
        self.poke(place, "QIHH", address, length, flags, following & 0xFFFF)


class Store(BytesStore):
    """A store of packets as well."""

    def has_buffers(self) -> None:
        """The guest has made chains available."""


def _nobody(_tag: int, _work: object, _settle: object) -> bool:
    """No errand is taken."""
    return False


class Rings:
    """A source of cases; all of them come from one seed."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.memory = Memory(self.dice)
        self.medium = MediumAccess(Medium("disk", SIZE, writable=True), Store(bytes(SIZE)), _nobody)
        self.rings = self.chains = self.packets = self.dead = self.granted = 0

    def step(self) -> None:
        """One ring."""
        dice, memory = self.dice, self.memory
        self.rings += 1
        memory.fetched.clear()
        memory.stored.clear()
        memory.seen.clear()
        memory.accesses = 0
        memory.racing = 0.05 if dice.random() < 0.2 else 0.0
        memory.evil = dice.choice((0.01, 0.1, 0.3))
        size = dice.choice((1, 2, 4, 8, 16))
        driver = Driver(memory, size, index=0 if dice.random() < 0.95 else dice.randrange(1 << 16))
        for number in range(size):
            memory.descriptor(driver.descriptors + DESCRIPTOR * number)
        for table in TABLES:
            for number in range(8):
                memory.descriptor(table + DESCRIPTOR * number)
        heads = [
            dice.randrange(size + (dice.random() < 0.02)) for _ in range(dice.randrange(min(size, 4) + 1))
        ]
        driver.offer(*heads)
        if dice.random() < 0.03:
            driver.set_index(dice.randrange(1 << 16))
        queues = DeviceQueues(Queues(1, 16, 16), cast(GuestMemory, memory), lambda _settle: True)
        queues.interrupts.lines = [lambda _level, _coalesced: None]
        areas = list(driver.areas)
        if dice.random() < 0.05:
            areas[dice.randrange(3)] = dice.choice((*PLACES, 0x1001, 0x1004))
        publish(queues, size if dice.random() < 0.98 else 3, areas)
        said = [dice.choice((area, *PLACES)) for area in areas]  # by the process, which is not believed
        self._apply(queues, Queue(0, dice.randrange(1, 20), dice.randrange(4), *said))
        for _ in range(dice.randrange(1, 4)):
            self._connect(queues) if dice.random() < 0.3 else self._walk(queues)
        self._judge(driver, tuple(areas))

    def _apply(self, queues: DeviceQueues, effect: Effect) -> list[Any]:
        application = queues.check(0, effect, lambda _resource: self.medium)
        if application is None:
            return []
        self.granted += 1
        return application[0](*application[1]) or []

    def _connect(self, queues: DeviceQueues) -> None:
        dice = self.dice
        header, to_guest = dice.choice((0, 10, 12, 64, 65)), dice.randrange(2)
        self._apply(queues, Walk(0, dice.randrange(1, 65)))
        self._apply(
            queues, Connect(0, to_guest, 0, header, dice.choice((0, 10, 62)), dice.choice((1, 4, 16)))
        )
        for asked in queues.notified(0):
            self.dead += asked(True) is not None
        for _ in range(dice.randrange(4)):
            self.packets += bool(queues.put(self.medium.store, bytes([0xA5]) * dice.randrange(1, 1600)))

    def _walk(self, queues: DeviceQueues) -> None:
        self._apply(queues, Walk(0, self.dice.randrange(1, 65)))
        asked = list(queues.notified(0))
        handles = [0]
        while asked:
            request = asked.pop()(True)
            if request is None:
                continue
            chains = decode_chains(request.payload) if request.offset == 0 and request.kind == 19 else []
            self.dead += request.kind == 19 and request.value != 0
            self.chains += len(chains)
            handles += [chain.handle for chain in chains]
            for _ in range(2 * len(chains)):
                asked += self._apply(queues, self._effect(handles))

    def _effect(self, handles: list[int]) -> Effect:
        dice = self.dice
        handle = dice.choice(handles) if dice.random() < 0.95 else dice.randrange(1 << 32)
        skip = 0 if dice.random() < 0.5 else dice.choice((1, 15, 16, 511, (1 << 64) - 1, dice.randrange(600)))
        size = dice.choice((1, 16, 512, 4064, 0xFFFF_FFFF, dice.randrange(600)))
        match dice.randrange(6):
            case 0:
                return ChainRead(handle, skip, size)
            case 1 | 2:
                return ChainWrite(handle, skip, bytes([0xA5]) * min(size, 4000))
            case 3:
                return ChainTransfer(handle, 0, 0, skip, size, dice.randrange(2))
            case 4:
                place = dice.choice((0, 512, dice.randrange(600)))
                return ChainServe(
                    handle, 0, dice.randrange(1 << 15), skip, size, dice.randrange(2), place, 0, 1
                )
            case _:
                return ChainUsed(handle, dice.choice((0, size)))

    def _judge(self, driver: Driver, areas: tuple[int, ...]) -> None:
        memory, size = self.memory, driver.size
        if memory.accesses > MOST_ACCESSES:
            raise Fault(f"{memory.accesses} accesses")
        used = (areas[2], areas[2] + 6 + 8 * size)
        writable = [one for one in memory.seen if one[2] & WRITE]
        readable = [one for one in memory.seen if not one[2] & WRITE or one[2] & INDIRECT]
        for address, length in memory.stored:
            if not _within(address, length, [used, *_ends(writable)]):
                raise Fault(f"{length} bytes were stored at {address:#x}")
        rings = [(areas[0], areas[0] + 16 * size), (areas[1], areas[1] + 6 + 2 * size)]
        for address, length in memory.fetched:
            if not _within(address, length, [*rings, *_ends(readable)]):
                raise Fault(f"{length} bytes were read at {address:#x}")


def publish(queues: DeviceQueues, size: int, areas: Sequence[int]) -> None:
    """The guest writes where its first queue is."""
    written = [(mmio.QUEUE_SEL, 0), (mmio.QUEUE_NUM, size)]
    for register, area in zip((mmio.QUEUE_DESC, mmio.QUEUE_DRIVER, mmio.QUEUE_DEVICE), areas, strict=True):
        written += [(register, area & 0xFFFF_FFFF), (register + 4, area >> 32)]
    for register, value in [*written, (mmio.QUEUE_READY, 1)]:
        queues.note(register, value)


def _ends(ranges: Sequence[tuple[int, int, int]]) -> list[tuple[int, int]]:
    return [(address, address + length) for address, length, _ in ranges]


def _within(address: int, length: int, ranges: Sequence[tuple[int, int]]) -> bool:
    return any(start <= address and address + length <= end for start, end in ranges)


def fuzz(rings: int, seed: int) -> Rings:
    """Make so many. Raises Fault, or what else is raised, with the number of the ring."""
    made = Rings(seed)
    for number in range(rings):
        try:
            made.step()
        except Exception as error:
            raise Fault(f"seed {seed}, ring {number}: {error!r}") from error
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="rings", description=__doc__)
    parser.add_argument("--rings", type=int, default=100_000, help="how many (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=time.time_ns() & 0xFFFF_FFFF)
    given = parser.parse_args(arguments)
    try:
        made = fuzz(given.rings, given.seed)
    except Fault as fault:
        print(f"FAULT: {fault}")
        return 1
    what = f"{made.chains} chains, {made.packets} packets, {made.granted} effects granted, {made.dead} dead"
    print(f"{made.rings} rings, {what}: no fault")
    return 0


if __name__ == "__main__":
    sys.exit(main())
