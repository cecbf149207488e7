"""Wires of the host: what carries the frames of one interface to somebody else and back, without waiting.

    Loop      each frame comes back
    Packets   a descriptor that keeps frames apart: a tap, a socket of packets, the port of a switch
    Stream    a stream of frames, each behind its length in 4 bytes, big-endian: as passt and QEMU's
              `-netdev stream` have it

`send` takes a frame or does not: False means that the host has no room now. A wire has no queue but the rest
of a frame that a stream has taken the beginning of. Everything is called under the lock of a `Port`.

Whoever is at the other end is not trusted. A length that no frame has cuts the wire: nothing behind it can be
read. Frames of a length that no interface takes are dropped by the port.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from struct import Struct
from typing import Final

from kvmbox.base.errors import StartError

MOST_READ: Final = 1 << 16
"""How much is read at a time."""
MOST_FRAMES: Final = 32
"""How many packets are read at a time."""
MOST_LENGTH: Final = 1 << 16
"""Of a frame in a stream: more than any peer has, since offloads are off."""

NOT_PASSED: Final = "the program that starts kvmbox has to pass the descriptor on"

_LENGTH: Final = Struct(">I")


class CutError(Exception):
    """There is nobody at the other end any more: why, in words."""


class Wire:
    """A wire with nobody at its other end: what is sent is lost. And the contract of the others."""

    descriptor = -1
    """What to poll, or -1."""
    unsent = b""
    """What is to be sent before another frame."""
    leaves_at: int | None = None
    """When `flush` sends a frame that waits here, in ns of the host's monotonic clock."""
    comes_at: int | None = None
    """When `receive` has one that waits here."""

    def send(self, _frame: bytes) -> bool:
        """Send a frame, or do nothing and return False. Raises CutError, and OSError: the frame is lost."""
        return True

    def flush(self) -> bool:
        """Whether `unsent` is sent. Raises CutError, and OSError: a frame that has waited here is lost."""
        return True

    def receive(self) -> list[bytes]:
        """The frames that have come. Raises CutError."""
        return []

    @property
    def lost(self) -> int:
        """How many frames for us were lost on the way, as far as somebody tells."""
        return 0

    def close(self) -> None:
        """Idempotent."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


class Loop(Wire):
    """Each frame comes back."""

    def __init__(self, wake: Callable[[], None]) -> None:
        """`wake` makes the main thread receive."""
        self._wake = wake
        self._frames: list[bytes] = []

    def send(self, frame: bytes) -> bool:
        """See Wire."""
        if len(self._frames) >= MOST_FRAMES:
            return False
        self._frames.append(frame)
        self._wake()
        return True

    def receive(self) -> list[bytes]:
        """See Wire."""
        frames, self._frames = self._frames, []
        return frames


class Packets(Wire):
    """See the module. The descriptor does not block, and is closed by `close`."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def send(self, frame: bytes) -> bool:
        """See Wire."""
        try:
            os.write(self.descriptor, frame)
        except BlockingIOError:
            return False
        return True

    def receive(self) -> list[bytes]:
        """See Wire."""
        frames: list[bytes] = []
        try:
            while len(frames) < MOST_FRAMES:
                frame = self._read()
                if not frame:
                    raise ConnectionError(0, "the peer has gone")
                frames.append(frame)
        except BlockingIOError:
            pass
        except OSError as error:
            if not frames:  # else the next call finds the end
                raise CutError(error.strerror) from error
        return frames

    def _read(self) -> bytes:
        try:
            return os.read(self.descriptor, MOST_READ)
        except ConnectionResetError:  # told once, before what the peer has sent: it has not read all of ours
            return os.read(self.descriptor, MOST_READ)


class Stream(Wire):
    """See the module. The descriptor is that of a stream socket, does not block, and is closed by `close`."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._received = b""
        self._fault = ""  # nothing that comes behind it can be read

    def send(self, frame: bytes) -> bool:
        """See Wire."""
        if self.unsent and not self.flush():
            return False
        self.unsent = _LENGTH.pack(len(frame)) + frame
        if not self.flush() and len(self.unsent) == _LENGTH.size + len(frame):
            self.unsent = b""
            return False
        return True

    def flush(self) -> bool:
        """See Wire."""
        try:
            while self.unsent:
                self.unsent = self.unsent[os.write(self.descriptor, self.unsent) :]
        except BlockingIOError:
            return False
        except OSError as error:
            raise CutError(error.strerror) from error
        return True

    def receive(self) -> list[bytes]:
        """See Wire."""
        if self._fault:
            raise CutError(self._fault)
        try:
            data = os.read(self.descriptor, MOST_READ)
        except BlockingIOError:
            return []
        except OSError as error:
            raise CutError(error.strerror) from error
        if not data:
            raise CutError("the peer has gone")
        data = self._received + data
        frames: list[bytes] = []
        position = 0
        while len(data) - position >= _LENGTH.size:
            (size,) = _LENGTH.unpack_from(data, position)
            if size > MOST_LENGTH:
                self._fault = f"the peer sends a frame of {size} bytes"
                break
            end = position + _LENGTH.size + size
            if end > len(data):
                break
            frames.append(data[position + _LENGTH.size : end])
            position = end
        self._received = data[position:]
        if self._fault and not frames:
            raise CutError(self._fault)
        return frames


def wire_of(descriptor: int) -> Wire:
    """The wire of a descriptor that somebody has opened, which becomes ours. Raises StartError."""
    try:
        kind = _kind_of(descriptor)
        if kind is None:
            raise StartError(
                f"--net fd:{descriptor} is neither a socket nor a tap",
                hint="a connected socket, or a tap with IFF_NO_PI and without IFF_VNET_HDR",
            )
        os.set_blocking(descriptor, False)
        os.set_inheritable(descriptor, False)
    except OSError as error:
        raise StartError(f"--net fd:{descriptor}: {error.strerror}", hint=NOT_PASSED) from error
    return kind(descriptor)


def _kind_of(descriptor: int) -> type[Stream | Packets] | None:
    """How frames are kept apart there, if they can be. Nothing of it is changed. Raises OSError."""
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISSOCK(mode):
        import socket

        with socket.socket(fileno=os.dup(descriptor)) as one:
            if one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                return None
            is_stream = one.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) == socket.SOCK_STREAM
        return Stream if is_stream else Packets
    if stat.S_ISCHR(mode):
        from kvmbox.parts.net.tap import is_tap

        return Packets if is_tap(descriptor) else None
    return None
