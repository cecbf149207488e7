"""The writes in a ring while the window of a VGA is out of guest memory: loaded by `vga_window_switch`.

Consecutive writes to the VGA, to its ports or to the window, are one request: a string of words of 8 bytes to
the register of late writes (`devices.vga.model`). Of other devices each write is a request of its own. The
rules are those of `coalesced_ring`: an entry leaves the ring when its device has answered.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from kvmbox.base import layout
from kvmbox.base.errors import UnknownExitError
from kvmbox.remote.channel.deadlines import REPLY_SLICES
from kvmbox.run.vcpu.coalesced_ring import BYTE_TO_PORT, ENTRIES, RING_WORD, Ways

if TYPE_CHECKING:
    from kvmbox.remote.bus.proxy import DeviceProxy

_TO_PORT: Final = 1 << 32  # of a shape
_WORD: Final = 8
_WHOLE: Final = (1, 2, 4)
"""The sizes of writes that the device takes as they are. KVM splits one where a page ends, so that the pieces
have any size up to 8: those of 3, 5, 6 and 7 bytes go byte by byte.
"""
_ONES: Final = {size: (1 << 8 * size) - 1 for size in _WHOLE}


class VgaWrites:
    """See `coalesced_ring.LateList`."""

    def __init__(
        self,
        proxy: DeviceProxy,
        ports: Sequence[tuple[int, int]],
        zones: Mapping[int, tuple[DeviceProxy, int]],
        words64: memoryview,
        words32: memoryview,
    ) -> None:
        """`proxy` is the VGA, and `ports` of it, first and count, are in the ring beside `zones`. The rest is
        that of `CoalescedRing`.
        """
        self._proxy = proxy
        self._ports = {first + number for first, count in ports for number in range(count)}
        self._zones = zones
        self._words64, self._words32 = words64, words32

    def give(self, first: int, last: int, ways: Ways) -> int:
        """See LateList. Raises DeviceProcessError, and UnknownExitError for a write that nobody asked for."""
        late, count = self._late(first, last)
        if count:
            self._give_list(late, waits=ways(self._proxy)[0] == self._proxy.write_run)
        else:
            count, at = 1, RING_WORD + 1 + 3 * first
            proxy, register = self._zones[self._words64[at]]
            ways(proxy)[0](register, bytes((self._words64[at + 2] & 0xFF,)))
        self._words32[2 * RING_WORD] = (first + count) % ENTRIES
        return count

    def _give_list(self, late: list[int], *, waits: bool) -> None:
        """Give these words; as long as it takes if it `waits`, as vCPU threads do."""
        data = struct.pack(f"<{len(late)}Q", *late)
        self._proxy.count(False, len(late))
        channel, index = self._proxy.channel, self._proxy.index
        channel.write_string(
            index, layout.VGA_LATE_WRITES, _WORD, data, slices=None if waits else REPLY_SLICES
        )

    def _late(self, first: int, last: int) -> tuple[list[int], int]:
        """The words of the writes to the VGA with which the ring begins, and how many writes they are."""
        late: list[int] = []
        count = 0
        end = last if last > first else ENTRIES
        words = self._words64[RING_WORD + 1 + 3 * first : RING_WORD + 1 + 3 * end].tolist()
        addresses, shapes, values = words[0::3], words[1::3], words[2::3]
        size = shapes[0]
        if size in _WHOLE and shapes.count(size) == len(shapes) and self._is_window(addresses, size):
            ones, rest = _ONES[size], size << 32
            late = [value & ones | rest | at << 36 for at, value in zip(addresses, values, strict=True)]
            return late, len(late)
        for address, shape, value in zip(addresses, shapes, values, strict=True):
            offset = self._offset(address, shape)
            if offset < 0:
                break
            size = shape & 0xFF
            count += 1
            if size in _WHOLE:
                late.append(value & _ONES[size] | size << 32 | offset << 36)
            elif size == _WORD:  # two of half the size
                late.append(value & 0xFFFF_FFFF | 4 << 32 | offset << 36)
                late.append(value >> 32 | 4 << 32 | offset + 4 << 36)
            else:
                late += [value >> 8 * at & 0xFF | 1 << 32 | offset + at << 36 for at in range(size)]
        return late, count

    @staticmethod
    def _is_window(addresses: list[int], size: int) -> bool:
        """Whether all of these writes, of `size` bytes each, are to the window."""
        last = layout.VGA_MEMORY + layout.VGA_MEMORY_SIZE - size
        return min(addresses) >= layout.VGA_MEMORY and max(addresses) <= last

    def _offset(self, address: int, shape: int) -> int:
        """Where in the VGA a write goes; -1 for one to another device."""
        size = shape & ~_TO_PORT
        if 0 < size <= _WORD:
            if not shape & _TO_PORT:
                if 0 <= address - layout.VGA_MEMORY <= layout.VGA_MEMORY_SIZE - size:
                    return address
            elif address in self._ports:
                return address - layout.VGA_FIRST_PORT
            elif address in self._zones and shape == BYTE_TO_PORT:
                proxy, register = self._zones[address]
                return register if proxy is self._proxy else -1
        raise UnknownExitError(
            f"KVM coalesced a write of {size:#x} bytes to {address:#x}, which it was not asked for"
        )
