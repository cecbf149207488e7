"""The wire of a --net: opened before the VMM confines itself."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from kvmbox.base.errors import StartError
from kvmbox.host.sockets.unix_socket import listen_at
from kvmbox.parts.net import net_option
from kvmbox.parts.net.wires import NOT_PASSED, CutError, Loop, Stream, Wire, wire_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from kvmbox.parts.net.net_option import NetRequest


_NO_PEER: Final = "the peer listens there first; or kvmbox does: socket:unix:PATH,listen"


class Listening(Wire):
    """A stream to whoever connects to a socket, one after another. Without anybody, frames are lost.

    `send` is called by the vCPU thread while the main loop may poll the client. So a client that takes
    nothing any more is only marked there, and closed by `receive`.
    """

    def __init__(self, path: str) -> None:
        """Raises OSError."""
        self._listener = listen_at(path)
        self._listener.setblocking(False)
        self._path = path
        self._client: Stream | None = None
        self._takes_nothing = False  # the client

    @property
    def descriptor(self) -> int:  # type: ignore[override]  # it is another one for each client
        """See Wire."""
        return self._listener.fileno() if self._client is None else self._client.descriptor

    @property
    def unsent(self) -> bytes:  # type: ignore[override]  # the client's
        """See Wire."""
        return b"" if self._client is None or self._takes_nothing else self._client.unsent

    def send(self, frame: bytes) -> bool:
        """See Wire."""
        if self._client is None or self._takes_nothing:
            raise ConnectionError
        try:
            return self._client.send(frame)
        except CutError as error:
            self._takes_nothing = True
            raise ConnectionError from error

    def flush(self) -> bool:
        """See Wire."""
        try:
            return self._client is None or self._takes_nothing or self._client.flush()
        except CutError:
            self._takes_nothing = True
            return True

    def receive(self) -> list[bytes]:
        """See Wire."""
        if self._client is None:
            with suppress(OSError):
                client, _ = self._listener.accept()
                client.setblocking(False)
                self._client = Stream(client.detach())
            return []
        try:
            frames = self._client.receive()
        except CutError:
            frames = []
            self._takes_nothing = True
        if self._takes_nothing and not frames:
            self._drop()
        return frames

    def _drop(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client, self._takes_nothing = None, False

    def close(self) -> None:
        """See Wire."""
        self._drop()
        if self._listener.fileno() >= 0:
            self._listener.close()
            with suppress(OSError):  # a confined VMM may not remove it: see `atomic_file.TemporaryFile`
                os.unlink(self._path)


def open_wire(request: NetRequest, wake: Callable[[], None], *, is_command: bool = False) -> Wire:
    """The wire that is asked for; `wake` makes the main thread move its frames. Raises StartError.

    A command uses only a descriptor that it has inherited; a program knows its own.
    """
    match request.backend:
        case net_option.LOOP:
            return Loop(wake)
        case net_option.USER:
            from kvmbox.parts.net import passt

            return Stream(passt.start(request.forwards))
        case net_option.SOCKET:
            return _socket(request.target.removeprefix(net_option.UNIX), listens=request.listen)
        case net_option.SWITCH:
            from kvmbox.parts.net import switch

            return switch.join(request.target)
        case net_option.TAP:
            from kvmbox.parts.net.tap import open_tap

            return wire_of(open_tap(request.target))
        case net_option.DESCRIPTOR:
            return _given(int(request.target), is_command=is_command)
        case _:
            return Wire()


def _given(descriptor: int, *, is_command: bool) -> Wire:
    with suppress(OSError):  # which `wire_of` meets, too
        # What Python opens is not inheritable (PEP 446), and what was inherited is.
        if is_command and not os.get_inheritable(descriptor):
            raise StartError(f"--net fd:{descriptor} was not inherited", hint=NOT_PASSED)
    return wire_of(descriptor)


def _socket(path: str, *, listens: bool) -> Wire:
    try:
        if listens:
            return Listening(path)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.connect(os.fspath(path))
            client.setblocking(False)
            return Stream(client.detach())
    except OSError as error:
        hint = "choose another directory" if listens else _NO_PEER
        if error.errno == errno.EADDRINUSE:
            hint = "another kvmbox may listen there, or have left the file"
        raise StartError(f"--net socket:unix:{path}: {error.strerror or error}", hint=hint) from error
