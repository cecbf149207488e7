"""The memory of a VGA: four planes of 64 KiB, and what lies between them and the guest's accesses.

Source: IBM PS/2 Hardware Interface Technical Reference, "Video Subsystem": "Graphics Controller",
"Sequencer", "Display Memory". The planes are kept as 65536 words of 32 bits, byte p of which is of plane p.

Ways of access
--------------
- *planar*: an access is to all planes at once, by latches, write modes 0 to 3 and read modes 0 and 1.
- *odd/even*: bit 0 of the address leaves the even or the odd planes (for writes sequencer 4, bit 2; for reads
  graphics controller 5, bit 4), and is 0 in a plane (graphics controller 6, bit 1). Text is this.
- *chained*: bits 0 and 1 of the address choose the plane, and are 0 in it (sequencer 4, bit 3). Only the map
  mask says more of what is written, and reads load no latch, as on QEMU's VGA.

So a byte in text is at every second address of its plane, and one of mode 13h at every fourth: the CRT
controller counts its addresses in the same way (`parts.screen.vga_picture`).

Plain memory
------------
Where a byte of the guest's window is just one byte of a plane, the guest needs nobody to access it: the
window can be plain memory. `plain_way` says when. `gather` and `scatter` move bytes between planes and such a
window, for the moment when the one becomes the other.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final, TypeAlias

    Way: TypeAlias = tuple[int, int, int, int]

PLANES_SIZE: Final = 1 << 18
WINDOW: Final = 0xA0000
WINDOW_SIZE: Final = 0x20000

# Indices of the sequencer and of the graphics controller.
MAP_MASK: Final = 2
MEMORY_MODE: Final = 4
SET_RESET: Final = 0
ENABLE_SET_RESET: Final = 1
COLOR_COMPARE: Final = 2
ROTATE: Final = 3
READ_MAP: Final = 4
MODE: Final = 5
MISCELLANEOUS: Final = 6
COLOR_DONT_CARE: Final = 7
BIT_MASK: Final = 8

CHAIN_4: Final = 1 << 3  # of MEMORY_MODE
SEQUENTIAL: Final = 1 << 2  # of MEMORY_MODE: no odd/even writes
ODD_EVEN: Final = 1 << 4  # of MODE: of reads
READ_MODE_1: Final = 1 << 3  # of MODE
CHAIN_ODD_EVEN: Final = 1 << 1  # of MISCELLANEOUS

CHAINED_WAY, ODD_EVEN_WAY, PLANE_WAY = range(3)

_WINDOWS: Final = ((0xA0000, 0x20000), (0xA0000, 0x10000), (0xB0000, 0x8000), (0xB8000, 0x8000))
"""Address and size of the window, by bits 2 and 3 of MISCELLANEOUS."""
_CGA_WINDOW: Final = 3

TEXT_WAY: Final = (ODD_EVEN_WAY, *_WINDOWS[_CGA_WINDOW], 0)
"""That of mode 3."""

_EACH: Final = 0x01010101  # a byte in each plane
_PLANES: Final = tuple(
    sum(0xFF << 8 * plane for plane in range(4) if value >> plane & 1) for value in range(16)
)
"""All bits of the planes whose bit is set."""
_ALL: Final = 0xFFFF_FFFF
_EVEN_PLANES: Final = 0x05
_ODD_PLANES: Final = 0x0A


def window_of(graphics: bytes | bytearray) -> tuple[int, int]:
    """Address and size of the window in which the guest sees the memory."""
    return _WINDOWS[graphics[MISCELLANEOUS] >> 2 & 3]


def plain_way(sequencer: bytes | bytearray, graphics: bytes | bytearray) -> Way | None:
    """How the window could be plain memory: the way, its address and size, and the plane of PLANE_WAY; or
    None, where accesses mean more than that.

    A window of 128 KiB never is: nobody uses it so.
    """
    choice = graphics[MISCELLANEOUS] >> 2 & 3
    first, size = _WINDOWS[choice]
    mask, plane, mode = sequencer[MAP_MASK], graphics[READ_MAP], sequencer[MEMORY_MODE]
    if choice == 0:
        return None
    if mode & CHAIN_4:
        return (CHAINED_WAY, first, size, 0) if mask == 0x0F else None
    if (
        graphics[ENABLE_SET_RESET] & mask
        or graphics[ROTATE]
        or graphics[MODE] & (READ_MODE_1 | 3)
        or graphics[BIT_MASK] != 0xFF
    ):
        return None
    pairs = graphics[MODE] & ODD_EVEN, graphics[MISCELLANEOUS] & CHAIN_ODD_EVEN
    if not mode & SEQUENTIAL and all(pairs):
        return (ODD_EVEN_WAY, first, size, 0) if mask == 3 and not plane & 2 else None
    # Mode 6. In other windows, programs change planes all the time.
    is_one_plane = choice == _CGA_WINDOW and mode & SEQUENTIAL and not any(pairs) and mask == 1 << plane
    return (PLANE_WAY, first, size, plane) if is_one_plane else None


def is_way(way: tuple[int, ...]) -> bool:
    """Whether the registers could make a window plain in this way."""
    kind, first, size, plane = way
    in_any = (first, size) in _WINDOWS[1:] and not plane
    return (kind in (CHAINED_WAY, ODD_EVEN_WAY) and in_any) or (
        kind == PLANE_WAY and (first, size) == _WINDOWS[_CGA_WINDOW] and plane < 4
    )


class Planes:
    """The memory, with the latches. `sequencer` and `graphics` are the registers, which the owner changes."""

    def __init__(self, sequencer: bytearray, graphics: bytearray) -> None:
        self._sequencer, self._graphics = sequencer, graphics
        self.data = bytearray(PLANES_SIZE)
        self._words = memoryview(self.data).cast("I")
        self._pairs = memoryview(self.data).cast("Q")
        self.latch = 0

    # --- Accesses of the guest ----------------------------------------------------------------------------

    def read(self, address: int) -> int:
        """What the guest reads at an address of 0xA0000 to 0xBFFFF; ones outside of the window."""
        graphics = self._graphics
        first, size = window_of(graphics)
        offset = address - first
        if not 0 <= offset < size:
            return 0xFF
        if self._sequencer[MEMORY_MODE] & CHAIN_4:
            return self.data[(offset & 0xFFFC) << 2 | offset & 3]
        plane = graphics[READ_MAP]
        if graphics[MODE] & ODD_EVEN:
            plane = plane & 2 | offset & 1
        if graphics[MISCELLANEOUS] & CHAIN_ODD_EVEN:
            offset &= ~1
        self.latch = latch = self._words[offset & 0xFFFF]
        if not graphics[MODE] & READ_MODE_1:
            return latch >> 8 * plane & 0xFF
        differs = (latch ^ _PLANES[graphics[COLOR_COMPARE]]) & _PLANES[graphics[COLOR_DONT_CARE]]
        differs |= differs >> 16
        return ~(differs | differs >> 8) & 0xFF

    def write(self, address: int, value: int) -> None:
        """The guest writes a byte there."""
        graphics, mask = self._graphics, self._sequencer[MAP_MASK]
        first, size = window_of(graphics)
        offset = address - first
        if not 0 <= offset < size:
            return
        mode = self._sequencer[MEMORY_MODE]
        if mode & CHAIN_4:
            if mask >> (offset & 3) & 1:
                self.data[(offset & 0xFFFC) << 2 | offset & 3] = value
            return
        if not mode & SEQUENTIAL:
            mask &= _ODD_PLANES if offset & 1 else _EVEN_PLANES
        if graphics[MISCELLANEOUS] & CHAIN_ODD_EVEN:
            offset &= ~1
        offset &= 0xFFFF
        planes = _PLANES[mask]
        self._words[offset] = self._words[offset] & ~planes | self._written(value) & planes

    def write_words(self, words: Sequence[int], start: int, most: int) -> tuple[int, int]:
        """Make planar writes, each in a word: value, size at bit 32, address at bit 36. From number `start`
        on, as far as they are to the window, and until `most` bytes. How many writes and bytes that were.

        What a value gives is the same for all of them, as only reads change the latch.
        """
        graphics, mask = self._graphics, self._sequencer[MAP_MASK]
        simple = self._sequencer[MEMORY_MODE] & (CHAIN_4 | SEQUENTIAL) == SEQUENTIAL
        first, size = window_of(graphics)
        if not simple or graphics[MISCELLANEOUS] & CHAIN_ODD_EVEN or size > PLANES_SIZE // 4:
            return 0, 0
        keeps, planes = ~_PLANES[mask] & _ALL, self._words
        written: dict[int, int] = {}
        pairs: dict[int, int] = {}
        done = 0
        for number in range(start, len(words)):
            word = words[number]
            offset, length = (word >> 36) - first, word >> 32 & 7
            if not 0 <= offset <= size - length or done >= most:
                return number - start, done
            done += length
            if length == 2 and not offset & 1 and not keeps:  # what fills a screen
                value = word & 0xFFFF
                data = pairs.get(value)
                if data is None:
                    data = self._written(value & 0xFF) | self._written(value >> 8) << 32
                    pairs[value] = data
                self._pairs[offset >> 1] = data
                continue
            for place in range(offset, offset + length):
                value = word & 0xFF
                data = written.get(value)
                if data is None:
                    data = written[value] = self._written(value) & ~keeps
                planes[place] = planes[place] & keeps | data if keeps else data
                word >>= 8
        return len(words) - start, done

    def _written(self, value: int) -> int:
        """What a planar write of `value` gives to all planes: by write mode, function and bit mask."""
        graphics = self._graphics
        mode = graphics[MODE] & 3
        if mode == 1:
            return self.latch
        bits = graphics[BIT_MASK]
        if mode == 2:
            data = _PLANES[value & 0x0F]
        else:
            count = graphics[ROTATE] & 7
            value = (value >> count | value << 8 - count) & 0xFF
            fixed = _PLANES[graphics[SET_RESET]]
            if mode == 3:
                data, bits = fixed, bits & value
            else:
                is_fixed = _PLANES[graphics[ENABLE_SET_RESET]]
                data = value * _EACH & ~is_fixed | fixed & is_fixed
        match graphics[ROTATE] >> 3:
            case 1:
                data &= self.latch
            case 2:
                data |= self.latch
            case 3:
                data ^= self.latch
        bits *= _EACH
        return data & bits | self.latch & (bits ^ _ALL)

    # --- A window of plain memory -------------------------------------------------------------------------

    def gather(self, way: Way) -> bytes:
        """The bytes of a window of plain memory."""
        kind, _, size, plane = way
        window = bytearray(size)
        for start, step, place in _strides(kind, plane):
            window[start::step] = self.data[place : 4 * size : 4 * step]
        return bytes(window)

    def scatter(self, way: Way, offset: int, data: bytes) -> None:
        """Bytes of such a window, from `offset` on, go to the planes. It is a multiple of 4, as their number
        is.
        """
        kind, _, size, plane = way
        end = offset + len(data)
        if not (offset | end) & 3 and 0 <= offset < end <= size:
            for start, step, place in _strides(kind, plane):
                self.data[4 * offset + place : 4 * end : 4 * step] = data[start::step]


def _strides(kind: int, plane: int) -> list[tuple[int, int, int]]:
    """Which bytes of a window are in which plane: the first one, how far the next is, and the plane."""
    if kind == PLANE_WAY:
        return [(0, 1, plane)]
    step = 4 if kind == CHAINED_WAY else 2
    return [(number, step, number) for number in range(step)]
