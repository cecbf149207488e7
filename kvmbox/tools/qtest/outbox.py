"""Answers to a client that the server does not wait for: another client is what the server is there for."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Final

MOST_UNSENT: Final = 1 << 20
"""How many bytes may wait for a client: more means that the client reads none."""


class Outbox:
    """What was sent to a client and not taken yet."""

    def __init__(self, connection: socket.socket, dropped: Callable[[str], None]) -> None:
        """`dropped` hears, once, why a client is dropped that is still there."""
        self._connection = connection
        self._dropped = dropped
        self._unsent = bytearray()
        self.is_open = True
        """Whether there is still a client that reads."""
        connection.setblocking(False)

    @property
    def waits(self) -> bool:
        """Whether something waits until there is room: `flush` then."""
        return self.is_open and bool(self._unsent)

    def send(self, data: bytes) -> None:
        """Send all of it, now or later; nothing if the client is gone. Never waits."""
        if not self.is_open:
            return
        self._unsent += data
        self.flush()
        if len(self._unsent) > MOST_UNSENT:
            self._close()
            self._dropped("a client does not read its answers, and is dropped")

    def flush(self) -> None:
        """Send what can be sent now."""
        try:
            while self._unsent:
                del self._unsent[: self._connection.send(self._unsent)]
        except BlockingIOError:
            return
        except OSError:  # it has hung up
            self._close()

    def _close(self) -> None:
        self.is_open = False
        self._unsent.clear()
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
