"""The disks of the built-in BIOS: sectors, moved between them and guest memory when the BIOS asks for them.

Theory of operation
-------------------
Nine registers of four bytes. The BIOS stores the number of a drive, the first sector, the number of sectors
and a guest-physical address, and gives a command. The device asks the VMM for one `Transfer` and is busy
until the VMM says how it went. No sector passes through this model, which sees numbers only.

    0x00  LBA       first sector, the low 32 bits
    0x04  COUNT     how many sectors
    0x08  ADDRESS   where to or from, guest-physical
    0x0c  COMMAND   1: READ, 2: WRITE; reads as 0
    0x10  STATUS    0 idle, 1 busy, 2 + status (`kvmbox.contract.model`) of the last command, 16 protected
    0x14  SECTORS   how many sectors the drive has, the low 32 bits
    0x18  LBA_HIGH  the high 32 bits of LBA
    0x1c  SECTORS_HIGH
    0x20  DRIVE     which drive: its resource

A sector has 512 bytes, also of a CD. Sectors of a drive that does not exist are none. A command is ignored
while another one is under way, and registers may change meanwhile without effect. What reaches beyond the
drive, or has more sectors than one transfer may move, is BEYOND_END at once.
"""

from __future__ import annotations

import struct

from kvmbox.base.layout import SECTOR_SIZE
from kvmbox.contract.model import BEYOND_END, DONE, SnapshotError, TimelessModel, Transfer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Final

MAX_SECTORS: Final = 2048
"""What one command may move: 1 MiB."""

LBA: Final = 0x00
COUNT: Final = 0x04
ADDRESS: Final = 0x08
COMMAND: Final = 0x0C
STATUS: Final = 0x10
SECTORS: Final = 0x14
LBA_HIGH: Final = 0x18
SECTORS_HIGH: Final = 0x1C
DRIVE: Final = 0x20

READ: Final = 1
WRITE: Final = 2

IDLE: Final = 0
BUSY: Final = 1
RESULT: Final = 2
PROTECTED: Final = 16

_LAST_RESULT: Final = RESULT + 5  # model.BUSY
_TAGS: Final = 1 << 32

_WRITABLE: Final = (LBA, COUNT, ADDRESS, LBA_HIGH, DRIVE)
_DRIVE: Final = struct.Struct("<Q?")  # sectors, whether it can be written
_SNAPSHOT: Final = struct.Struct("<4s7I")
_SNAPSHOT_MAGIC: Final = b"BDK\x02"


def pack_drives(drives: Iterable[tuple[int, bool]]) -> bytes:
    """The parameter `drives`: how many sectors each drive has, and whether it can be written."""
    return b"".join(_DRIVE.pack(sectors, writable) for sectors, writable in drives)


class BootDisk(TimelessModel):
    """See the module.

    >>> disk = BootDisk(drives=pack_drives([(4, False)]))
    >>> for register, value in ((LBA, 1), (COUNT, 2), (ADDRESS, 0x7E00), (COMMAND, READ)):
    ...     disk.write(0, register, 4, value)
    >>> disk.take_effects()
    [Transfer(tag=1, resource=0, offset=512, ranges=[(32256, 1024)], to_guest=1)]
    >>> disk.read(0, STATUS, 4)
    1
    >>> disk.complete(0, 1, DONE)
    >>> disk.read(0, STATUS, 4)
    2
    """

    __slots__ = ("_drives", "_registers", "_status", "_tag")

    def __init__(self, *, drives: bytes) -> None:
        """`drives` is what `pack_drives` makes."""
        self._drives = list(_DRIVE.iter_unpack(drives))
        super().__init__()
        self._registers = dict.fromkeys(_WRITABLE, 0)
        self._status = IDLE
        self._tag = 0

    def read(self, now: int, offset: int, size: int) -> int:
        """See DeviceModel. Registers are read whole; anything else gives ones."""
        if size == 4:
            if offset in self._registers:
                return self._registers[offset]
            if offset == COMMAND:
                return 0
            if offset == STATUS:
                return self._status
            if offset == SECTORS:
                return self._drive()[0] & 0xFFFF_FFFF
            if offset == SECTORS_HIGH:
                return self._drive()[0] >> 32
        return (1 << 8 * size) - 1 if size in (1, 2, 4, 8) else 0

    def write(self, now: int, offset: int, size: int, value: int) -> None:
        """See DeviceModel. Registers are written whole; anything else is dropped."""
        if size != 4:
            return
        value &= 0xFFFF_FFFF
        if offset in self._registers:
            self._registers[offset] = value
        elif offset == COMMAND and value in (READ, WRITE) and self._status != BUSY:
            self._status = self._begin(value)

    def _drive(self) -> tuple[int, bool]:
        """Sectors of the drive that is selected, and whether it can be written."""
        index = self._registers[DRIVE]
        return self._drives[index] if index < len(self._drives) else (0, True)

    def _begin(self, command: int) -> int:
        """The status of the device now."""
        registers = self._registers
        sectors, writable = self._drive()
        lba, count = registers[LBA] | registers[LBA_HIGH] << 32, registers[COUNT]
        if command == WRITE and not writable:
            return PROTECTED
        if count > MAX_SECTORS or lba + count > sectors:
            return RESULT + BEYOND_END
        if count == 0:
            return RESULT + DONE
        self._tag = (self._tag + 1) % _TAGS
        ranges = [(registers[ADDRESS], count * SECTOR_SIZE)]
        to_guest = int(command == READ)
        self._effects.append(Transfer(self._tag, registers[DRIVE], lba * SECTOR_SIZE, ranges, to_guest))
        return BUSY

    def memory(self, now: int, tag: int, data: bytes | None) -> None:
        """See MemoryModel. This model never asks for memory."""

    def complete(self, now: int, tag: int, status: int) -> None:
        """See MemoryModel."""
        if tag == self._tag and self._status == BUSY:
            self._status = min(RESULT + status, _LAST_RESULT)

    def reset(self, now: int) -> None:
        """See DeviceModel. Tags go on, so that what was asked for before is nobody's answer."""
        self._registers = dict.fromkeys(_WRITABLE, 0)
        self._status = IDLE

    def snapshot(self) -> bytes:
        """See DeviceModel."""
        return _SNAPSHOT.pack(_SNAPSHOT_MAGIC, *self._registers.values(), self._status, self._tag)

    def restore(self, state: bytes) -> None:
        """See DeviceModel."""
        if len(state) != _SNAPSHOT.size or not state.startswith(_SNAPSHOT_MAGIC):
            raise SnapshotError("no snapshot of a boot disk of this version")
        _, *registers, status, tag = _SNAPSHOT.unpack(state)
        if status > _LAST_RESULT and status != PROTECTED:
            raise SnapshotError(f"a boot disk has no status {status}")
        self._registers = dict(zip(_WRITABLE, registers, strict=True))
        self._status, self._tag = status, tag
        self._effects = []
