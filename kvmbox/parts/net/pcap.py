"""A capture of frames: the file that tcpdump and Wireshark read (draft-ietf-opsawg-pcap, version 2.4).

The header says that the link is Ethernet, and that times are in nanoseconds. Time is guest time: 0 is when
the guest starts. A file that cannot be written any more ends there, with whole frames.
"""

from __future__ import annotations

import errno
import os
import stat
from struct import Struct
from typing import Final

from kvmbox.base.errors import StartError

MAGIC: Final = 0xA1B23C4D  # times in ns
ETHERNET: Final = 1
SNAP_LENGTH: Final = 1 << 16

_FILE: Final = Struct("<IHHiIII")  # magic, version, two zeros, most bytes of a frame, kind of link
_FRAME: Final = Struct("<IIII")  # seconds, nanoseconds, bytes here, bytes on the wire
_NS: Final = 1_000_000_000


class Capture:
    """A file that gets each frame. Used under the lock of a port."""

    def __init__(self, path: str) -> None:
        """Raises StartError."""
        self.path = path
        self.problem: str | None = None
        """Why the file lacks frames, or None."""
        self._size = 0
        self._descriptor = _open(path)
        self._write(_FILE.pack(MAGIC, 2, 4, 0, 0, SNAP_LENGTH, ETHERNET))

    def add(self, now: int, frame: bytes) -> None:
        """A frame was on the wire at `now`, in ns."""
        if self.problem is None:
            self._write(_FRAME.pack(now // _NS, now % _NS, len(frame), len(frame)) + frame)

    def _write(self, data: bytes) -> None:
        try:
            written = os.write(self._descriptor, data)
            if written < len(data):
                os.ftruncate(self._descriptor, self._size)
                raise OSError(0, "no space left on the device")
            self._size += written
        except OSError as error:
            self.problem = f"--net …,pcap={self.path}: {error.strerror}"

    def close(self) -> None:
        """Idempotent."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _open(path: str) -> int:
    """A regular file, emptied: no write to it waits for a reader. Raises StartError."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        descriptor = os.open(path, flags, 0o600)
    except OSError as error:
        if error.errno != errno.ENXIO:  # a pipe that nobody reads, or a socket
            raise StartError(
                f"--net …,pcap={path}: {error.strerror}", hint="name a file that you may write"
            ) from error
    else:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return descriptor
        os.close(descriptor)
    raise StartError(
        f"--net …,pcap={path} is no regular file", hint="capture to a file; 'tail -c +1 -f FILE' follows it"
    )
