"""Hostile rings of descriptors, an 82540EM's: `python -m tests.fuzz.descriptors --rings 1000000`.

A case is a ring whose descriptors are made up, and change while they are read, and a device process that asks
for whatever it likes. What must hold, by an oracle that shares nothing with the walker: bytes are stored in
the second half of a descriptor, of one that sends in the status alone, or where a descriptor that receives
points; bytes are read from the ring, or where a descriptor that sends points. Nothing raises.
"""

from __future__ import annotations

import argparse
import random
import struct
import sys
import time
from collections.abc import Sequence
from typing import Any, Final, cast

from kvmbox.board import Medium
from kvmbox.board_extras import DescriptorRings
from kvmbox.devices.media import ChainRead, ChainServe, ChainTransfer, ChainUsed, ChainWrite, Queue, Walk
from kvmbox.devices.model import Effect
from kvmbox.host.transfers import BytesStore
from kvmbox.memory import GuestMemory
from kvmbox.remote.descriptor_rings import DescriptorQueues
from kvmbox.remote.medium import MediumAccess
from kvmbox.wire.chains import decode_chains
from tests.fuzz.rings import HOLE, PLACES, SIZE, Fault
from tests.support.virtio_driver import FlatMemory

RECEIVES: Final = (0x2800, 0x100)
SENDS: Final = (0x3800, 0x400)
DESCRIPTOR: Final = 16
BASE: Final = 0x1000
ENABLED: Final = 2
SIZES: Final = ((2048, 1024, 512, 256), (2048, 16384, 8192, 4096))
COMMANDS: Final = (0x01, 0x0B, 0x20, 0x21, 0x2D, 0x00)


class Memory(FlatMemory):
    """Memory that another CPU of the guest changes between any two looks."""

    def __init__(self, dice: random.Random) -> None:
        super().__init__(SIZE, [HOLE])
        self._dice = dice
        self.racing = self.evil = 0.0
        self.seen: list[tuple[int, int]] = []
        """(address, length) of every descriptor that was read."""

    def read(self, address: int, size: int) -> bytes:
        data = super().read(address, size)
        if size == DESCRIPTOR:
            place, low = struct.unpack_from("<QI", data)
            self.seen.append((place, low & 0xFFFF))
        if self._dice.random() < self.racing:
            self.descriptor(BASE + DESCRIPTOR * self._dice.randrange(8))
        return data

    def descriptor(self, place: int) -> None:
        """Make up a descriptor: a good one, or, as often as the case is evil, any."""
        dice = self._dice
        address, low = 0x8000 + dice.randrange(0x3000), dice.randrange(600) | dice.choice(COMMANDS) << 24
        if dice.random() < self.evil:
            address = dice.choice((*PLACES, 0))
        if dice.random() < self.evil:
            low = dice.randrange(1 << 32)
        self.poke(place, "QII", address, low, dice.randrange(1 << 32))


