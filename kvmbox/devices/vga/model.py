"""A VGA: its registers, and its memory where that is not plain memory of the guest.

Source: IBM PS/2 Hardware Interface Technical Reference, "Video Subsystem". CRT controller, sequencer,
graphics controller, attribute controller and DAC are there. `memory_modes` has the memory.

The VMM looks at the screen by SNAPSHOT, and gives the answer to a model of its own, whose `restore` checks
it. `window` is what it asks then.

Writes that may come late, 4 bytes each at most, are written to register `layout.VGA_LATE_WRITES`, which is
on no bus, as words of 8 bytes: the value, its size at bit 32, its offset at bit 36. While the window is not
plain, no write to a register of the VGA, or to the window, is more urgent than the next read.

Registers by `offset`, which is the port less 0x3B0. The CRT controller and input status 1 answer at 0x3D4,
0x3D5 and 0x3DA, or, while bit 0 of the miscellaneous output register is 0, at 0x3B4, 0x3B5 and 0x3BA. At
power-on the registers are as a BIOS leaves them in mode 3: 80 x 25 characters of 9 x 16 dots.

The window is at the offsets that are its addresses. Time matters to input status 1 alone, and that is a
function of `now`.
"""

from __future__ import annotations

from struct import Struct

from kvmbox.base.layout import VGA_LATE_WRITES
from kvmbox.contract.model import DONE, Effect, SnapshotError, TimelessModel
from kvmbox.devices.vga.memory_modes import VgaMemory
from kvmbox.devices.vga.planes import WINDOW

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

# Offsets. The CRT controller's and input status 1 are at the first place or 0x20 further on.
CRTC_INDEX: Final = 0x04
CRTC_DATA: Final = 0x05
INPUT_STATUS_1: Final = 0x0A  # written: feature control
COLOR: Final = 0x20

# Indices of the CRT controller.
HORIZONTAL_DISPLAY_END: Final = 0x01
OVERFLOW: Final = 0x07
MAXIMUM_SCAN_LINE: Final = 0x09
CURSOR_START: Final = 0x0A
CURSOR_END: Final = 0x0B
START_HIGH: Final = 0x0C
START_LOW: Final = 0x0D
CURSOR_HIGH: Final = 0x0E
CURSOR_LOW: Final = 0x0F
VERTICAL_RETRACE_END: Final = 0x11
VERTICAL_DISPLAY_END: Final = 0x12
OFFSET: Final = 0x13

PROTECT: Final = 1 << 7  # of VERTICAL_RETRACE_END: registers 0 to 7 are read-only
LINE_COMPARE_8: Final = 1 << 4  # of OVERFLOW, and of it alone
CURSOR_OFF: Final = 1 << 5  # of CURSOR_START
CLOCKING: Final = 1  # index of the sequencer
SCREEN_OFF: Final = 1 << 5  # of CLOCKING
COLOR_ADDRESSES: Final = 1 << 0  # of the miscellaneous output register
MISCELLANEOUS: Final = 6  # index of the graphics controller
GRAPHICS_MODE: Final = 1 << 0  # of MISCELLANEOUS
MODE_CONTROL: Final = 0x10  # index of the attribute controller
BLINK: Final = 1 << 3  # of MODE_CONTROL

# What a BIOS sets for mode 3 with 400 lines.
_MISC: Final = 0x67
_SEQUENCER: Final = bytes.fromhex("03 00 03 00 02")
_CRTC: Final = bytes.fromhex("5f 4f 50 82 55 81 bf 1f 00 4f 0d 0e 00 00 00 00 9c 8e 8f 28 1f 96 b9 a3 ff")
_GRAPHICS: Final = bytes.fromhex("00 00 00 00 00 10 0e 00 ff")
_ATTRIBUTE: Final = bytes.fromhex("00 01 02 03 04 05 14 07 38 39 3a 3b 3c 3d 3e 3f 0c 00 0f 08 00")
_SHOWN: Final = 0x20  # bit 5 of the attribute controller's address: the palette drives the screen


