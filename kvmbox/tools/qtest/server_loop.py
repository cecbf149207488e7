"""The loop: bytes from clients, cut into what their protocols handle, and the device processes in between.

One thread serves all connections of a machine: the qtest client's and, for QEMU's test programs, QMP's. It
ends when the qtest client does, or when a protocol says so; SIGTERM ends it wherever it is, also in the
middle of a long step of the clock.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Final, Protocol

from kvmbox.base.errors import HostOutputError
from kvmbox.base.value_classes import Value
from kvmbox.tools.qtest import qtest_protocol
from kvmbox.tools.qtest.outbox import Outbox
from kvmbox.tools.qtest.sandbox import Sandbox

READ_SIZE: Final = 1 << 16


class Terminated(BaseException):
    """SIGTERM came. No Exception: nothing on the way may take it for an error of its own."""


def end_on_sigterm() -> None:
    """From now on SIGTERM raises Terminated in the main thread, once."""

    def terminate(_number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Terminated

    signal.signal(signal.SIGTERM, terminate)


class Handler(Protocol):
    """A protocol on a connection."""

    def feed(self, data: bytes) -> bool:
        """Handle bytes from the client; whether the server goes on. Raises DeviceProcessError."""


class LineReader:
    """A Handler that cuts a stream into lines, with bounded memory: a line that is too long is refused."""

    def __init__(
        self,
        handle: Callable[[bytes], None],
        refuse: Callable[[], None],
        limit: int = qtest_protocol.MAX_LINE,
    ) -> None:
        """`handle` gets each line without its line feed, `refuse` hears of each line beyond `limit` bytes."""
        self._handle = handle
        self._refuse = refuse
        self._limit = limit
        self._pending = bytearray()
        self._skipping = False

    def feed(self, data: bytes) -> bool:
        """See Handler: always goes on."""
        *lines, rest = data.split(b"\n")
        for line in lines:
            self._end_line(line)
        self._keep(rest)
        return True

    def _keep(self, part: bytes) -> None:
        if len(self._pending) + len(part) > self._limit:
            self._skipping = True
            self._pending = bytearray()
        if not self._skipping:
            self._pending += part

    def _end_line(self, last_part: bytes) -> None:
        if self._pending or self._skipping:
            self._keep(last_part)
            line, too_long = bytes(self._pending), self._skipping
            self._pending = bytearray()
            self._skipping = False
        else:
            line, too_long = last_part, len(last_part) > self._limit
        if too_long:
            self._refuse()
        else:
            self._handle(line)


class Connection(Value):
    """Where a client's bytes come from, and what handles them. If `decisive`, the server ends with it.

    With an `outbox`, which has its answers, the server does not wait for the client: while answers wait,
    nothing more is read from it.
    """

    descriptor: int
    handler: Handler
    decisive: bool
    outbox: Outbox | None = None


class ClientGone(Exception):
    """The client closed its socket while something was being sent to it."""


def send_to(descriptor: int, *, is_socket: bool) -> Callable[[bytes], None]:
    """A function that writes all bytes to `descriptor`, before it returns.

    It raises ClientGone where a socket's other end is closed, and HostOutputError for other failures.
    """

    def send(data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(descriptor, view) :]
        except OSError as error:
            if is_socket and isinstance(error, ConnectionError):
                raise ClientGone from error
            raise HostOutputError(f"cannot write the answer: {error.strerror}") from error

    return send


def serve(connections: Sequence[Connection], sandbox: Sandbox) -> None:
    """Serve until a decisive client ends, a client is gone before its answer, or a handler ends the server.

    Raises DeviceProcessError, HostOutputError, and Terminated after `end_on_sigterm`.
    """
    poll = select.poll()
    by_descriptor = {connection.descriptor: connection for connection in connections}
    for descriptor in by_descriptor:
        poll.register(descriptor, select.POLLIN)
    sandbox.watch(poll)
    while True:
        _check_outboxes(by_descriptor, poll)
        for descriptor, _ in poll.poll():
            connection = by_descriptor.get(descriptor)
            if connection is None:
                sandbox.check()
                continue
            if connection.outbox is not None and connection.outbox.waits:
                connection.outbox.flush()
                continue
            try:
                data = os.read(descriptor, READ_SIZE)
            except ConnectionResetError:
                data = b""
            if not data:
                if connection.decisive:
                    return
                del by_descriptor[descriptor]
                poll.unregister(descriptor)
                continue
            try:
                if not connection.handler.feed(data):
                    return
            except ClientGone:
                return


def _check_outboxes(connections: dict[int, Connection], poll: select.poll) -> None:
    """Wait for room where answers wait, and forget the clients that are gone or were dropped."""
    for descriptor, connection in tuple(connections.items()):
        if connection.outbox is None:
            continue
        if connection.outbox.is_open:
            poll.register(descriptor, select.POLLOUT if connection.outbox.waits else select.POLLIN)
        else:
            del connections[descriptor]
            poll.unregister(descriptor)