class Cases:
    """A source of cases; all of them come from one seed."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.memory = Memory(self.dice)
        medium = Medium("wire", 1 << 62, writable=True, max_bytes=1 << 16)
        self.medium = MediumAccess(medium, BytesStore(bytes(1 << 17)), lambda *_errand: False)
        self.rings = self.chains = self.dead = self.granted = 0

    def step(self) -> None:
        """One ring."""
        dice, memory = self.dice, self.memory
        self.rings += 1
        for seen in (memory.fetched, memory.stored, memory.seen):
            seen.clear()
        memory.racing = 0.05 if dice.random() < 0.2 else 0.0
        memory.evil = dice.choice((0.01, 0.1, 0.3))
        index, (ring, control) = dice.choice(((0, RECEIVES), (1, SENDS)))
        size = dice.choice((8, 8, 16, 64))
        for number in range(size):
            memory.descriptor(BASE + DESCRIPTOR * number)
        queues = DescriptorQueues(DescriptorRings(2), cast(GuestMemory, memory), lambda _settle: True)
        queues.interrupts.lines = [lambda _level, _coalesced: None]
        wish = ENABLED | dice.randrange(4) << 16 | dice.randrange(2) << 25
        base = BASE if dice.random() < 0.97 else dice.choice(PLACES)
        for offset, value in (
            (0, base),
            (4, base >> 32),
            (8, DESCRIPTOR * size),
            (0x10, dice.randrange(size)),
        ):
            queues.note(ring + offset, value & 0xFFFF_FFFF)
        queues.note(control, wish if dice.random() < 0.97 else 0)
        for _ in range(dice.randrange(1, 4)):
            queues.note(ring + 0x18, dice.randrange(size + (dice.random() < 0.02)))
            said = [dice.choice(PLACES) for _ in range(3)]  # by the process, which is not believed
            self._apply(queues, Queue(index, dice.randrange(1, 99), dice.randrange(4), *said))
            self._walk(queues, index, (ring, control))
        self._judge(index, base & ~15, size, SIZES[wish >> 25 & 1][wish >> 16 & 3])

    def _apply(self, queues: DescriptorQueues, effect: Effect) -> list[Any]:
        application = queues.check(0, effect, lambda _resource: self.medium)
        if application is None:
            return []
        self.granted += 1
        return application[0](*application[1]) or []

    def _walk(self, queues: DescriptorQueues, index: int, registers: tuple[int, int]) -> None:
        asked = self._apply(queues, Walk(index, self.dice.randrange(1, 65)))
        handles = [0]
        while asked:
            request = asked.pop()(True)
            if request is None:
                continue
            chains = decode_chains(request.payload) if request.kind == 19 else []
            self.dead += request.kind == 19 and request.value != 0
            self.chains += len(chains)
            handles += [chain.handle for chain in chains]
            if self.dice.random() < 0.05:  # another CPU of the guest takes it back
                queues.note(registers[1], 0)
                self.memory.fetched.clear()
                self.memory.stored.clear()
                self.memory.seen.clear()
            for _ in range(2 * len(chains)):
                asked += self._apply(queues, self._effect(handles))

    def _effect(self, handles: list[int]) -> Effect:
        dice = self.dice
        handle = dice.choice(handles) if dice.random() < 0.95 else dice.randrange(1 << 32)
        skip = 0 if dice.random() < 0.5 else dice.choice((1, 255, 2047, (1 << 64) - 1, dice.randrange(600)))
        size = dice.choice((1, 60, 512, 2048, 0xFFFF, dice.randrange(600)))
        match dice.randrange(6):
            case 0:
                return ChainRead(handle, skip, size)
            case 1:
                return ChainWrite(handle, skip, bytes([0xA5]) * min(size, 4000))
            case 2 | 3:
                return ChainTransfer(handle, 0, dice.randrange(1 << 16), skip, size, dice.randrange(2))
            case 4:
                return ChainServe(handle, 0, 0, skip, size, dice.randrange(2), 0, 0, 1)
            case _:
                return ChainUsed(handle, dice.choice((0, size | 1 << 32, dice.randrange(1 << 64))))

    def _judge(self, index: int, base: int, size: int, buffer: int) -> None:
        memory = self.memory
        halves = [(base + DESCRIPTOR * number + 8, 8) for number in range(size)]
        allowed = [(place + 4, 1) for place, _ in halves] if index else halves
        buffers = memory.seen if index else [(place, buffer) for place, _ in memory.seen]
        for address, length in memory.stored:
            if not _within(address, length, allowed if index else [*allowed, *buffers]):
                raise Fault(f"{length} bytes were stored at {address:#x}")
        ring = [(base, DESCRIPTOR * size)]
        for address, length in memory.fetched:
            if not _within(address, length, [*ring, *buffers] if index else ring):
                raise Fault(f"{length} bytes were read at {address:#x}")


def _within(address: int, length: int, ranges: Sequence[tuple[int, int]]) -> bool:
    return any(start <= address and address + length <= start + size for start, size in ranges)


def fuzz(rings: int, seed: int) -> Cases:
    """Make so many. Raises Fault, or what else is raised, with the number of the ring."""
    made = Cases(seed)
    for number in range(rings):
        try:
            made.step()
        except Exception as error:
            raise Fault(f"seed {seed}, ring {number}: {error!r}") from error
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="descriptors", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rings", type=int, default=100_000, help="how many (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=time.time_ns() & 0xFFFF_FFFF)
    given = parser.parse_args(arguments)
    try:
        made = fuzz(given.rings, given.seed)
    except Fault as fault:
        print(f"FAULT: {fault}")
        return 1
    what = f"{made.chains} chains, {made.granted} effects granted, {made.dead} dead"
    print(f"{made.rings} rings, {what}: no fault")
    return 0


if __name__ == "__main__":
    sys.exit(main())
