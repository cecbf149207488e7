"""The socket or the pipe of --gdb, which nobody waits for."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvmbox.base.errors import StartError
from kvmbox.host.files.atomic_file import TemporaryFile
from kvmbox.host.sockets.client_link import MOST_UNSENT, Link
from kvmbox.host.sockets.endpoint import Endpoint


class Rig:
    """A link at a Unix socket, which a poll set watches."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.link = Link(Endpoint(str(place)), None)
        self.poll = select.poll()
        self.link.watch(self.poll)

    def client(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(self.place))
        return connection

    def turn(self) -> list[bytes | None]:
        """What the link gives for each descriptor that is ready."""
        return [self.link.handle() for one, _ in self.poll.poll(0) if self.link.is_mine(one)]


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path / "gdb.sock")
    yield rig
    rig.link.close()


def test_one_client_at_a_time(rig: Rig) -> None:
    assert rig.turn() == []
    with rig.client() as first, rig.client() as second:
        assert rig.turn() == [b""]
        assert rig.link.has_client
        second.sendall(b"second")
        assert rig.turn() == []
        first.sendall(b"first")
        assert rig.turn() == [b"first"]
        first.close()
        assert rig.turn() == [None]
        rig.link.drop()
        assert not rig.link.has_client
        assert [*rig.turn(), *rig.turn()] == [b"", b"second"]
        assert rig.link.send(b"hello") is None
        assert second.recv(100) == b"hello"


def test_client_that_reads_nothing_is_not_read_either_and_given_up(rig: Rig) -> None:
    with rig.client() as client:
        rig.turn()
        assert rig.link.send(bytes(MOST_UNSENT)) is None  # more than the kernel takes
        client.sendall(b"more")
        assert rig.turn() == []
        assert rig.link.send(bytes(MOST_UNSENT + 1)) == "the client of --gdb does not read its answers"


def test_client_that_has_gone_is_not_blamed_for_reading_nothing(rig: Rig) -> None:
    with rig.client():
        rig.turn()
    assert rig.link.send(b"hello") == ""


def test_last_bytes_reach_a_client_that_reads(rig: Rig) -> None:
    with rig.client() as client:
        rig.turn()
        rig.link.send(b"W1f")
        rig.link.finish()
        assert client.recv(100) == b"W1f"
        assert client.recv(100) == b""


def test_client_that_takes_the_last_bytes_slowly_gets_no_more_time(rig: Rig) -> None:
    with rig.client() as client:
        rig.turn()
        rig.link.send(bytes(MOST_UNSENT))
        taken: list[int] = []

        def now() -> float:
            taken.append(len(client.recv(4096)))
            return 0.4 * len(taken)

        rig.link.finish(now)
        assert len(taken) < 6
        while data := client.recv(1 << 16):
            taken.append(len(data))
        assert sum(taken) < MOST_UNSENT


def test_name_of_the_socket_goes_with_the_link(rig: Rig) -> None:
    assert rig.place.is_socket()
    rig.link.close()
    rig.link.close()
    assert not rig.place.exists()


def test_other_process_removes_the_name_where_the_vmm_may_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = TemporaryFile("gdb.sock")
    (tmp_path / "gdb.sock").touch()
    monkeypatch.chdir("/")
    file.commit()
    assert (tmp_path / "gdb.sock").exists()
    file.abandon()
    file.abandon()
    assert not (tmp_path / "gdb.sock").exists()


@pytest.mark.parametrize(
    ("place", "hint"), [("taken", "left the file"), ("no/such/directory", "another directory")]
)
def test_place_where_nobody_can_listen_is_an_error_with_a_hint(place: str, hint: str, tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    with pytest.raises(StartError, match="cannot listen at") as caught:
        Link(Endpoint(str(tmp_path / place)), None)
    assert hint in str(caught.value.hint)
    assert (tmp_path / "taken").exists()


def test_pipe_is_two_descriptors() -> None:
    to_link, to_client = os.pipe(), os.pipe()
    link = Link(Endpoint(), (to_link[0], to_client[1]))
    poll = select.poll()
    link.watch(poll)
    os.write(to_link[1], b"+")
    assert [link.handle() for _ in poll.poll(0)] == [b"+"]
    assert link.send(b"hello") is None
    assert os.read(to_client[0], 100) == b"hello"
    link.close()
    assert os.read(to_client[0], 100) == b""
    os.close(to_client[0])
    os.close(to_link[1])
