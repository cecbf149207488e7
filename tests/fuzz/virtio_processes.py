"""Processes of a virtio disk and a virtio network interface that are taken over, with a hostile guest.

As in a run, and with its grants: queues in real guest memory, which compiled code walks where it is built. A
case is one layout of queues whose every byte is made up, and what guest, process and the other threads of the
VMM then do to it. What must hold, by an oracle that shares nothing with the walker:

- bytes of guest memory change in the used rings, or where a writable descriptor points;
- bytes come to the process, a disk or a wire from where a readable descriptor points alone: all other memory
  is `SECRET`;
- after the guest has taken its queues back, none of its memory changes;
- a request has a bounded number of follow-ups, and nothing but `DeviceProcessError` is raised.
"""

from __future__ import annotations

import os
import random
import struct
import tempfile
from functools import partial
from typing import Any, Final, cast

from kvmbox.base.errors import DeviceProcessError
from kvmbox.contract.bulk_data import (
    Chain,
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
from kvmbox.contract.device_spec import Medium
from kvmbox.contract.model import Effect, InputRoom, IrqLine, MemoryRead
from kvmbox.devices.virtio import mmio
from kvmbox.devices.virtio.blk import VirtioBlk
from kvmbox.devices.virtio.board import virtio_blk, virtio_net
from kvmbox.devices.virtio.net import VirtioNet
from kvmbox.host.disk.transfers import BytesStore
from kvmbox.jail.server import DeviceServer
from kvmbox.parts.net.port import PLACE_SHIFT, Port
from kvmbox.parts.net.wires import CutError, Wire
from kvmbox.remote.channel.effect_calls import MAX_FOLLOW_UPS
from kvmbox.remote.transport.direct import DirectLink
from tests.fuzz.targets import Fault
from tests.support.halves import Half
from tests.support.virtio_driver import DESCRIPTOR, INDIRECT, NEXT, WRITE, Driver, RealMemory
from tests.support.virtio_rig import VirtioRig

SIZE: Final = 1 << 16
SECRET: Final = 0xEE
OPEN: Final = 0x11
"""What is where a readable descriptor points."""
MEDIUM: Final = 0x22
TABLES: Final = (0x7000, 0x7800)
PLACES: Final = (0x8000, 0x8100, 0xBFFF, 0xFFF0, 0xFFFF, 0x1_0000, 1 << 32, (1 << 64) - 8)
FLAGS: Final = (0, *(WRITE,) * 6, *(NEXT,) * 3, NEXT | WRITE, INDIRECT, INDIRECT)
LENGTHS: Final = (0, 1, 16, 32, 48, 64, 512, 1530, 0x1001, 0xFFFF_FFFF)
STRAYS: Final = (0, 1, 15, 512, (1 << 32) - 1, (1 << 64) - 1)
STRAYING: Final = 0.02
"""How often a number is one that may not be."""
ROUNDS: Final = 3
_DESCRIPTOR: Final = struct.Struct("<QIHH")

Descriptor = tuple[int, int, int, int]


class Disk(BytesStore):
    """A disk of `MEDIUM`, whose bytes a file has as well."""

    def __init__(self) -> None:
        super().__init__(bytes((MEDIUM,)) * SIZE)
        self._file = os.open(tempfile.gettempdir(), os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC)
        os.write(self._file, self.data)
        self.is_slow = False

    def read_now(self, offset: int, size: int) -> bytes | None:  # type: ignore[override]
        """See MediumStore."""
        return None if self.is_slow else self.read(offset, size)

    def file_now(self, _offset: int, _size: int) -> int:
        """See MediumAccess."""
        return -1 if self.is_slow else self._file

    def was_read(self, _size: int) -> None:
        """See MediumAccess."""

    def leaks(self) -> bool:
        """Whether bytes have come here, since the last call, that are nobody's business."""
        found = SECRET in self.data
        if found:
            self.data[:] = bytes((MEDIUM,)) * SIZE
        return found

    def close(self) -> None:
        """Give back what the kernel gave."""
        os.close(self._file)


class Cable(Wire):
    """Takes frames as it likes."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self.taken: list[bytes] = []
        self.has_room = False

    def send(self, frame: bytes) -> bool:
        if self._dice.random() < 0.001:
            raise CutError("cut")
        self.taken.append(frame)
        return self.has_room or self._dice.random() < 0.9

    def receive(self) -> list[bytes]:
        dice = self._dice
        return [bytes((MEDIUM,)) * dice.choice((0, 13, 14, 60, 1518)) for _ in range(dice.randrange(4))]


class VirtioTarget:
    """One device, and case after case from one seed."""

    def __init__(self, seed: int, half: Half, *, is_net: bool) -> None:
        self.dice = random.Random(seed)
        self.memory = RealMemory(SIZE)
        self.frames = self.refused = self.chains = 0
        self.is_net = is_net
        self._half = half
        self._disk = Disk()
        self._ready = self._begins = False
        self._connect()

    def _connect(self) -> None:
        self._ready = False
        self.cable = Cable(self.dice)
        self.port = Port("net0", self.cable)
        base = VirtioNet if self.is_net else VirtioBlk
        kind = type("TakenOver", (TakenOver, base), {"target": self})
        server = partial(DeviceServer, build=lambda _name, parameters: kind(**parameters))
        spec = virtio_net(0, bytes(6)) if self.is_net else virtio_blk(0, Medium("disk", SIZE, writable=True))
        store = self.port if self.is_net else self._disk
        self.rig = VirtioRig(spec, store, half=self._half, memory=self.memory, link=DirectLink(server))

    # --- What is made up ------------------------------------------------------------------------------------

    def _descriptor(self, number: int, size: int, *, in_table: bool) -> Descriptor:
        dice, evil = self.dice, self.evil
        address, length, flags = 0x8000 + dice.randrange(0x3000), dice.randrange(600), dice.choice(FLAGS)
        following = (number + 1) % size
        if flags & INDIRECT:
            flags = WRITE if in_table else flags
            if not in_table:
                address, length = dice.choice(TABLES), dice.choice((16, 32, 64, 128))
        if dice.random() < evil:
            address = dice.choice(PLACES)
        if dice.random() < evil:
            length = dice.choice(LENGTHS)
        if dice.random() < evil:
            flags = dice.randrange(16)
        if dice.random() < evil:
            following = dice.randrange(1 << dice.randrange(17)) & 0xFFFF
        if not flags & INDIRECT and address in TABLES:
            address += 0x1000  # a device that may write to a table may publish what it likes
        return address, length, flags, following

    def _packed(self, descriptors: list[Descriptor]) -> bytes:
        """As the guest has them; none looks like a secret."""
        packed = b"".join(_DESCRIPTOR.pack(*one) for one in descriptors).replace(b"\xee", b"\xed")
        for address, length, flags, _ in _DESCRIPTOR.iter_unpack(packed):
            self._publish(address, length, flags)
        return packed

    def _publish(self, address: int, length: int, flags: int) -> None:
        end = min(address + length, SIZE)
        if flags & WRITE:
            self.writable.append((address, end))
        if not flags & WRITE or flags & INDIRECT:
            self.readable.append((address, end))

    def _lay_out(self) -> list[Driver]:
        dice, memory = self.dice, self.memory
        self.evil = dice.choice((0.01, 0.1, 0.3))
        self.writable: list[tuple[int, int]] = []
        self.readable: list[tuple[int, int]] = []
        self.raced: list[tuple[int, int]] = []  # what the guest itself has written meanwhile
        sizes = [dice.choice((1, 2, 4, 8, 16)) for _ in range(1 + self.is_net)]
        tables = {
            place: self._packed([self._descriptor(number, 8, in_table=True) for number in range(8)])
            for place in TABLES
        }
        queues = [
            self._packed([self._descriptor(number, size, in_table=False) for number in range(size)])
            for size in sizes
        ]
        memory.write(0, bytes((SECRET,)) * SIZE)
        for start, end in self.readable:
            if start < end:
                memory.write(start, bytes((OPEN,)) * (end - start))
        for place, packed in tables.items():
            memory.write(place, packed)
        drivers = []
        for number, (size, packed) in enumerate(zip(sizes, queues, strict=True)):
            index = 0 if dice.random() < 0.95 else 0xFFFF - dice.randrange(3)
            drivers.append(Driver(cast(Any, memory), size, 0x1000 + 0x800 * number, index=index))
            memory.write(drivers[-1].descriptors, packed)
        return drivers

    def _offer(self, driver: Driver) -> None:
        dice = self.dice
        count = dice.randrange(min(driver.size, 4) + 1)
        driver.offer(*[dice.randrange(driver.size + (dice.random() < 0.02)) for _ in range(count)])
        driver.set_flags(dice.randrange(2))
        if dice.random() < 0.02:
            driver.set_index(dice.randrange(1 << 16))

    # --- A case ---------------------------------------------------------------------------------------------

    def step(self) -> None:
        """One case. Raises Fault."""
        dice, rig = self.dice, self.rig
        self.cable.has_room = True  # for frames of the last case
        self.port.move()
        self.cable.has_room = False
        self.cable.taken.clear()
        if rig.channel.failure is not None or self.port.cut:
            self._connect()
            rig = self.rig
        rig.host.log.clear()
        self._disk.leaks()
        self._disk.is_slow = dice.random() < 0.1
        self.drivers = self._lay_out()
        self.used: list[tuple[int, int]] = []
        self.handles: list[tuple[int, int, int]] = []
        self.sees_secrets = True
        self._ready = False
        for number, driver in enumerate(self.drivers):
            self._publish_queue(number, driver)
        try:
            self._ready = self._begins = True
            self._request(lambda: rig.write(mmio.STATUS, 15))
            self._play()
        except DeviceProcessError:
            self.refused += 1

    def _publish_queue(self, number: int, driver: Driver) -> None:
        dice, queues = self.dice, self.rig.queues
        areas = list(driver.areas)
        if dice.random() < 0.05:
            areas[dice.randrange(3)] = dice.choice((*PLACES, 0x1001, 0x1004))
            self.sees_secrets = False  # what is in a ring may be in a buffer
        queues.note(mmio.QUEUE_SEL, number)
        queues.note(mmio.QUEUE_READY, 0)
        queues.note(mmio.QUEUE_NUM, driver.size if dice.random() < 0.98 else 3)
        for register, area in zip(
            (mmio.QUEUE_DESC, mmio.QUEUE_DRIVER, mmio.QUEUE_DEVICE), areas, strict=True
        ):
            queues.note(register, area & 0xFFFF_FFFF)
            queues.note(register + 4, area >> 32)
        queues.note(mmio.QUEUE_READY, 1)
        self.used.append((areas[2], areas[2] + 6 + 8 * driver.size))

    def _play(self) -> None:
        dice, rig = self.dice, self.rig
        for _ in range(dice.randrange(1, ROUNDS + 1)):
            number = dice.randrange(len(self.drivers))
            self._offer(self.drivers[number])
            before = self.memory.data
            self._request(lambda number=number: rig.notify(number))
            if self.is_net and dice.random() < 0.5:
                self._request(self._turn, 8)
            if dice.random() < 0.5:
                self._request(lambda: rig.do_errands(3), 3)
            self._judge(before, [*self.used, *self.writable])
        before = self.memory.data
        if dice.random() < 0.2:
            for number in range(len(self.drivers)):
                rig.queues.note(mmio.QUEUE_SEL, number)
                rig.queues.note(mmio.QUEUE_READY, 0)
            self._request(lambda: rig.do_errands(100), 100)
            self._request(lambda: rig.write(mmio.STATUS, 15))
            self._request(lambda: rig.notify(0))
            self._judge(before, [])
        else:
            self._request(lambda: rig.do_errands(100), 100)
            self._judge(before, [*self.used, *self.writable])

    def _turn(self) -> None:
        """What the main thread does for a wire."""
        self.port.room(1)
        self.port.move()
        self.port.feed(self.rig.channel, 0)

    def _request(self, act: Any, times: int = 1) -> None:
        before = self.frames
        act()
        if self.frames - before > times * (MAX_FOLLOW_UPS + 1):
            raise Fault(f"{self.frames - before} requests at once")

    def _judge(self, before: bytes, allowed: list[tuple[int, int]]) -> None:
        after = self.memory.data
        if before != after:
            expected = bytearray(before)
            for start, end in [*allowed, *self.raced]:
                if start < end <= SIZE:
                    expected[start:end] = after[start:end]
            if expected != after:
                place = next(at for at in range(SIZE) if expected[at] != after[at])
                raise Fault(f"a byte was stored at {place:#x}")
        leaks = self._disk.leaks() or any(SECRET in one for one in self.cable.taken)
        if self.sees_secrets and leaks:
            raise Fault("a byte that is not published is on the disk, or on the wire")
        self.cable.taken.clear()

    # --- The process ----------------------------------------------------------------------------------------

    def told(self, data: bytes) -> None:
        """The process is told bytes of guest memory. Raises Fault."""
        if self.sees_secrets and SECRET in data:
            raise Fault(f"the process was told {data.hex()}")

    def race(self) -> None:
        """Another CPU writes a descriptor while the process thinks."""
        if self.dice.random() < 0.2:
            driver = self.dice.choice(self.drivers)
            number = self.dice.randrange(driver.size)
            one = self._packed([self._descriptor(number, driver.size, in_table=False)])
            place = driver.descriptors + DESCRIPTOR * number
            self.memory.write(place, one)
            self.raced.append((place, place + DESCRIPTOR))
            self.sees_secrets = False  # a buffer that is readable now has secrets in it

    def effects(self) -> list[Effect]:
        """What the process asks for in its reply."""
        self.frames += 1
        if not self._ready:
            return []
        dice = self.dice
        if self._begins:  # the guest has written that the driver is ready
            self._begins = False
            found: list[Effect] = []
            for number in range(len(self.drivers)):
                lies = [dice.choice((0x1000, *PLACES)) for _ in range(3)]
                found.append(Queue(number, dice.randrange(1, 20), dice.randrange(4), *lies))
                found.append(Walk(number, dice.randrange(1, 65), 0))
                if self.is_net and dice.random() < 0.5:
                    header, count_at = dice.choice((0, 10, 12, 64)), dice.choice((0, 0, 10))
                    chains = dice.choice((1, 3, 16, 64))
                    found.append(
                        Connect(number, dice.randrange(2), 0, max(header, count_at + 2), count_at, chains)
                    )
            return found if dice.random() < 0.95 else found[-1:]
        if not self.handles:
            return []
        return [self._effect() for _ in range(dice.choice((0, 1, 1, 2, 3, 6)))]

    def _effect(self) -> Effect:
        dice = self.dice
        if dice.random() < 0.002:
            return dice.choice(
                (MemoryRead(1, [(0x9000, 4)]), Flush(1, 0), ConfigChanged(0), IrqLine(0, 1), InputRoom(1))
            )
        handle, readable, writable = dice.choice(self.handles[-4:])
        if dice.random() < 0.01:
            handle = dice.randrange(1 << 32)
        way = dice.randrange(7)
        to_guest = 0 if way == 0 else 1 if way == 1 else dice.randrange(2)
        whole = min(writable if to_guest else readable, 4000)
        skip = dice.randrange(whole + 1)
        size = dice.choice((whole - skip, dice.randrange(whole - skip + 1)))
        if dice.random() < STRAYING:
            skip = dice.choice((*STRAYS, skip + 1))
        if dice.random() < STRAYING:
            size = dice.choice((*LENGTHS, size + 1))
        offset, resource = dice.randrange(SIZE - 4000), int(dice.random() < 0.002)
        if self.is_net:
            offset = dice.randrange(17) << PLACE_SHIFT | dice.choice((0, 0, 14, 1517))
        match way:
            case 0:
                return ChainRead(handle, skip, size)
            case 1:
                return ChainWrite(handle, skip, b"\xa5" * min(size, 4000))
            case 2 | 3:
                return ChainTransfer(handle, resource, offset, skip, size, to_guest)
            case 4 | 5:
                place = dice.choice((0, max(0, writable - 1), writable)) if dice.random() < 0.1 else 0
                return ChainServe(handle, resource, offset, skip, size, to_guest, place, 0, 1)
            case _:
                return ChainUsed(handle, 0 if dice.random() < 0.5 else min(size, writable))

    def close(self) -> None:
        """Give back what the kernel gave."""
        self.memory.close()
        self._disk.close()


class TakenOver:
    """A model of this class and another one is honest no more."""

    target: VirtioTarget

    def write(self, _now: int, _offset: int, _size: int, _value: int) -> None:
        """See DeviceModel."""

    def receive(self, _now: int, data: bytes) -> int:
        """See DeviceModel."""
        return self.target.dice.choice((0, 1, len(data), len(data), len(data) + 2))

    def chains(self, _now: int, _index: int, chains: list[Chain], _status: int) -> None:
        """See QueueModel."""
        target = self.target
        target.chains += len(chains)
        target.handles += [(chain.handle, chain.readable, chain.writable) for chain in chains]
        for chain in chains:
            target.told(chain.head)
        target.race()

    def memory(self, _now: int, _tag: int, data: bytes | None) -> None:
        """See MemoryModel."""
        self.target.told(data or b"")

    def complete(self, _now: int, _tag: int, _status: int) -> None:
        """See MediaModel."""

    def take_effects(self) -> list[Effect]:
        """See DeviceModel."""
        return self.target.effects()