def _ega_level(color: int, plane: int) -> int:
    """The level of one of the 64 colours of an EGA, in which bits 0 to 2 weigh two thirds, and 3 to 5 one."""
    return 42 * (color >> plane & 1) + 21 * (color >> plane + 3 & 1)


_PALETTE: Final = b"".join(
    bytes((_ega_level(color, 2), _ega_level(color, 1), _ega_level(color, 0))) for color in range(64)
) + bytes(192 * 3)

# The bits of each register that exist.
_SEQUENCER_MASK: Final = bytes.fromhex("03 3d 0f 3f 0e")
_GRAPHICS_MASK: Final = bytes.fromhex("0f 0f 0f 1f 03 7b 0f 0f ff")
_ATTRIBUTE_MASK: Final = bytes([0x3F] * 16) + bytes.fromhex("ef ff 3f 0f 0f")
_MISC_MASK: Final = 0xEF
_FEATURE_MASK: Final = 1 << 4
_PEL_MASK: Final = 0x3F  # a DAC of 6 bits shows so much of what was written; VBE has one of 8

# Input status 1. Dots at 28.322 MHz, 900 a line, 449 lines: 70.09 Hz.
LINE_NS: Final = 31_778
DISPLAY_NS: Final = 25_422  # 720 dots of the 900
LINES: Final = 449
DISPLAYED_LINES: Final = 400
NOT_DISPLAYING: Final = 1 << 0
VERTICAL_RETRACE: Final = 1 << 3

_MAGIC: Final = b"VGA\x02"  # the name and the version of the snapshot
_SNAPSHOT: Final = Struct("<4s 5s 9s 25s 21s 768s 4B 2B 6B 3s")
_READ_STATE: Final = 3  # of the DAC: the read index was written last. 0: the write index


