"""A device process that misbehaves when it is told to: a real-time signal says how, at its next request.

Handlers are installed where this is imported, in the spawner, so that every process has them from its fork.
What begins a process (HELLO, RESTORE, REPLAY) is answered honestly: the fault is for a request of the run.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any, Final

from kvmbox.jailed.page_server import serve_page
from kvmbox.jailed.server import DeviceServer, serve
from kvmbox.wire import protocol

if TYPE_CHECKING:
    import mmap

FAULTS: Final = ("raises", "calls", "leaves", "sequence", "value", "garbage", "short", "never")
"""In the order of the signals that ask for them, from SIGRTMIN on. In shared memory no reply is short."""

_HONEST: Final = (protocol.HELLO, protocol.RESTORE, protocol.REPLAY)
_armed: list[str] = []


def _arm(number: int, _frame: object) -> None:
    _armed.append(FAULTS[number - signal.SIGRTMIN])


if __name__ == "gremlin":  # not where a test imports it to know the faults
    for _index in range(len(FAULTS)):
        signal.signal(signal.SIGRTMIN + _index, _arm)


class Routes(dict[int, Any]):
    """The routes of a server, which are not found while there is a fault to be made: so whoever answers
    accesses by himself, as the loops do, leaves that one to `handle`.
    """

    depth = 0

    def get(self, key: int, default: Any = None) -> Any:
        """As a dictionary's."""
        return default if _armed and not self.depth else super().get(key, default)


class Gremlin(DeviceServer):
    """The real server, but for the replies that go wrong."""

    def __init__(self, requests: int) -> None:
        """`requests` is the descriptor that requests, or their doorbells, come from."""
        super().__init__()
        self._requests = requests
        self.routes: Routes = Routes()

    def handle(self, frame: bytes) -> bytes:
        """As the server's, or a fault."""
        outermost = not self.routes.depth
        self.routes.depth += 1
        try:
            reply = super().handle(frame)
        finally:
            self.routes.depth -= 1
        return self._spoil(reply) if outermost and frame[0] not in _HONEST else reply

    def _spoil(self, reply: bytes) -> bytes:
        if not _armed:
            return reply
        fault = _armed.pop()
        if fault == "raises":
            raise RuntimeError("a gremlin")
        if fault == "calls":
            os.open("/etc/passwd", os.O_RDONLY)
        if fault == "leaves":
            raise SystemExit(7)
        if fault == "never":
            while os.read(self._requests, 1):
                pass
            raise SystemExit(0)
        words = bytearray(reply)
        if fault == "sequence":
            words[4] ^= 0x80
        if fault == "value":
            words[16:24] = b"\xff" * 8
        if fault == "garbage":
            words[:] = b"\xa5" * len(words)
        if fault == "short":
            del words[20:]
        return bytes(words)


def main(channel: int, replies: int | None = None, page: mmap.mmap | None = None) -> int:
    """As `kvmbox.jailed.main.main`."""
    server = Gremlin(channel)
    if page is not None and replies is not None:
        return serve_page(page, channel, replies, server=server)
    return serve(channel, replies, server=server)
