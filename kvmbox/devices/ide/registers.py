"""The task file of an ATA drive: its registers, their bits, and the previous content of those of 16 bits.

Sources: ATA/ATAPI-6 (T13/1410D), 5.2 and 7; SFF-8020i for the interrupt reason. The LBA and count registers
are two deep: a write moves the content to the *previous* one, which HOB shows (ATA/ATAPI-6, 6.20).
"""

from __future__ import annotations

from struct import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

# Registers by their offset in the model.
DATA: Final = 0
ERROR: Final = 1  # read
FEATURES: Final = 1  # written
COUNT: Final = 2  # INTERRUPT_REASON of a packet device
LBA_LOW: Final = 3
LBA_MID: Final = 4  # the low byte of the byte count of a packet device
LBA_HIGH: Final = 5
DEVICE: Final = 6
STATUS: Final = 7  # read
COMMAND: Final = 7  # written
CONTROL: Final = 8  # written; reads as the alternate status
REGISTER_COUNT: Final = 9

# Status.
ERR: Final = 1 << 0
DRQ: Final = 1 << 3
DSC: Final = 1 << 4
DRDY: Final = 1 << 6
BSY: Final = 1 << 7
READY: Final = DRDY | DSC

# Error. A packet device has its sense key in bits 7:4.
ABRT: Final = 1 << 2
IDNF: Final = 1 << 4
UNC: Final = 1 << 6
PASSED: Final = 1
"""The result of a diagnosis."""

# Device.
HEAD: Final = 0x0F
DEV: Final = 1 << 4
LBA: Final = 1 << 6
ALWAYS: Final = 0xA0  # obsolete bits that read as 1

# Device control.
NIEN: Final = 1 << 1
SRST: Final = 1 << 2
HOB: Final = 1 << 7
CONTROL_BITS: Final = NIEN | SRST | HOB

# Interrupt reason.
COMMAND_PACKET: Final = 1 << 0  # C/D
TO_HOST: Final = 1 << 1  # I/O

DISK_SIGNATURE: Final = (0x00, 0x00)
PACKET_SIGNATURE: Final = (0x14, 0xEB)
NO_DRIVE_SIGNATURE: Final = (0xFF, 0xFF)

_TASK: Final = Struct("<13B")
TASK_SIZE: Final = _TASK.size


class TaskFile:
    """Registers of one drive. `recent` and `previous` are FEATURES to LBA_HIGH, in this order."""

    __slots__ = ("device", "error", "previous", "recent", "status")

    def __init__(self) -> None:
        self.recent = [0, 0, 0, 0, 0]
        self.previous = [0, 0, 0, 0, 0]
        self.device = ALWAYS
        self.error = 0
        self.status = 0

    def write(self, offset: int, value: int) -> None:
        """The host writes one of FEATURES to LBA_HIGH."""
        self.previous[offset - 1] = self.recent[offset - 1]
        self.recent[offset - 1] = value

    def register(self, offset: int) -> int:
        """The recent content of one of FEATURES to LBA_HIGH."""
        return self.recent[offset - 1]

    def set_register(self, offset: int, value: int) -> None:
        """The drive sets the recent content of a register to the low byte of `value`."""
        self.recent[offset - 1] = value & 0xFF

    def sign(self, signature: tuple[int, int]) -> None:
        """Say which kind of drive this is (ATA/ATAPI-6, 9.12)."""
        self.recent[1:] = 1, 1, *signature

    def count(self, wide: bool) -> int:
        """The sectors of a command: 0 stands for 256, or of a `wide` (48-bit) command for 65536."""
        if wide:
            return self.previous[1] << 8 | self.recent[1] or 1 << 16
        return self.recent[1] or 1 << 8

    def lba(self, wide: bool) -> int:
        """The address of 48 bits if `wide`, else of 28."""
        low, mid, high = self.recent[2:]
        low_24 = high << 16 | mid << 8 | low
        if not wide:
            return (self.device & HEAD) << 24 | low_24
        low, mid, high = self.previous[2:]
        return high << 40 | mid << 32 | low << 24 | low_24

    def set_lba(self, lba: int, wide: bool) -> None:
        """Set the address of 48 bits if `wide`, else of 28."""
        self.recent[2:] = lba.to_bytes(6, "little")[:3]
        if wide:
            self.previous[2:] = lba.to_bytes(6, "little")[3:]
        else:
            self.device = self.device & ~HEAD | lba >> 24 & HEAD

    @property
    def byte_count(self) -> int:
        """What the byte count registers of a packet device say."""
        return self.recent[4] << 8 | self.recent[3]

    @byte_count.setter
    def byte_count(self, size: int) -> None:
        self.recent[3:] = size & 0xFF, size >> 8

    def pack(self) -> bytes:
        """All registers, `TASK_SIZE` bytes."""
        return _TASK.pack(*self.recent, *self.previous, self.device, self.error, self.status)

    def unpack(self, state: bytes) -> None:
        """Become what `pack` saw."""
        *registers, self.device, self.error, self.status = _TASK.unpack(state)
        self.recent, self.previous = registers[:5], registers[5:]
