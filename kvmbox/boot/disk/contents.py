"""What a disk image holds: partitions, the volume and boot catalog of a CD, a file system. Pure.

An image can be a disk and a CD at the same time (isohybrid). Then it has both. An executable and a Linux
kernel are no disks, although a kernel begins with what was a boot sector.
"""

from __future__ import annotations

from typing import Any, Final

from kvmbox.base.value_classes import Value
from kvmbox.boot.disk.cd_image import Iso, Read, read_iso
from kvmbox.boot.disk.file_systems import file_system
from kvmbox.boot.disk.partitions import PartitionTable, read_partitions
from kvmbox.boot.elf.headers import ELF_MAGIC
from kvmbox.boot.linux.setup_header import MAGIC as LINUX_MAGIC

_LINUX_MAGIC_AT: Final = 0x202
_BOOT_SIGNATURE: Final = b"\x55\xaa"
_BOOT_SIGNATURE_AT: Final = 510


class DiskContents(Value):
    """What was found on a disk. `has_boot_sector` says whether a BIOS boots it as a hard disk."""

    partitions: PartitionTable | None
    cd: Iso | None
    file_system: str
    has_boot_sector: bool

    @property
    def boots(self) -> bool:
        """Whether a BIOS finds something to boot."""
        return self.has_boot_sector or (self.cd is not None and self.cd.entry is not None)

    def as_json(self) -> dict[str, Any]:
        """The same for a program: places and sizes are numbers of bytes."""
        table, cd = self.partitions, self.cd
        return self.as_dict() | {
            "partitions": table
            and table.as_dict() | {"partitions": [one.as_dict() for one in table.partitions]},
            "cd": cd and cd.as_dict() | {"entry": cd.entry and cd.entry.as_dict()},
        }


def is_kernel(head: bytes) -> bool:
    """Whether an image that begins with these bytes is an executable or a Linux kernel, and no disk."""
    return head.startswith(ELF_MAGIC) or head[_LINUX_MAGIC_AT:].startswith(LINUX_MAGIC)


def disk_contents(read: Read, size: int) -> DiskContents | None:
    """What is on an image of `size` bytes, or None if it holds nothing of a disk. Raises what `read` does."""
    head = read(0, 1024)
    if is_kernel(head):
        return None
    signature = head[_BOOT_SIGNATURE_AT : _BOOT_SIGNATURE_AT + len(_BOOT_SIGNATURE)]
    found = DiskContents(
        read_partitions(read, size),
        read_iso(read, size),
        file_system(read, 0, size),
        signature == _BOOT_SIGNATURE,
    )
    return found if found.partitions or found.cd or found.file_system else None
