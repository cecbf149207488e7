"""The boot disk: sectors of the guest's image, moved to guest memory when the built-in BIOS asks for them.

Theory of operation
-------------------
Six registers of four bytes. The BIOS stores the first sector, the number of sectors and a guest-physical
address, and gives the command READ. The device asks the VMM for one `Transfer` and is busy until the VMM says
how it went. No sector passes through this model, which sees numbers only. There is no command to write.

    0x00  LBA      first sector
    0x04  COUNT    how many sectors
    0x08  ADDRESS  where to, guest-physical
    0x0c  COMMAND  1: READ; reads as 0
    0x10  STATUS   0 idle, 1 busy, 2 + status (`kvmbox.devices.model`) of the last command
    0x14  SECTORS  how many sectors the disk has

A command is ignored while another one is under way, and registers may change meanwhile without effect. What
reaches beyond the disk, or has more sectors than one transfer may move, is BEYOND_END at once.
"""

from __future__ import annotations

import struct

from kvmbox.devices.model import BEYOND_END, DONE, SnapshotError, TimelessModel, Transfer
from kvmbox.layout import SECTOR_SIZE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

MAX_SECTORS: Final = 2048
"""What one command may move: 1 MiB."""

LBA: Final = 0x00
COUNT: Final = 0x04
ADDRESS: Final = 0x08
COMMAND: Final = 0x0C
STATUS: Final = 0x10
SECTORS: Final = 0x14

READ: Final = 1

IDLE: Final = 0
BUSY: Final = 1
RESULT: Final = 2

_DISK: Final = 0
"""The one resource of the device."""
_LAST_RESULT: Final = RESULT + 5  # model.BUSY
_TAGS: Final = 1 << 32

_SNAPSHOT: Final = struct.Struct("<4s5I")
_SNAPSHOT_MAGIC: Final = b"BDK\x01"


class BootDisk(TimelessModel):
    """See the module.

    >>> disk = BootDisk(sectors=4)
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

    __slots__ = ("_registers", "_sectors", "_status", "_tag")

    def __init__(self, *, sectors: int) -> None:
        self._sectors = sectors
        super().__init__()
        self._registers = [0, 0, 0]  # LBA, COUNT, ADDRESS
        self._status = IDLE
        self._tag = 0

    def read(self, now: int, offset: int, size: int) -> int:
        """See DeviceModel. Registers are read whole; anything else gives ones."""
        if size == 4:
            if offset in (LBA, COUNT, ADDRESS):
                return self._registers[offset // 4]
            if offset == COMMAND:
                return 0
            if offset == STATUS:
                return self._status
            if offset == SECTORS:
                return self._sectors
        return (1 << 8 * size) - 1 if size in (1, 2, 4, 8) else 0

    def write(self, now: int, offset: int, size: int, value: int) -> None:
        """See DeviceModel. Registers are written whole; anything else is dropped."""
        if size != 4:
            return
        value &= 0xFFFF_FFFF
        if offset in (LBA, COUNT, ADDRESS):
            self._registers[offset // 4] = value
        elif offset == COMMAND and value == READ and self._status != BUSY:
            self._begin()

    def _begin(self) -> None:
        lba, count, address = self._registers
        if count > MAX_SECTORS or lba + count > self._sectors:
            self._status = RESULT + BEYOND_END
            return
        if count == 0:
            self._status = RESULT + DONE
            return
        self._status = BUSY
        self._tag = (self._tag + 1) % _TAGS
        ranges = [(address, count * SECTOR_SIZE)]
        self._effects.append(Transfer(self._tag, _DISK, lba * SECTOR_SIZE, ranges, 1))

    def memory(self, now: int, tag: int, data: bytes | None) -> None:
        """See MemoryModel. This model never asks for memory."""

    def complete(self, now: int, tag: int, status: int) -> None:
        """See MemoryModel."""
        if tag == self._tag and self._status == BUSY:
            self._status = min(RESULT + status, _LAST_RESULT)

    def reset(self, now: int) -> None:
        """See DeviceModel. Tags go on, so that what was asked for before is nobody's answer."""
        self._registers = [0, 0, 0]
        self._status = IDLE

    def snapshot(self) -> bytes:
        """See DeviceModel."""
        return _SNAPSHOT.pack(_SNAPSHOT_MAGIC, *self._registers, self._status, self._tag)

    def restore(self, state: bytes) -> None:
        """See DeviceModel."""
        if len(state) != _SNAPSHOT.size or not state.startswith(_SNAPSHOT_MAGIC):
            raise SnapshotError("no snapshot of a boot disk of this version")
        _, lba, count, address, status, tag = _SNAPSHOT.unpack(state)
        if status > _LAST_RESULT:
            raise SnapshotError(f"a boot disk has no status {status}")
        self._registers = [lba, count, address]
        self._status, self._tag = status, tag
        self._effects = []
