"""The writes in a ring while the window of a VGA is out: of each size that KVM makes."""

from __future__ import annotations

import struct
from typing import Any, cast

import pytest

from kvmbox.base import layout
from kvmbox.base.errors import UnknownExitError
from kvmbox.devices.vga.model import VgaText
from kvmbox.remote.bus.proxy import DeviceProxy
from kvmbox.run.display.deferred_writes import VgaWrites
from kvmbox.run.vcpu.coalesced_ring import CoalescedRing
from tests.support.fake_room import FakeRoom
from tests.support.kernel_ring import RING, indices

GRAPHICS = 0x3CE
PLANAR = [(0x3C4, 4, 6), (0x3C4, 2, 0xF), (GRAPHICS, 5, 0), (GRAPHICS, 6, 5), (GRAPHICS, 8, 0xFF)]
"""Port, index and value: four planes at 0xA0000."""


class VgaChannel:
    """A channel to a VGA that is here."""

    steady = None

    def __init__(self) -> None:
        self.vga = VgaText()

    def access(self, *_arguments: int) -> int:
        raise AssertionError

    def write_string(self, _device: int, offset: int, size: int, data: bytes, slices: int | None) -> None:
        del slices
        for (value,) in struct.iter_unpack("<Q", data):
            self.vga.write(0, offset, size, value)


class Rig:
    """A ring with a window that is out."""

    def __init__(self) -> None:
        self.page = bytearray(3 * 4096)
        view = memoryview(self.page)
        words64, words32 = view.cast("Q"), view.cast("I")
        self.channel = VgaChannel()
        proxy = DeviceProxy(cast(Any, self.channel), 0, "VGA", frozenset())
        self.ring = CoalescedRing(words64, words32, view, {}, room=FakeRoom())
        self.ring.open_window(VgaWrites(proxy, [(0x3C4, 2), (GRAPHICS, 2)], {}, words64, words32))
        for port, index, value in PLANAR:
            self.kernel_writes(port, bytes((index, value)), is_port=1)

    def kernel_writes(self, address: int, data: bytes, *, is_port: int = 0) -> None:
        """A write as KVM puts it into the ring, behind which is what was there before."""
        _, last = indices(self.page)
        entry = struct.pack("<QII8s", address, len(data), is_port, data + b"\xee" * (8 - len(data)))
        self.page[RING + 8 + 24 * last : RING + 32 + 24 * last] = entry
        struct.pack_into("<I", self.page, RING + 4, last + 1)

    def read(self, address: int, size: int) -> bytes:
        return bytes(self.channel.vga.read(0, address + at, 1) for at in range(size))


@pytest.mark.parametrize("size", range(1, 9))
def test_write_of_each_size_reaches_the_planes(size: int) -> None:
    rig = Rig()
    rig.kernel_writes(layout.VGA_MEMORY + 0xFFD, b"abcdefgh"[:size])
    rig.ring.drain()
    assert rig.read(layout.VGA_MEMORY + 0xFFC, 10) == (b"\0" + b"abcdefgh"[:size]).ljust(10, b"\0")
    assert (rig.ring.pending, rig.ring.writes) == (False, len(PLANAR) + 1)


def test_last_bytes_of_the_window_are_written() -> None:
    rig = Rig()
    rig.kernel_writes(GRAPHICS, b"\6\1", is_port=1)  # 128 KiB at 0xA0000
    rig.kernel_writes(layout.VGA_MEMORY + layout.VGA_MEMORY_SIZE - 3, b"xyz")
    rig.ring.drain()
    assert rig.read(layout.VGA_MEMORY + layout.VGA_MEMORY_SIZE - 3, 3) == b"xyz"


@pytest.mark.parametrize("address", [layout.VGA_MEMORY - 1, layout.VGA_MEMORY + layout.VGA_MEMORY_SIZE - 2])
def test_write_that_is_not_in_the_window_is_refused(address: int) -> None:
    rig = Rig()
    rig.kernel_writes(address, b"xyz")
    with pytest.raises(UnknownExitError, match="coalesced a write of 0x3 bytes"):
        rig.ring.drain()
