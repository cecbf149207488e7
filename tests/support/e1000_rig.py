"""An 82540EM behind a channel, with a driver: what is in a ring, and where its buffers are."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from kvmbox.base.memory import GuestMemory
from kvmbox.contract.pci_function import PlacedFunction
from kvmbox.contract.pci_grants import PciBus
from kvmbox.devices.e1000.board import e1000_net
from kvmbox.devices.e1000.model import CONTROLS, ENABLE, HEAD, LEN, RECEIVED, RINGS, SENT, TAIL
from kvmbox.parts.net.wires import Wire
from kvmbox.remote.bus.movable import MovingBus
from kvmbox.remote.bus.pci_fabric import PciFabric
from tests.support.halves import Half
from tests.support.virtio_rig import VirtioRig

MAC = bytes.fromhex("026b76000001")
END, REPORT = 1 << 24, 1 << 27
STRIP, PROMISCUOUS = 1 << 26, 3 << 3
ENTRIES = 16
BASES = (0x1000, 0x2000)
BUFFERS = (0x10000, 0x40000)
STEP = 0x1000


class NotingWire(Wire):
    """Remembers what was sent."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def send(self, frame: bytes) -> bool:
        self.sent.append(frame)
        return True


class E1000Rig(VirtioRig):
    """See the module. Buffer n of a ring is at BUFFERS + n * STEP."""

    def __init__(self, store: object = None, *, half: Half | None = None) -> None:
        spec = e1000_net(0, MAC)
        fabric = PciFabric(
            PciBus((PlacedFunction(3 << 3, spec.name),)),
            *(MovingBus(16), MovingBus(52)),
            GuestMemory(1 << 20),
            lambda _gsi: lambda _level, _coalesced: None,
        )
        self.pin = fabric.function(spec.name)
        super().__init__(spec, store, half=half, fabric=fabric)
        self.tails = [0, 0]

    def set_up(self, index: int, *, base: int | None = None, entries: int = ENTRIES) -> None:
        """Where a ring is: empty, and not enabled."""
        ring = RINGS[index]
        self.write(ring, BASES[index] if base is None else base)
        self.write(ring + LEN, 16 * entries)
        self.write(ring + HEAD, 0)
        self.write(ring + TAIL, 0)
        self.tails[index] = 0

    def enable(self, index: int, more: int = STRIP | PROMISCUOUS) -> None:
        self.write(CONTROLS[index], ENABLE | more)

    def run(self) -> None:
        for index in (RECEIVED, SENT):
            self.set_up(index)
            self.enable(index, STRIP | PROMISCUOUS if index == RECEIVED else 0)

    def describe(self, index: int, number: int, address: int, low: int = 0, high: int = 0) -> None:
        self.memory.poke(BASES[index] + 16 * number, "QII", address, low, high)

    def descriptor(self, index: int, number: int) -> tuple[int, int, int]:
        """Address and both words of its second half."""
        return self.memory.peek(BASES[index] + 16 * number, "QII")  # type: ignore[return-value]

    def move(self, index: int, count: int) -> None:
        """Move the tail."""
        self.tails[index] = (self.tails[index] + count) % ENTRIES
        self.write(RINGS[index] + TAIL, self.tails[index])

    def send(self, *pieces: bytes, flags: int = REPORT) -> None:
        """One frame of these pieces."""
        for number, piece in enumerate(pieces, self.tails[SENT]):
            slot = number % ENTRIES
            place = BUFFERS[SENT] + STEP * slot
            self.memory.write(place, piece)
            is_last = number == self.tails[SENT] + len(pieces) - 1
            self.describe(SENT, slot, place, len(piece) | flags | END * is_last)
        self.move(SENT, len(pieces))

    def give(self, count: int) -> None:
        """Descriptors to receive to."""
        for number in range(self.tails[RECEIVED], self.tails[RECEIVED] + count):
            slot = number % ENTRIES
            self.describe(RECEIVED, slot, BUFFERS[RECEIVED] + STEP * slot)
        self.move(RECEIVED, count)

    def received(self, numbers: Sequence[int]) -> list[bytes]:
        """The bytes in the buffers of these descriptors, as far as they say."""
        found = []
        for number in numbers:
            address, low, _ = self.descriptor(RECEIVED, number)
            found.append(self.memory.read(address, low & 0xFFFF))
        return found


def context(places: bytes, half: bytes) -> tuple[int, int, int]:
    """A descriptor without a buffer, for `describe`."""
    return struct.unpack("<QII", places + half)
