"""The socket of --gdb or --vnc, or a pipe: opened before the VMM confines itself, and never waited for.

A Unix socket belongs to its user alone (mode 0600). There is one client at a time; another one waits until
the first has left. While the client does not read its answers, nothing more is read from it.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from kvmbox.base.errors import StartError
from kvmbox.host.sockets.endpoint import Endpoint
from kvmbox.host.sockets.unix_socket import listen_at

CHUNK: Final = 1 << 14
"""How many bytes are read from a client in one turn of the main loop."""

MOST_UNSENT: Final = 1 << 20
"""How many bytes of answers may wait: more means that the client reads none."""

LAST_WAIT_MS: Final = 1000
"""How long the last bytes may take, all of them."""


class Link:
    """Belongs to the main loop's thread."""

    def __init__(self, endpoint: Endpoint, pipe: tuple[int, int] | None, option: str = "--gdb") -> None:
        """`option` is whose endpoint it is. `pipe` has the descriptors of an endpoint that is a pipe: to read
        and to write. They are closed by `close`. Raises StartError.
        """
        self.endpoint: Final = endpoint
        self._option = option
        self._listener: socket.socket | None = None
        self._client: socket.socket | None = None
        self._in = self._out = -1
        self._unsent = bytearray()
        self._poll: select.poll | None = None
        self._watched: dict[int, int] = {}
        if pipe is not None:
            self._in, self._out = pipe
            for descriptor in pipe:
                os.set_blocking(descriptor, False)
        else:
            self._listener = _listen(endpoint, option)

    @property
    def unsent(self) -> int:
        """How many bytes wait for the client to read."""
        return len(self._unsent)

    @property
    def has_client(self) -> bool:
        """Whether there is somebody to talk with."""
        return self._in >= 0

    # --- The main loop's poll set -------------------------------------------------------------------------

    def watch(self, poll: select.poll) -> None:
        """From now on, use this set."""
        self._poll = poll
        self._watched = {}
        self._update()

    def _update(self) -> None:
        if self._poll is None:
            return
        wanted: dict[int, int] = {}
        if self._in >= 0:
            if self._unsent:
                wanted[self._out] = select.POLLOUT
            else:
                wanted[self._in] = select.POLLIN
        elif self._listener is not None:
            wanted[self._listener.fileno()] = select.POLLIN
        for descriptor in self._watched.keys() - wanted.keys():
            with suppress(KeyError):
                self._poll.unregister(descriptor)
        for descriptor, mask in wanted.items():
            if self._watched.get(descriptor) != mask:
                self._poll.register(descriptor, mask)
        self._watched = wanted

    def is_mine(self, descriptor: int) -> bool:
        """Whether `handle` is to be called when poll has told of this descriptor."""
        return descriptor in self._watched

    def handle(self) -> bytes | None:
        """Do what can be done without waiting. Returns what a client has sent; b"" for nothing, also if a
        client has come; None if the client has gone.
        """
        if self._in < 0:
            self._accept()
            return b""
        try:
            if self._unsent:
                self._flush()
                return b""
            return os.read(self._in, CHUNK) or None
        except BlockingIOError:
            return b""
        except OSError:
            return None
        finally:
            self._update()

    def _accept(self) -> None:
        assert self._listener is not None
        with suppress(OSError):  # it has gone again, or no descriptor is free
            self._client, _ = self._listener.accept()
            self._client.setblocking(False)
            self._in = self._out = self._client.fileno()
        self._update()

    # --- The client ---------------------------------------------------------------------------------------

    def send(self, data: bytes) -> str | None:
        """Send bytes, now or later. Returns None if the client is there and reads. Otherwise it is to be
        dropped: "" if it has hung up, or a line for the person.
        """
        self._unsent += data
        try:
            self._flush()
        except OSError:
            return ""
        finally:
            self._update()
        if len(self._unsent) > MOST_UNSENT:
            return f"the client of {self._option} does not read its answers"
        return None

    def _flush(self) -> None:
        with suppress(BlockingIOError):
            while self._unsent:
                del self._unsent[: os.write(self._out, self._unsent)]

    def drop(self) -> None:
        """Let the client go, with what it has not read. The next one may come."""
        self._unsent.clear()
        if self._client is not None:
            self._client.close()
            self._client = None
        else:
            for descriptor in {self._in, self._out} - {-1}:
                os.close(descriptor)
        self._in = self._out = -1
        self._update()

    def finish(self, now: Callable[[], float] = time.monotonic) -> None:
        """Send what is left, for `LAST_WAIT_MS` at most, and let the client go. `now` gives seconds."""
        if self._in >= 0 and self._unsent:
            poll = select.poll()
            poll.register(self._out, select.POLLOUT)
            end = now() + LAST_WAIT_MS / 1000
            with suppress(OSError):
                # A client that takes a little at a time gets no more time for that.
                while self._unsent and poll.poll(max(0.0, end - now()) * 1000):
                    self._flush()
        self.drop()

    def close(self) -> None:
        """Close everything. Idempotent."""
        self._poll = None
        self.drop()
        if self._listener is not None:
            self._listener.close()
            self._listener = None
            if self.endpoint.path is not None:
                # A confined VMM may not remove it: see `atomic_file.TemporaryFile`.
                with suppress(OSError):
                    os.unlink(self.endpoint.path)


def _listen(endpoint: Endpoint, option: str) -> socket.socket:
    try:
        listener = _listen_tcp(endpoint) if endpoint.path is None else listen_at(endpoint.path)
        listener.setblocking(False)
    except OSError as error:
        hint = "choose another port"
        if endpoint.path is not None:
            in_use = "another kvmbox may listen there, or have left the file"
            hint = in_use if error.errno == errno.EADDRINUSE else "choose another directory"
        raise StartError(f"{option}: cannot listen at '{endpoint}': {error.strerror}", hint=hint) from error
    return listener


def _listen_tcp(endpoint: Endpoint) -> socket.socket:
    family = socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        # What a client's socket inherits: a confined VMM may set no options.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((endpoint.host, endpoint.port))
        listener.listen(1)
    except BaseException:
        listener.close()
        raise
    return listener
