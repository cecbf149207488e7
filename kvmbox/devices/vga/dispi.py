"""The display interface of Bochs (DISPI): linear modes of any size, by an index and a data port of 16 bits.

Source: the Bochs VBE Display API (IDs B0C0 to B0C5), and "QEMU Standard VGA" (docs/specs/standard-vga.rst).

The dots are not here: the frame buffer is memory of the guest. Effects say which of it the guest sees at
0xA0000, and how much of it a new mode clears. The VMM asks for the registers by SNAPSHOT, as for those of the
VGA, and shows what they say.

Sizes are brought into range while the interface is enabled, so that there is memory for every line that is
shown. A depth that does not exist counts as 8, and so does 4, whose dots would be in planes.

The data port is at an odd address, where the bus asks for a word in two bytes, the lower one first. It has a
second place behind that, which is even: a doubleword to the index reaches both. Other byte accesses reach no
register.
"""

from __future__ import annotations

from struct import Struct

from kvmbox.contract.bulk_data import FrameBuffer
from kvmbox.contract.model import SnapshotError, TimelessModel
from kvmbox.contract.port_model import check_snapshot

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

# Offsets.
INDEX_PORT: Final = 0
DATA_LOW: Final = 1  # a byte; the upper one is at DATA_PORT
DATA_PORT: Final = 2

# Indices.
ID: Final = 0
XRES: Final = 1
YRES: Final = 2
BPP: Final = 3
ENABLE: Final = 4
BANK: Final = 5
VIRT_WIDTH: Final = 6
VIRT_HEIGHT: Final = 7
X_OFFSET: Final = 8
Y_OFFSET: Final = 9
VIDEO_MEMORY_64K: Final = 10
_COUNT: Final = 10  # registers that hold something

# Bits of ENABLE.
ENABLED: Final = 1 << 0
GETCAPS: Final = 1 << 1  # XRES, YRES and BPP read as the most that there is
DAC_8_BITS: Final = 1 << 5
LINEAR: Final = 1 << 6  # the frame buffer is linear: it always is
NO_CLEAR: Final = 1 << 7

FIRST_ID: Final = 0xB0C0
LAST_ID: Final = 0xB0C5
MOST_COLUMNS: Final = 16000
MOST_ROWS: Final = 12000
MOST_BITS: Final = 32
MEMORY: Final = 16 << 20
"""Bytes of the frame buffer."""
BANK_SIZE: Final = 64 << 10
BANKS: Final = MEMORY // BANK_SIZE
"""The memory in pieces that 0xA0000 has room for."""

_STORED_BITS: Final = {8: 8, 15: 16, 16: 16, 24: 24, 32: 32}
_USUAL_DEPTH: Final = 8
_WIDTH_STEP: Final = 8

_MAGIC: Final = b"VBE\x01"  # the name and the version of the snapshot
_SNAPSHOT: Final = Struct(f"<4s H B {_COUNT}H")


