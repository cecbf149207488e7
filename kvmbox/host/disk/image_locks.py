"""Locks on disk images that kvmbox and QEMU respect, so that nobody changes what another one uses.

Each permission has a number. Who uses an image has a read lock on the byte `_HELD` + number for each
permission that it has, and on the byte `_REFUSED` + number for each one that nobody else may have meanwhile.
After that it looks whether others have a lock on the opposite byte. Only read locks are taken, so any number
of readers is possible. The locks belong to the open file (OFD locks, fcntl(2)): they go with its last
descriptor, whatever ends the process. They do not concern the bytes in these places.

The numbers are those of QEMU (include/block/block-common.h, `BLK_PERM_*`), and so are the bytes
(block/file-posix.c, `RAW_LOCK_*_BASE`).
"""

from __future__ import annotations

import errno
import fcntl
import struct
from typing import Final

_HELD: Final = 100
_REFUSED: Final = 200

_READ: Final = 0
_WRITE: Final = 1
_RESIZE: Final = 3

_FLOCK: Final = struct.Struct("@hhqqi4x")  # struct flock: type, whence, start, length, pid
_CONFLICT: Final = (errno.EAGAIN, errno.EACCES)


def lock_image(descriptor: int, *, write: bool) -> str:
    """Lock an open image for a reader, or for the one writer. Why it cannot be had, or '' if it is locked.

    A file system without locks is used without them, as nobody could see them there.
    """
    held = (_READ, _WRITE) if write else (_READ,)
    refused = (_WRITE, _RESIZE)
    try:
        for byte in (*(_HELD + one for one in held), *(_REFUSED + one for one in refused)):
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_RDLCK, 0, byte, 1, 0))
        if any(_is_locked(descriptor, _HELD + one) for one in refused):
            return "another program, or another disk of this run, writes to it"
        if any(_is_locked(descriptor, _REFUSED + one) for one in held):
            return "another program, or another disk of this run, reads it and relies on it not to change"
    except OSError as error:
        # Somebody else has a write lock on these bytes: none of those who know this scheme.
        return "another program has locked it" if error.errno in _CONFLICT else ""
    return ""


def _is_locked(descriptor: int, byte: int) -> bool:
    asked = _FLOCK.pack(fcntl.F_WRLCK, 0, byte, 1, 0)
    found: int = _FLOCK.unpack(fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, asked))[0]
    return found != fcntl.F_UNLCK
