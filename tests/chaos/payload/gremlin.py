"""A device process that misbehaves when it is told to: a real-time signal says how, at its next request.

Handlers are installed where this is imported, in the spawner, so that every process has them from its fork.
What begins a process (HELLO, RESTORE, REPLAY) is answered honestly: the fault is for a request of the run.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Final

from kvmbox.jail.page_port import PagePort
from kvmbox.jail.server import DeviceServer
from kvmbox.jail.serving_loop import serve
from kvmbox.jail.stream_port import StreamPort
from kvmbox.wire import protocol

if TYPE_CHECKING:
    import mmap
    from collections.abc import Callable

    from kvmbox.jail.server import Answer, Words

FAULTS: Final = ("raises", "calls", "leaves", "sequence", "value", "garbage", "short", "never")
"""In the order of the signals that ask for them, from SIGRTMIN on. In shared memory no reply is short."""

_HONEST: Final = (protocol.HELLO, protocol.RESTORE, protocol.REPLAY)
_armed: list[str] = []


def _arm(number: int, _frame: object) -> None:
    _armed.append(FAULTS[number - signal.SIGRTMIN])


if __name__ == "gremlin":  # not where a test imports it to know the faults
    for _index in range(len(FAULTS)):
        signal.signal(signal.SIGRTMIN + _index, _arm)


class Gremlin(DeviceServer):
    """The real server, but for the answers that go wrong."""

    def __init__(self, requests: int) -> None:
        """`requests` is the descriptor that requests, or their doorbells, come from."""
        super().__init__()
        self._requests = requests
        self._depth = 0
        self.cuts = False
        """Whether the next frame is to be cut short."""

    def answer(self, words: Words, frame: Callable[[Words], bytes]) -> Answer:
        """As the server's, or a fault."""
        self._depth += 1  # REPLAY has answers within its answer
        try:
            answer = super().answer(words, frame)
        finally:
            self._depth -= 1
        if self._depth or not _armed or words[0] & 0xFF in _HONEST:
            return answer
        return self._spoil(answer)

    def _spoil(self, answer: Answer) -> Answer:
        first, deadline, value, steady, payload = answer
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
        if fault == "sequence":
            first ^= 0x80 << 32
        if fault == "value":
            value = (1 << 64) - 1
        if fault == "garbage":
            first = deadline = value = int.from_bytes(b"\xa5" * 8)
            payload = b"\xa5" * len(payload)
        self.cuts = fault == "short"
        return first, deadline, value, steady, payload

    def write(self, descriptor: int, data: bytes) -> int:
        """As os.write, but for a frame that is to be short."""
        cut, self.cuts = self.cuts, False
        return os.write(descriptor, data[:20] if cut else data)


def main(channel: int, replies: int | None = None, page: mmap.mmap | None = None) -> int:
    """As `kvmbox.jail.device_process.main`."""
    server = Gremlin(channel)
    if page is not None and replies is not None:
        return serve(PagePort(page, channel, replies), server)
    return serve(StreamPort(channel, channel if replies is None else replies, write=server.write), server)
