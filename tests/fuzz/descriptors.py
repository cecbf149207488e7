"""Hostile rings of descriptors, an 82540EM's.

A case is a ring whose descriptors are made up, and change while they are read, and a device process that asks
for whatever it likes. What must hold, by an oracle that shares nothing with the walker: bytes are stored in
the second half of a descriptor, of one that sends in the status alone, or where a descriptor that receives
points; bytes are read from the ring, or where a descriptor that sends points. A walk finds fewer descriptors
than the ring has, and none if the tail is beyond it. Nothing raises.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

from kvmbox.base.memory import GuestMemory
from kvmbox.contract.bulk_data import (
    ChainRead,
    ChainServe,
    ChainTransfer,
    ChainUsed,
    ChainWrite,
    Connect,
    Queue,
    Walk,
)
from kvmbox.contract.device_spec import Medium
from kvmbox.contract.model import Effect
from kvmbox.devices.e1000.board import DescriptorRings
from kvmbox.devices.e1000.model import CTRL, IOADDR, IODATA, RECEIVED, RESET
from kvmbox.devices.e1000.vmm import DescriptorQueues
from kvmbox.host.disk.transfers import BytesStore
from kvmbox.remote.published.medium import MediumAccess
from kvmbox.wire.chains import decode_chains
from tests.fuzz.rings import HOLE, PLACES, SIZE, Fault
from tests.support.dice import Dice
from tests.support.virtio_driver import FlatMemory

RECEIVES: Final = (0x2800, 0x100)
SENDS: Final = (0x3800, 0x400)
DESCRIPTOR: Final = 16
BASE: Final = 0x1000
ENABLED: Final = 2
SIZES: Final = ((2048, 1024, 512, 256), (2048, 16384, 8192, 4096))
COMMANDS: Final = (0x01, 0x0B, 0x20, 0x21, 0x2D, 0x00)
MADE_UP: Final = 8
"""How many descriptors of a ring are; the others are zero."""


class Memory(FlatMemory):
    """Memory that another CPU of the guest changes between any two looks."""

    def __init__(self, dice: Dice) -> None:
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
            self.descriptor(BASE + DESCRIPTOR * self._dice.randrange(MADE_UP))
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
    """One ring after the other."""

    def __init__(self, dice: Dice) -> None:
        self.dice = dice
        self.memory = Memory(dice)
        medium = Medium("wire", 1 << 62, writable=True, max_bytes=1 << 16)
        self.medium = MediumAccess(medium, BytesStore(bytes(1 << 17)), lambda *_errand: False)
        self.most_chains = 0
        """How many a walk may find."""
        self.is_judged = True
        """Whether its ring is where it began."""
        self.frames = 0
        """Effects that were asked for."""
        self.granted = 0

    def step(self) -> None:
        """One ring."""
        dice, memory = self.dice, self.memory
        for seen in (memory.fetched, memory.stored, memory.seen):
            seen.clear()
        memory.racing = 0.05 if dice.random() < 0.2 else 0.0
        memory.evil = dice.choice((0.01, 0.1, 0.3))
        self.is_judged = True
        index, (ring, control) = dice.choice(((0, RECEIVES), (1, SENDS)))
        size = dice.choice((8, 8, 16, 64))
        for number in range(MADE_UP):
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
            tail = dice.randrange(size + (dice.random() < 0.02))
            queues.note(ring + 0x18, tail)
            self.most_chains = size - 1 if tail < size or index == RECEIVED else 0
            said = [dice.choice(PLACES) for _ in range(3)]  # by the process, which is not believed
            self._apply(queues, Queue(index, dice.randrange(1, 99), dice.randrange(4), *said))
            self._walk(queues, index, (ring, control))
            self._stir(queues, ring, size)
        if self.is_judged:
            self._judge(index, base & ~15, size, SIZES[wish >> 25 & 1][wish >> 16 & 3])

    def _apply(self, queues: DescriptorQueues, effect: Effect) -> list[Any]:
        application = queues.check(0, effect, lambda _resource: self.medium)
        self.frames += 1
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
            if self.is_judged and len(chains) > self.most_chains:
                raise Fault(f"{len(chains)} chains, not {self.most_chains}")
            handles += [chain.handle for chain in chains]
            if self.dice.random() < 0.05:  # another CPU of the guest takes it back
                queues.note(registers[1], 0)
                self.memory.fetched.clear()
                self.memory.stored.clear()
                self.memory.seen.clear()
            for _ in range(2 * len(chains)):
                asked += self._apply(queues, self._effect(handles))

    def _stir(self, queues: DescriptorQueues, ring: int, size: int) -> None:
        """Reset it, reach its registers by ports, or be as a state says that may be damaged."""
        dice = self.dice
        match dice.byte() % 8:
            case 0:
                queues.note(CTRL, dice.some((0, RESET)))
            case 1:
                queues.note(IOADDR, ring + dice.some((0, 8, 0x10, 0x18, 0x50)))
                queues.note(IODATA, dice.randrange(size))
                self.is_judged = False
            case 2:
                good = queues.state()
                state = bytearray(good)
                for _ in range(dice.byte() % 3):
                    state[dice.randrange(len(state))] = dice.byte()
                self.is_judged = False
                try:
                    queues.restore(0, bytes(state), lambda _resource: self.medium)
                except ValueError:
                    assert state != good, "its own state is refused"

    def _effect(self, handles: list[int]) -> Effect:
        dice = self.dice
        handle = dice.choice(handles) if dice.random() < 0.95 else dice.randrange(1 << 32)
        skip = 0 if dice.random() < 0.5 else dice.choice((1, 255, 2047, (1 << 64) - 1, dice.randrange(600)))
        size = dice.choice((1, 60, 512, 2048, 0xFFFF, dice.randrange(600)))
        match dice.randrange(7):
            case 6:
                return Connect(0, dice.byte() & 1, 0, 0, 0, 1)
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


class Endless(Dice):
    """Choices out of a seed, without an end."""

    def __init__(self, seed: int) -> None:
        super().__init__(b"")
        self._source = random.Random(seed)

    def byte(self) -> int:
        return self._source.getrandbits(8)

    def number(self, size: int) -> int:
        return self._source.getrandbits(8 * size)


class E1000Target:
    """The process of an e1000, for `taken_over`: an effect is a frame. The walker has one half."""

    def __init__(self, seed: int, _half: object) -> None:
        self._cases = Cases(Endless(seed))
        self.refused = 0

    @property
    def frames(self) -> int:
        """How many effects were asked for."""
        return self._cases.frames

    def step(self) -> None:
        """One ring. Raises Fault."""
        granted = self._cases.granted
        self._cases.step()
        self.refused += self._cases.granted == granted

    def close(self) -> None:
        """Nothing is kept."""


def play(dice: Dice) -> None:
    """One ring after the other. Raises Fault."""
    cases = Cases(dice)
    while not dice.ended:
        cases.step()


TARGETS: Final[dict[str, Callable[[Dice], None]]] = {"descriptors": play}
