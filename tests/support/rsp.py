"""A client of GDB's remote serial protocol, for tests: a packet at a time, with acknowledgements off."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Self

from kvmbox.parts.gdb import packets
from tests.support.patience import patience


class Client:
    """Sends payloads and receives payloads. Use it in a `with`."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._socket.settimeout(patience(30))
        self._parser = packets.Parser()
        self._events: list[packets.Event] = []
        assert self.ask(b"QStartNoAckMode") == b"OK"
        self.raw(b"+")

    @classmethod
    def connect(cls, place: Path | int) -> Self:
        """Connect to a Unix socket or to a port of this host."""
        family = socket.AF_INET if isinstance(place, int) else socket.AF_UNIX
        connection = socket.socket(family, socket.SOCK_STREAM)
        connection.connect(("127.0.0.1", place) if isinstance(place, int) else str(place))
        return cls(connection)

    def raw(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._socket.sendall(data)

    def say(self, payload: bytes) -> None:
        """Send a packet."""
        self.raw(packets.encode(payload))

    def ask(self, payload: bytes) -> bytes:
        """Send a packet, and wait for the next one."""
        self.say(payload)
        return self.hear()

    def hear(self) -> bytes:
        """The payload of the next packet; b"" also if the other side has hung up."""
        while True:
            for event in self._events:
                if isinstance(event, packets.Packet):
                    self._events = self._events[self._events.index(event) + 1 :]
                    return event.payload
            data = self._socket.recv(65536)
            if not data:
                return b""
            self._events += self._parser.feed(data)

    def monitor(self, command: str) -> str:
        """What a monitor command prints."""
        self.say(b"qRcmd," + command.encode().hex().encode())
        text = b""
        while (answer := self.hear())[:1] == b"O" and answer != b"OK":
            text += bytes.fromhex(answer[1:].decode())
        assert answer == b"OK"
        return text.decode()

    @property
    def hung_up(self) -> bool:
        """Whether the other side has closed the connection; waits until it sends or has."""
        try:
            return self._socket.recv(65536) == b""
        except ConnectionError:
            return True

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
