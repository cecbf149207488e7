"""The open file behind a disk: a regular file or a block device of the host.

The size of the disk is that of the file when it was opened, rounded up to whole sectors. The guest's disk
keeps it, whatever becomes of the file. Zeros are behind the end of the file: in the rest of the last sector,
and where the file has been cut off meanwhile.

`read_now` reads what the host has in memory (RWF_NOWAIT, preadv2(2)), so the thread of a vCPU never waits for
a disk of the host. Some file systems cannot say what they have in memory. There it has nothing.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import Final

from kvmbox.base.errors import StartError
from kvmbox.host.disk.image_locks import lock_image

_FLAGS: Final = os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_NOT_SUPPORTED: Final = (errno.EOPNOTSUPP, errno.ENOSYS)
_NO_DISKS: Final = {
    stat.S_IFDIR: "it is a directory",
    stat.S_IFIFO: "it is a FIFO, which has no sectors",
    stat.S_IFSOCK: "it is a socket, which has no sectors",
    stat.S_IFCHR: "it is a character device, which has no sectors",
}


def cannot_use(path: str, why: str, hint: str) -> StartError:
    """The error for the caller to raise. Each of its two lines is one, whatever the path has in it."""
    from kvmbox.explain.demangled_names import printable

    return StartError(printable(f"cannot use disk '{path}': {why}"), hint=printable(hint))


class DiskFile:
    """An open disk image. Threads may use it at the same time, if they leave each other's sectors alone."""

    def __init__(self, path: str, *, write: bool, sector: int = 512) -> None:
        """Open and lock it. Sectors have `sector` bytes. Raises StartError."""
        self.path = path
        to_have_one = (
            f"'truncate -s 64M {path}' makes an empty disk" if sector == 512 else "name an ISO image"
        )
        self.descriptor = _open(path, to_have_one, write=write)
        try:
            self._end = _size_of(path, to_have_one, self.descriptor)
            refusal = lock_image(self.descriptor, write=write)
            if refusal:
                raise cannot_use(path, refusal, "end that program, or use a copy of the file")
        except BaseException:
            self.close()
            raise
        self.size = -(-self._end // sector) * sector
        """Bytes of the disk."""
        self.oddity = f"its last sector has {self._end % sector} bytes" if self._end % sector else ""
        """What is odd about the file, in words."""
        self._can_read_now = True

    def read(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset`. Waits for them. Raises OSError."""
        data = bytearray(size)
        wanted = memoryview(data)[: max(0, self._end - offset)]
        position = 0
        while position < len(wanted):
            count = os.preadv(self.descriptor, [wanted[position:]], offset + position)
            if not count:
                self.oddity = "it became shorter during the run, and zeros were read instead"
                break
            position += count
        return bytes(data)

    def read_now(self, offset: int, size: int) -> bytes | None:
        """The same if nothing has to be waited for, or else None. Raises OSError."""
        if not self._can_read_now:
            return None
        data = bytearray(size)
        wanted = memoryview(data)[: max(0, self._end - offset)]
        try:
            count = os.preadv(self.descriptor, [wanted], offset, os.RWF_NOWAIT) if wanted else 0
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno not in _NOT_SUPPORTED:
                raise
            self._can_read_now = False
            return None
        # Fewer bytes: the rest is not in memory, or the file has become shorter. `read` finds out.
        return bytes(data) if count == len(wanted) else None

    def descriptor_now(self, end: int) -> int:
        """The descriptor, if the file tells what is in memory, and has bytes up to `end`; otherwise -1."""
        return self.descriptor if self._can_read_now and end <= self._end else -1

    def write(self, offset: int, data: bytes) -> None:
        """Store bytes from `offset`. Raises OSError."""
        left = memoryview(data)
        while left:
            count = os.pwrite(self.descriptor, left, offset)
            left = left[count:]
            offset += count
            self._end = max(self._end, offset)

    def flush(self) -> None:
        """Have the host store what was written where a loss of power leaves it. Raises OSError."""
        os.fdatasync(self.descriptor)

    def close(self) -> None:
        """Close the file, which unlocks it. Idempotent."""
        if self.descriptor >= 0:
            descriptor, self.descriptor = self.descriptor, -1
            os.close(descriptor)


def _open(path: str, to_have_one: str, *, write: bool) -> int:
    """A descriptor for what may be a disk. `to_have_one` is a hint. Raises StartError."""
    try:
        # To open a device may do something already, so it is looked at first; and again afterwards, because
        # the name may mean something else by then. O_NONBLOCK: a FIFO that slips in does not make it wait.
        _check_kind(path, os.stat(path))
        return os.open(path, _FLAGS | (os.O_RDWR if write else os.O_RDONLY))
    except FileNotFoundError as error:
        raise cannot_use(path, "no such file", to_have_one) from error
    except PermissionError as error:
        raise cannot_use(path, "permission denied", _permission_hint(path, write=write)) from error
    except OSError as error:
        hint = (
            "leave out 'write': the guest then writes to memory" if write else "name a file with a disk image"
        )
        raise cannot_use(path, error.strerror or str(error), hint) from error
    except ValueError as error:  # a NUL in the path; nothing else here raises it
        raise cannot_use(path, "it is no path", "name a file with a disk image") from error


def _permission_hint(path: str, *, write: bool) -> str:
    if write and os.access(path, os.R_OK):
        return "leave out 'write' to write to memory, or make the file writable for this user"
    return "make the file readable and its directories searchable for this user"


def _check_kind(path: str, status: os.stat_result) -> None:
    words = _NO_DISKS.get(stat.S_IFMT(status.st_mode))
    if words is not None:
        raise cannot_use(path, words, "name a file with a disk image, or a block device")


def _size_of(path: str, to_have_one: str, descriptor: int) -> int:
    _check_kind(path, os.fstat(descriptor))
    try:
        size = os.lseek(descriptor, 0, os.SEEK_END)  # a block device has no size in its status
    except OSError as error:  # of many files in /proc
        raise cannot_use(path, "it has no size", "copy it to a file, and name that") from error
    if not size:
        raise cannot_use(path, "it is empty", to_have_one)
    return size
