"""The initramfs: a cpio archive in the "newc" format, of the kernel's buffer-format.rst. Pure."""

from __future__ import annotations

import stat
from dataclasses import dataclass, field
from typing import Final

_MAGIC: Final = "070701"
_LAST: Final = "TRAILER!!!"


@dataclass(slots=True)
class Archive:
    """Directories and files, all owned by root, in the order in which they were added."""

    _parts: list[bytes] = field(default_factory=list)
    _count: int = 0

    def directory(self, path: str) -> None:
        """Add a directory; its parent must be there already."""
        self._entry(path, stat.S_IFDIR | 0o755, b"")

    def file(self, path: str, content: bytes, *, executable: bool = False) -> None:
        """Add a file; its directory must be there already."""
        self._entry(path, stat.S_IFREG | (0o755 if executable else 0o644), content)

    def device(self, path: str, major: int, minor: int) -> None:
        """Add a character device for root alone."""
        self._entry(path, stat.S_IFCHR | 0o600, b"", device=(major, minor))

    def pack(self) -> bytes:
        """The whole archive, uncompressed."""
        trailer = _encode(0, _LAST, 0, b"", (0, 0))
        return b"".join((*self._parts, trailer))

    def _entry(self, path: str, mode: int, content: bytes, *, device: tuple[int, int] = (0, 0)) -> None:
        self._count += 1
        self._parts.append(_encode(self._count, path, mode, content, device))


def _encode(number: int, path: str, mode: int, content: bytes, device: tuple[int, int]) -> bytes:
    name = path.encode() + b"\0"
    # ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor, rdevminor, namesize, check
    fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(name), 0)
    head = (_MAGIC + "".join(f"{value:08x}" for value in fields)).encode() + name
    return _padded(head) + _padded(content)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