class VgaText(TimelessModel):
    """See the module.

    >>> vga = VgaText()
    >>> vga.write(0, COLOR + CRTC_INDEX, 2, CURSOR_LOW | 81 << 8)
    >>> vga.cursor
    81
    """

    def __init__(self) -> None:
        super().__init__()
        self._power_on()

    def _power_on(self) -> None:
        self._memory = VgaMemory(bytearray(_SEQUENCER), bytearray(_GRAPHICS))
        self._crtc = bytearray(_CRTC)
        self._attribute = bytearray(_ATTRIBUTE)
        self._palette = bytearray(_PALETTE)
        self._sequencer_index = self._graphics_index = self._crtc_index = 0
        self._attribute_index = _SHOWN
        self._wants_data = 0
        """The attribute controller's flip-flop. 1: the next write to its port is data."""
        self._misc = _MISC
        self._feature = 0
        self._pel_mask = 0xFF
        self._pel_read = self._pel_write = self._pel_part = self._pel_state = 0
        self._pel_latch = bytearray(3)

    # --- What is shown, for the VMM -----------------------------------------------------------------------

    @property
    def crtc(self) -> bytes:
        """The registers of the CRT controller, which decide what of memory is shown where."""
        return bytes(self._crtc)

    @property
    def start(self) -> int:
        """Which character of the memory comes first."""
        return self._crtc[START_HIGH] << 8 | self._crtc[START_LOW]

    @property
    def cursor(self) -> int:
        """At which character of the memory the cursor is."""
        return self._crtc[CURSOR_HIGH] << 8 | self._crtc[CURSOR_LOW]

    @property
    def sequencer(self) -> bytes:
        """The registers of the sequencer."""
        return bytes(self._memory.sequencer)

    @property
    def graphics(self) -> bytes:
        """The registers of the graphics controller."""
        return bytes(self._memory.graphics)

    @property
    def attribute(self) -> bytes:
        """The registers of the attribute controller."""
        return bytes(self._attribute)

    @property
    def is_shown(self) -> bool:
        """Whether the screen is on: it is black if not."""
        return bool(self._attribute_index & _SHOWN) and not self._memory.sequencer[CLOCKING] & SCREEN_OFF

    @property
    def palette(self) -> bytes:
        """Red, green and blue of the 256 colours of the DAC as written, behind the mask of its index.

        A DAC of 6 bits shows the lower 6 of each level.
        """
        return b"".join(bytes(self._palette[3 * (index & self._pel_mask) :][:3]) for index in range(256))

    @property
    def window(self) -> VgaMemory:
        """The memory, and whose it is."""
        return self._memory

    @property
    def memory_map(self) -> int:
        """Where the guest sees the memory. 2: 32 KiB at 0xB0000. 3: 32 KiB at 0xB8000."""
        return self._memory.graphics[MISCELLANEOUS] >> 2 & 3

    @property
    def has_graphics(self) -> bool:
        """Whether the memory has dots in place of characters."""
        return bool(
            self._memory.graphics[MISCELLANEOUS] & GRAPHICS_MODE
            or self._attribute[MODE_CONTROL] & GRAPHICS_MODE
        )

    @property
    def blinks(self) -> bool:
        """Whether bit 7 of an attribute makes a character blink. If not, its background is bright."""
        return bool(self._attribute[MODE_CONTROL] & BLINK)

    @property
    def colors(self) -> list[tuple[int, int, int]]:
        """Red, green and blue, 0 to 63 each, of the 16 colours that attributes name."""
        places = [3 * (self._attribute[index] & self._pel_mask) for index in range(16)]
        levels = bytes(level & _PEL_MASK for level in self._palette)
        return [(levels[at], levels[at + 1], levels[at + 2]) for at in places]

    # --- The contract -------------------------------------------------------------------------------------

    def read(self, now: int, offset: int, size: int) -> int:
        """See DeviceModel."""
        if size == 1:
            return self._read_byte(now, offset) if offset < WINDOW else self._memory.read(offset)
        value = 0
        for position in range(size if size in (2, 4, 8) else 0):
            value |= self.read(now, offset + position, 1) << 8 * position
        return value

    def write(self, now: int, offset: int, size: int, value: int) -> None:
        """See DeviceModel."""
        if offset == VGA_LATE_WRITES:
            offset, size, value = value >> 36, value >> 32 & 7, value & 0xFFFF_FFFF
        for position in range(size if size in (1, 2, 4, 8) else 0):
            place, byte = offset + position, value >> 8 * position & 0xFF
            if place < WINDOW:
                self._write_byte(place, byte)
            else:
                self._memory.write(place, byte)

    def write_string(self, now: int, offset: int, size: int, data: bytes) -> int:
        """Make the writes of `size` bytes each in `data`, until one has an effect: how many were made."""
        words = memoryview(data).cast("Q") if offset == VGA_LATE_WRITES and size == 8 else ()
        memory, made = self._memory, 0
        while made < len(words) and not memory.has_effects:
            made += memory.write_words(words, made)
            if made < len(words) and not memory.has_effects:
                self.write(now, offset, size, words[made])
                made += 1
        return made

    def reset(self, now: int) -> None:
        """See DeviceModel. As after power-on, because the BIOS sets mode 3 again."""
        self._power_on()

    # --- Registers ----------------------------------------------------------------------------------------

    def _crtc_offset(self, offset: int) -> int:
        """Of a register with two places: its offset at the first of them; -1 for the place that is off."""
        color = COLOR if self._misc & COLOR_ADDRESSES else 0
        return offset & ~COLOR if offset & COLOR == color else -1

    def _read_byte(self, now: int, offset: int) -> int:
        match offset:
            case 0x04 | 0x05 | 0x0A | 0x24 | 0x25 | 0x2A:
                return self._read_crtc(now, self._crtc_offset(offset))
            case 0x10:
                return self._attribute_index
            case 0x11:
                index = self._attribute_index & 0x1F
                return self._attribute[index] if index < len(_ATTRIBUTE) else 0
            case 0x12:  # input status 0: no interrupt, and no sense line of a monitor
                return 0
            case 0x14:
                return self._sequencer_index
            case 0x15:
                index = self._sequencer_index
                return self._memory.sequencer[index] if index < len(_SEQUENCER) else 0
            case 0x16:
                return self._pel_mask
            case 0x17:
                return self._pel_state
            case 0x18:
                return self._pel_write
            case 0x19:
                return self._read_color()
            case 0x1A:
                return self._feature
            case 0x1C:
                return self._misc
            case 0x1E:
                return self._graphics_index
            case 0x1F:
                index = self._graphics_index
                return self._memory.graphics[index] if index < len(_GRAPHICS) else 0
        return 0xFF

    def _read_crtc(self, now: int, offset: int) -> int:
        if offset == CRTC_INDEX:
            return self._crtc_index
        if offset == CRTC_DATA:
            return self._crtc[self._crtc_index] if self._crtc_index < len(_CRTC) else 0
        if offset == INPUT_STATUS_1:
            self._wants_data = 0
            return input_status_1(now)
        return 0xFF

    def _read_color(self) -> int:
        level = self._palette[3 * self._pel_read + self._pel_part]
        self._pel_part += 1
        if self._pel_part == 3:
            self._pel_part = 0
            self._pel_read = self._pel_read + 1 & 0xFF
        return level

    def _write_byte(self, offset: int, value: int) -> None:
        match offset:
            case 0x04 | 0x05 | 0x0A | 0x24 | 0x25 | 0x2A:
                self._write_crtc(self._crtc_offset(offset), value)
            case 0x10:
                self._write_attribute(value)
            case 0x12:
                self._misc = value & _MISC_MASK
            case 0x14:
                self._sequencer_index = value & 7
            case 0x15:
                if self._sequencer_index < len(_SEQUENCER):
                    self._memory.sequencer[self._sequencer_index] = (
                        value & _SEQUENCER_MASK[self._sequencer_index]
                    )
                    self._memory.registers_changed()
            case 0x16:
                self._pel_mask = value
            case 0x17:
                self._pel_read, self._pel_part, self._pel_state = value, 0, _READ_STATE
            case 0x18:
                self._pel_write, self._pel_part, self._pel_state = value, 0, 0
            case 0x19:
                self._write_color(value)
            case 0x1E:
                self._graphics_index = value & 0x0F
            case 0x1F:
                if self._graphics_index < len(_GRAPHICS):
                    self._memory.graphics[self._graphics_index] = value & _GRAPHICS_MASK[self._graphics_index]
                    self._memory.registers_changed()

    def _write_crtc(self, offset: int, value: int) -> None:
        if offset == CRTC_INDEX:
            self._crtc_index = value
        elif offset == CRTC_DATA:
            index = self._crtc_index
            if index <= OVERFLOW and self._crtc[VERTICAL_RETRACE_END] & PROTECT:
                if index == OVERFLOW:
                    self._crtc[index] = self._crtc[index] & ~LINE_COMPARE_8 | value & LINE_COMPARE_8
            elif index < len(_CRTC):
                self._crtc[index] = value
        elif offset == INPUT_STATUS_1:
            self._feature = value & _FEATURE_MASK

    def _write_attribute(self, value: int) -> None:
        if not self._wants_data:
            self._attribute_index = value & 0x3F
        else:
            index = self._attribute_index & 0x1F
            if index < len(_ATTRIBUTE):
                self._attribute[index] = value & _ATTRIBUTE_MASK[index]
        self._wants_data ^= 1

    def _write_color(self, level: int) -> None:
        self._pel_latch[self._pel_part] = level
        self._pel_part += 1
        if self._pel_part == 3:  # a colour changes as a whole
            self._palette[3 * self._pel_write : 3 * self._pel_write + 3] = self._pel_latch
            self._pel_part = 0
            self._pel_write = self._pel_write + 1 & 0xFF

    def take_effects(self) -> list[Effect]:
        """See DeviceModel."""
        return self._memory.take_effects()

    def memory(self, now: int, tag: int, data: bytes | None) -> None:
        """See MemoryModel. Bytes that the window had as plain memory, from its offset `tag` on."""
        self._memory.take(tag, data or b"")

    def complete(self, now: int, tag: int, status: int) -> None:
        """See MemoryModel. The window is plain memory, with what the planes had there."""
        if status == DONE:
            self._memory.is_given()

    # --- Snapshots ----------------------------------------------------------------------------------------

    def snapshot(self) -> bytes:
        """See DeviceModel."""
        registers = _SNAPSHOT.pack(
            _MAGIC,
            self._memory.sequencer,
            self._memory.graphics,
            self._crtc,
            self._attribute,
            self._palette,
            *(self._sequencer_index, self._graphics_index, self._crtc_index, self._attribute_index),
            *(self._wants_data, self._misc),
            *(self._feature, self._pel_mask, self._pel_read, self._pel_write),
            *(self._pel_part, self._pel_state),
            self._pel_latch,
        )
        return registers + self._memory.snapshot()

    def restore(self, state: bytes) -> None:
        """See DeviceModel."""
        if state[:4] != _MAGIC or len(state) < _SNAPSHOT.size:
            raise SnapshotError("not a snapshot of a VGA of this version")
        _, sequencer, graphics, crtc, attribute, palette, *numbers, latch = _SNAPSHOT.unpack_from(state)
        at_sequencer, at_graphics, at_crtc, at_attribute, wants_data, misc = numbers[:6]
        feature, pel_mask, pel_read, pel_write, pel_part, pel_state = numbers[6:]
        if (
            _beyond(sequencer, _SEQUENCER_MASK)
            or _beyond(graphics, _GRAPHICS_MASK)
            or _beyond(attribute, _ATTRIBUTE_MASK)
            or at_sequencer > 7
            or at_graphics > 0x0F
            or at_attribute > 0x3F
            or wants_data > 1
            or misc & ~_MISC_MASK
            or feature & ~_FEATURE_MASK
            or pel_part > 2
            or pel_state not in (0, _READ_STATE)
        ):
            raise SnapshotError("a state that a VGA cannot have")
        memory = VgaMemory(bytearray(sequencer), bytearray(graphics))
        memory.restore(state[_SNAPSHOT.size :])
        self._memory = memory
        self._crtc, self._attribute = bytearray(crtc), bytearray(attribute)
        self._palette, self._pel_latch = bytearray(palette), bytearray(latch)
        self._sequencer_index, self._graphics_index = at_sequencer, at_graphics
        self._crtc_index, self._attribute_index = at_crtc, at_attribute
        self._wants_data, self._misc, self._feature = wants_data, misc, feature
        self._pel_mask, self._pel_read, self._pel_write = pel_mask, pel_read, pel_write
        self._pel_part, self._pel_state = pel_part, pel_state


def _beyond(registers: bytes, masks: bytes) -> bool:
    """Whether a register has a bit that does not exist."""
    return any(value & ~mask for value, mask in zip(registers, masks, strict=True))


def input_status_1(now: int) -> int:
    """Input status 1 at guest time `now`, in ns: whether the beam is in a blank, and in a vertical one.

    The bit of the vertical retrace is set for the 49 lines of the vertical blank, 1.6 ms of each 14.3 ms. On
    a VGA it is set for 2 lines of them, 64 µs: a guest whose reads take longer would miss most of these.
    """
    line, position = divmod(now % (LINES * LINE_NS), LINE_NS)
    if line >= DISPLAYED_LINES:
        return NOT_DISPLAYING | VERTICAL_RETRACE
    return NOT_DISPLAYING if position >= DISPLAY_NS else 0
