"""The switch of `--net switch:NAME`: a process of its own, between the machines that have connected.

It learns from the source of each frame which machine has an address, and sends frames to where their
destination was seen last; those to a group, or to an address that was not seen, to all others. All is
bounded: `MOST_PORTS` machines, `MOST_ADDRESSES` addresses, of which the oldest is forgotten, and for each
machine what its socket holds. A machine that does not read loses frames, and no other one waits for it.

Frames are a guest's, so nothing of them is trusted: only their two addresses are looked at. The process
confines itself as a VMM does. It ends when the last machine has left.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from struct import Struct
from typing import Final, Protocol

HELLO: Final = b"kvmbox switch 1"
FULL: Final = b"kvmbox switch full"
"""What a machine is told that has no port any more, in place of HELLO."""
LOST: Final = Struct("<I")

MOST_PORTS: Final = 64
MOST_ADDRESSES: Final = 1024
MOST_FRAME: Final = 1 << 14
"""No interface sends or receives longer ones."""

_ADDRESS: Final = 6
_GROUP: Final = 1  # of the first byte of an address: it is not that of one interface
_COUNT: Final = 0xFFFF_FFFF
_FIRST_MS: Final = 10_000
"""How long the switch waits for its first machine."""


class Member(Protocol):
    """A machine that is connected."""

    def send(self, frame: bytes, /) -> None:
        """Send it a frame, or lose it, and count that. Never waits."""
        ...


class Table:
    """Who gets a frame. Pure."""

    def __init__(self) -> None:
        self._member_of: dict[bytes, Member] = {}

    def receivers(self, sender: Member, frame: bytes, members: Iterable[Member]) -> list[Member]:
        """Who gets a frame of `sender`; learns where its source is."""
        if not 2 * _ADDRESS <= len(frame) <= MOST_FRAME:
            return []
        destination, source = frame[:_ADDRESS], frame[_ADDRESS : 2 * _ADDRESS]
        if not source[0] & _GROUP:
            self._member_of.pop(source, None)
            self._member_of[source] = sender
            if len(self._member_of) > MOST_ADDRESSES:
                del self._member_of[next(iter(self._member_of))]
        found = self._member_of.get(destination)
        if found is not None:
            return [found] if found is not sender else []
        return [member for member in members if member is not sender]

    def forget(self, member: Member) -> None:
        """A machine has left."""
        self._member_of = {address: one for address, one in self._member_of.items() if one is not member}


class Port:
    """The socket to one machine."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._lost = 0

    def send(self, frame: bytes) -> None:
        """See Member."""
        try:
            self.connection.send(LOST.pack(self._lost) + frame)
        except OSError:
            self._lost = self._lost + 1 & _COUNT


def serve(listener: socket.socket, confine: Callable[[], None] = lambda: None) -> None:
    """Switch frames until the last machine has left. Machines connect to `listener`."""
    poll, table = select.poll(), Table()
    ports: dict[int, Port] = {}
    poll.register(listener, select.POLLIN)
    confine()
    while events := poll.poll(None if ports else _FIRST_MS):
        for descriptor, _ in events:
            port = ports.get(descriptor)
            if port is None:
                _accept(listener, ports, poll)
                continue
            frame = b""
            with suppress(OSError):
                frame = port.connection.recv(MOST_FRAME + 1)
            if frame:
                for receiver in table.receivers(port, frame, ports.values()):
                    receiver.send(frame)
            else:
                poll.unregister(descriptor)
                table.forget(port)
                del ports[descriptor]
                port.connection.close()
        if not ports:
            return


def _accept(listener: socket.socket, ports: dict[int, Port], poll: select.poll) -> None:
    with suppress(OSError):
        connection, _ = listener.accept()
        connection.setblocking(False)
        if len(ports) >= MOST_PORTS:
            with connection:
                connection.send(FULL)
            return
        connection.send(HELLO)
        ports[connection.fileno()] = Port(connection)
        poll.register(connection, select.POLLIN)


def main(descriptor: int) -> None:
    """The process: its socket that listens is `descriptor`."""
    from kvmbox.base.errors import SandboxError
    from kvmbox.jail import layers
    from kvmbox.sandbox import scope
    from kvmbox.sandbox.vmm import confine_main

    def confine() -> None:
        scope.OWN.take()
        try:
            confine_main(accepts=True)
        except SandboxError:  # libseccomp, which makes a filter that is not shipped, is not there
            confine_main(without=layers.VMM_SECCOMP)

    with socket.socket(fileno=descriptor) as listener:
        serve(listener, confine)
