"""Answers to a client that the server does not wait for."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from kvmbox.tools.qtest.outbox import MOST_UNSENT, Outbox
from kvmbox.tools.qtest.sandbox import Sandbox
from kvmbox.tools.qtest.server_loop import Connection, serve
from tests.support.patience import patience

PART = bytes(1 << 16)


class Client:
    """An outbox, and the other end of its connection."""

    def __init__(self) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.theirs.settimeout(patience(30))
        self.told: list[str] = []
        self.outbox = Outbox(self.ours, self.told.append)

    def fill(self) -> int:
        """Send until something waits; returns how many bytes were sent."""
        count = 0
        while not self.outbox.waits:
            self.outbox.send(PART)
            count += len(PART)
        return count

    def read(self, count: int) -> int:
        """Read so many bytes, or to the end; flushing as a server does."""
        found = 0
        while found < count and (part := self.theirs.recv(min(len(PART), count - found))):
            found += len(part)
            self.outbox.flush()
        return found


@pytest.fixture
def client() -> Iterator[Client]:
    client = Client()
    yield client
    client.ours.close()
    client.theirs.close()


def test_client_that_reads_late_gets_everything(client: Client) -> None:
    count = client.fill()
    assert client.read(count) == count
    assert not client.outbox.waits
    assert client.outbox.is_open
    assert client.told == []


def test_client_that_does_not_read_is_dropped_and_told_of_once(client: Client) -> None:
    client.fill()
    for _ in range(2 * MOST_UNSENT // len(PART)):
        client.outbox.send(PART)
    assert client.told == ["a client does not read its answers, and is dropped"]
    assert not client.outbox.is_open
    assert not client.outbox.waits
    # What the kernel holds is still for the client, and then comes the end.
    assert client.read(4 * MOST_UNSENT) < 2 * MOST_UNSENT


def test_client_that_hangs_up_is_gone_and_nobody_is_told(client: Client) -> None:
    client.theirs.close()
    client.outbox.send(b"x")
    client.outbox.send(b"y")
    assert not client.outbox.is_open
    assert client.told == []


class Ask:
    """Ends the server at a word, and answers through an outbox until then."""

    def __init__(self, outbox: Outbox | None = None, answer: bytes = b"") -> None:
        self.outbox, self.answer = outbox, answer
        self.fed = 0

    def feed(self, data: bytes) -> bool:
        self.fed += len(data)
        if self.outbox is not None:
            self.outbox.send(self.answer)
        return b"stop" not in data


def test_server_goes_on_beside_a_client_that_does_not_read(client: Client) -> None:
    main, main_end = socket.socketpair()
    asker = Ask(client.outbox, PART)
    count = client.fill()
    client.theirs.sendall(b"more")
    with main, main_end:
        main_end.sendall(b"stop")
        serve(
            [
                Connection(client.ours.fileno(), asker, decisive=False, outbox=client.outbox),
                Connection(main.fileno(), Ask(), decisive=True),
            ],
            Sandbox(),
        )
    assert asker.fed == 0, "nothing is read from a client while answers wait for it"
    assert client.read(count) == count


def test_server_sends_the_rest_when_a_client_reads_again(client: Client) -> None:
    main, main_end = socket.socketpair()
    count = client.fill()
    found: list[int] = []

    def read_and_stop() -> None:
        try:
            while sum(found) < count and (part := client.theirs.recv(len(PART))):
                found.append(len(part))
        finally:
            main_end.sendall(b"stop")

    reader = threading.Thread(target=read_and_stop)
    with main, main_end:
        reader.start()
        serve(
            [
                Connection(client.ours.fileno(), Ask(), decisive=False, outbox=client.outbox),
                Connection(main.fileno(), Ask(), decisive=True),
            ],
            Sandbox(),
        )
        reader.join()
    assert sum(found) == count


def test_server_forgets_a_client_that_was_dropped(client: Client) -> None:
    main, main_end = socket.socketpair()

    class Dropping(Ask):
        def feed(self, data: bytes) -> bool:
            super().feed(data)
            main_end.sendall(b"stop")
            return True

    dropping = Dropping(client.outbox, bytes(2 * MOST_UNSENT + (1 << 23)))
    client.theirs.sendall(b"x")
    with main, main_end:
        serve(
            [
                Connection(client.ours.fileno(), dropping, decisive=False, outbox=client.outbox),
                Connection(main.fileno(), Ask(), decisive=True),
            ],
            Sandbox(),
        )
    assert dropping.fed == 1
    assert len(client.told) == 1
