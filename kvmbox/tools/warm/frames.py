"""The frames between a program's pool and its template: one SOCK_SEQPACKET message each.

    pool → template                              descriptors
      BOOT    fork a boot process, number = 1:   the boot process's end of its socket
              whose spawner starts at once
    template → pool
      READY   everything is imported
      BORN    the boot process is there          its pidfd
      FAILED  it could not be forked, number = errno
      DIED    it has ended, number = wait status
      FATAL   payload = why the template gives up

The template and its spawner template use the same kinds. BOOT brings three descriptors, the spawner's end of
its socket, that of the lifeline, and the pidfd of the boot process; BORN none. `identifier` is the pid of the
boot process. DIED goes to the boot process, by the lifeline. The number of READY is 1 if it makes spawners.

`identifier` is the pool's number of the boot process. The end of file from the pool ends the template, and
the end of the template ends every boot process.
"""

from __future__ import annotations

import struct
from typing import Final

HEADER: Final = struct.Struct("=BIi")  # kind, identifier, number; the payload follows

BOOT: Final = 1
READY: Final = 2
BORN: Final = 3
FAILED: Final = 4
DIED: Final = 5
FATAL: Final = 6

MOST_TEXT: Final = 1000


def pack(kind: int, identifier: int = 0, number: int = 0, text: str = "") -> bytes:
    """One frame."""
    return HEADER.pack(kind, identifier, number) + text.encode(errors="replace")[:MOST_TEXT]


def unpack(frame: bytes) -> tuple[int, int, int, str]:
    """(kind, identifier, number, text). Raises struct.error."""
    kind, identifier, number = HEADER.unpack_from(frame)
    return kind, identifier, number, frame[HEADER.size :].decode(errors="replace")


def fatal(error: BaseException) -> bytes:
    """The frame that tells why a template gives up."""
    return pack(FATAL, text=f"{type(error).__name__}: {error}")
