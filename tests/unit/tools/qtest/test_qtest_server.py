"""The loop: lines of any size from any pieces, several connections, and the ways to end."""

from __future__ import annotations

import os
import select
import signal
import socket
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmbox.base.errors import DeviceProcessError, HostOutputError
from kvmbox.tools.qtest.sandbox import Sandbox
from kvmbox.tools.qtest.server_loop import (
    ClientGone,
    Connection,
    LineReader,
    Terminated,
    end_on_sigterm,
    send_to,
    serve,
)


class Lines:
    """What a LineReader with a small limit made of its input: lines, and None for each refused one."""

    def __init__(self, limit: int = 8) -> None:
        self.got: list[bytes | None] = []
        self.reader = LineReader(self.got.append, lambda: self.got.append(None), limit)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """`data` in pieces that end at `places`."""
    bounds = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(bounds)]


SOME_LINES = st.lists(st.integers(0, 12).map(lambda length: b"x" * length), max_size=5).map(b"\n".join)


@given(SOME_LINES, st.lists(st.integers(0, 64), max_size=5))
def test_lines_do_not_depend_on_how_the_bytes_come(data: bytes, places: list[int]) -> None:
    lines = Lines()
    for piece in cut(data, places):
        assert lines.reader.feed(piece)
    complete = data.split(b"\n")[:-1]
    assert lines.got == [line if len(line) <= 8 else None for line in complete]


def test_line_without_an_end_is_no_line() -> None:
    lines = Lines()
    lines.reader.feed(b"inb")
    assert lines.got == []


def test_endless_line_is_not_kept() -> None:
    lines = Lines()
    for _ in range(1000):
        lines.reader.feed(b"x" * 7)
    assert len(lines.reader._pending) <= 8
    lines.reader.feed(b"\nok\n")
    assert lines.got == [None, b"ok"]


class Echo:
    """A handler that keeps what it was fed, and stops the server at a word."""

    def __init__(self, stop: bytes = b"stop") -> None:
        self.fed = b""
        self.stop = stop

    def feed(self, data: bytes) -> bool:
        self.fed += data
        return self.stop not in self.fed


@pytest.fixture
def pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair()


def test_server_ends_with_its_decisive_client(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    with ours, theirs:
        echo = Echo()
        theirs.sendall(b"hello")
        theirs.shutdown(socket.SHUT_WR)
        serve([Connection(ours.fileno(), echo, decisive=True)], Sandbox())
        assert echo.fed == b"hello"


def test_server_outlives_another_client_and_ends_when_a_handler_says_so() -> None:
    # The lower descriptor is looked at first: the client that leaves.
    (second, second_end), (first, first_end) = socket.socketpair(), socket.socketpair()
    with first, first_end, second, second_end:
        first_echo, second_echo = Echo(), Echo()
        second_end.close()
        first_end.sendall(b"stop")
        connections = [
            Connection(second.fileno(), second_echo, decisive=False),
            Connection(first.fileno(), first_echo, decisive=True),
        ]
        serve(connections, Sandbox())
        assert first_echo.fed == b"stop"


def test_client_that_is_gone_before_its_answer_ends_the_server(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = pair

    class Gone:
        def feed(self, data: bytes) -> bool:
            raise ClientGone

    with ours, theirs:
        theirs.sendall(b"x")
        serve([Connection(ours.fileno(), Gone(), decisive=True)], Sandbox())


def test_failing_device_process_is_noticed_between_requests(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = pair

    class Failing(Sandbox):
        def watch(self, poll: select.poll) -> None:
            poll.register(theirs.fileno(), select.POLLOUT)  # ready at once

        def check(self) -> None:
            raise DeviceProcessError("pit", "was killed")

    with ours, theirs, pytest.raises(DeviceProcessError, match="'pit' was killed"):
        serve([Connection(ours.fileno(), Echo(), decisive=True)], Failing())


def test_answer_to_a_closed_socket_is_a_client_that_is_gone(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = pair
    with ours:
        theirs.close()
        with pytest.raises(ClientGone):
            send_to(ours.fileno(), is_socket=True)(b"OK\n")


def test_answer_to_a_closed_pipe_is_lost_output() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    try:
        with pytest.raises(HostOutputError, match="cannot write the answer: Broken pipe"):
            send_to(write_end, is_socket=False)(b"OK\n")
    finally:
        os.close(write_end)


def test_sigterm_ends_a_waiting_server_once(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    before = signal.getsignal(signal.SIGTERM)

    class Killer:
        def feed(self, data: bytes) -> bool:
            os.kill(os.getpid(), signal.SIGTERM)
            return True

    try:
        end_on_sigterm()
        with ours, theirs:
            theirs.sendall(b"x")
            with pytest.raises(Terminated):
                serve([Connection(ours.fileno(), Killer(), decisive=True)], Sandbox())
        os.kill(os.getpid(), signal.SIGTERM)  # while everything is being closed: ignored
    finally:
        signal.signal(signal.SIGTERM, before)