class VbeDispi(TimelessModel):
    """See the module.

    >>> dispi = VbeDispi()
    >>> for index, value in ((XRES, 640), (YRES, 480), (BPP, 32), (ENABLE, ENABLED)):
    ...     dispi.write(0, INDEX_PORT, 2, index)
    ...     dispi.write(0, DATA_PORT, 2, value)
    >>> dispi.pitch
    2560
    """

    __slots__ = ("_index", "_low", "_registers")

    def __init__(self) -> None:
        super().__init__()
        self.reset(0)

    # --- What is shown, for the VMM -----------------------------------------------------------------------

    @property
    def is_enabled(self) -> bool:
        """Whether the frame buffer is shown, and not what the registers of the VGA say."""
        return bool(self._registers[ENABLE] & ENABLED)

    @property
    def size(self) -> tuple[int, int]:
        """Columns and rows, meaningful while it is enabled, as all that follows."""
        return self._registers[XRES], self._registers[YRES]

    @property
    def depth(self) -> int:
        """Bits of a dot: 8, 15, 16, 24 or 32."""
        return self._registers[BPP]

    @property
    def pitch(self) -> int:
        """Bytes from a line to the next one."""
        return self._registers[VIRT_WIDTH] * self._bits() // 8

    @property
    def start(self) -> int:
        """The first byte of the frame buffer that is shown. All that is shown is inside of it."""
        bytes_before = self._registers[X_OFFSET] * self._bits() // 8
        return bytes_before + self._registers[Y_OFFSET] * self.pitch

    @property
    def has_wide_dac(self) -> bool:
        """Whether the levels of the VGA's DAC have 8 bits, and not 6."""
        return bool(self._registers[ENABLE] & DAC_8_BITS)

    @property
    def bank(self) -> int | None:
        """Which piece of the frame buffer is at 0xA0000, None for none: as the last effect said."""
        return self._registers[BANK] if self.is_enabled else None

    # --- The contract -------------------------------------------------------------------------------------

    def read(self, now: int, offset: int, size: int) -> int:
        """See DeviceModel."""
        if (offset, size) == (INDEX_PORT, 2):
            return self._index
        if (offset, size) == (DATA_PORT, 2):
            return self._read_data()
        if (offset, size) == (INDEX_PORT, 4):
            return self._index | self._read_data() << 16
        if (offset, size) == (DATA_LOW, 1):
            return self._read_data() & 0xFF
        if (offset, size) == (DATA_PORT, 1):
            return self._read_data() >> 8
        return (1 << 8 * size) - 1

    def write(self, now: int, offset: int, size: int, value: int) -> None:
        """See DeviceModel."""
        if (offset, size) == (INDEX_PORT, 2):
            self._index = value & 0xFFFF
        elif (offset, size) == (DATA_PORT, 2):
            self._write_data(value & 0xFFFF)
        elif (offset, size) == (INDEX_PORT, 4):
            self._index = value & 0xFFFF
            self._write_data(value >> 16 & 0xFFFF)
        elif (offset, size) == (DATA_LOW, 1):
            self._low = value & 0xFF
        elif (offset, size) == (DATA_PORT, 1):
            self._write_data(value << 8 & 0xFF00 | self._low)

    def reset(self, now: int) -> None:
        """See DeviceModel. The VMM, which resets the machine, takes the frame buffer from 0xA0000 itself."""
        self._index = self._low = 0
        self._registers = [0] * _COUNT
        self._registers[ID] = LAST_ID

    # --- Registers ----------------------------------------------------------------------------------------

    def _read_data(self) -> int:
        index = self._index
        if self._registers[ENABLE] & GETCAPS and index in (XRES, YRES, BPP):
            return {XRES: MOST_COLUMNS, YRES: MOST_ROWS, BPP: MOST_BITS}[index]
        if index == VIDEO_MEMORY_64K:
            return BANKS
        return self._registers[index] if index < _COUNT else 0

    def _write_data(self, value: int) -> None:
        index = self._index
        if index == ID:
            if FIRST_ID <= value <= LAST_ID:
                self._registers[ID] = value
        elif index == BANK:
            self._registers[BANK] = value % BANKS
            if self.is_enabled:
                self._show()
        elif index == ENABLE:
            self._enable(value)
        elif index in (XRES, YRES, BPP, VIRT_WIDTH, X_OFFSET, Y_OFFSET):
            self._registers[index] = value
            self._fit()

    def _enable(self, value: int) -> None:
        was_enabled = self.is_enabled
        self._registers[ENABLE] = value
        if self.is_enabled and not was_enabled:
            self._registers[VIRT_WIDTH] = self._registers[X_OFFSET] = self._registers[Y_OFFSET] = 0
            self._fit()
            self._show(0 if value & NO_CLEAR else self._registers[YRES] * self.pitch)
        elif was_enabled and not self.is_enabled:
            self._show()

    def _show(self, clear: int = 0) -> None:
        self._effects.append(FrameBuffer(self._registers[BANK], int(self.is_enabled), clear))

    def _fit(self) -> None:
        """Bring the registers into the range of what can be shown, if anything is."""
        if not self.is_enabled:
            return
        registers = self._registers
        if registers[BPP] not in _STORED_BITS:
            registers[BPP] = _USUAL_DEPTH
        width = min(registers[XRES], MOST_COLUMNS) & -_WIDTH_STEP
        registers[XRES] = width or _WIDTH_STEP
        wanted = min(registers[VIRT_WIDTH], MOST_COLUMNS) & -_WIDTH_STEP
        registers[VIRT_WIDTH] = max(wanted, registers[XRES])
        lines = MEMORY // self.pitch
        registers[YRES] = max(min(registers[YRES], MOST_ROWS, lines), 1)
        registers[X_OFFSET] = min(registers[X_OFFSET], MOST_COLUMNS)
        registers[Y_OFFSET] = min(registers[Y_OFFSET], MOST_ROWS)
        for index in (Y_OFFSET, X_OFFSET):
            if self.start + registers[YRES] * self.pitch > MEMORY:
                registers[index] = 0
        registers[VIRT_HEIGHT] = lines & 0xFFFF

    def _bits(self) -> int:
        return _STORED_BITS.get(self._registers[BPP], _USUAL_DEPTH)

    # --- Snapshots ----------------------------------------------------------------------------------------

    def snapshot(self) -> bytes:
        """See DeviceModel."""
        return _SNAPSHOT.pack(_MAGIC, self._index, self._low, *self._registers)

    def restore(self, state: bytes) -> None:
        """See DeviceModel. Nothing is shown by that: see `bank`."""
        check_snapshot(state, _MAGIC, _SNAPSHOT.size)
        _, index, low, *registers = _SNAPSHOT.unpack(state)
        fitting = VbeDispi()
        fitting._registers = registers.copy()
        fitting._fit()
        is_good = FIRST_ID <= registers[ID] <= LAST_ID and registers[BANK] < BANKS
        if not is_good or fitting._registers != registers:
            raise SnapshotError("registers that a display interface cannot have")
        self._index, self._low, self._registers = index, low, registers
