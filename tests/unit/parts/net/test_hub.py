"""The switch: who gets which frame, and what a machine that does not read loses."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from kvmbox.base.errors import StartError
from kvmbox.host.sockets.unix_socket import listen_at
from kvmbox.parts.net.hub import HELLO, MOST_ADDRESSES, MOST_PORTS, Table, serve
from kvmbox.parts.net.switch import SwitchPort, join
from tests.support.patience import patience

A, B, C = (bytes((2, 0, 0, 0, 0, number)) for number in range(3))
EVERYBODY = b"\xff" * 6


def frame(destination: bytes, source: bytes, size: int = 60) -> bytes:
    return (destination + source).ljust(size, b"\x5a")


class Machine:
    """A member that keeps nothing."""

    def send(self, frame: bytes) -> None:
        raise AssertionError


def test_frame_goes_to_all_others_until_its_destination_was_seen() -> None:
    table, members = Table(), [Machine(), Machine(), Machine()]
    a, b, c = members

    assert table.receivers(a, frame(B, A), members) == [b, c]
    assert table.receivers(b, frame(A, B), members) == [a]
    assert table.receivers(a, frame(B, A), members) == [b]
    assert table.receivers(c, frame(EVERYBODY, C), members) == [a, b]


def test_machine_that_moves_is_found_again_and_one_that_leaves_is_not() -> None:
    table, members = Table(), [Machine(), Machine(), Machine()]
    table.receivers(members[0], frame(EVERYBODY, A), members)
    table.receivers(members[1], frame(EVERYBODY, A), members)

    assert table.receivers(members[2], frame(A, C), members) == [members[1]]
    table.forget(members[1])
    assert table.receivers(members[2], frame(A, C), members) == members[:2]


def test_nothing_goes_back_where_it_came_from() -> None:
    table, members = Table(), [Machine(), Machine()]

    assert table.receivers(members[0], frame(A, A), members) == []


@pytest.mark.parametrize("size", [0, 11, (1 << 14) + 1])
def test_what_is_no_frame_goes_nowhere(size: int) -> None:
    members = [Machine(), Machine()]

    assert Table().receivers(members[0], frame(EVERYBODY, A, size)[:size], members) == []


def test_group_as_source_is_not_learnt() -> None:
    table, members = Table(), [Machine(), Machine(), Machine()]

    table.receivers(members[0], frame(A, EVERYBODY), members)
    assert len(table.receivers(members[1], frame(EVERYBODY, B), members)) == 2


def test_table_forgets_the_oldest_address() -> None:
    table, members = Table(), [Machine(), Machine(), Machine()]
    table.receivers(members[0], frame(EVERYBODY, A), members)

    for number in range(MOST_ADDRESSES):
        table.receivers(members[1], frame(EVERYBODY, b"\2\1" + number.to_bytes(4, "big")), members)
    assert table.receivers(members[2], frame(A, C), members) == members[:2]


@pytest.fixture
def path(tmp_path: Path) -> Iterator[str]:
    """The socket of a switch that runs in a thread, and ends by itself."""
    (tmp_path / "kvmbox").mkdir(0o700)
    path = str(tmp_path / "kvmbox" / "switch-full")
    listener = listen_at(path, socket.SOCK_SEQPACKET)
    thread = threading.Thread(target=serve, args=(listener,), daemon=True)
    thread.start()
    yield path
    thread.join(patience(10))
    listener.close()
    assert not thread.is_alive()


def connected(path: str) -> socket.socket:
    port = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    port.settimeout(patience(10))
    port.connect(path)
    assert port.recv(100) == HELLO
    return port


def test_machine_without_a_port_is_told_and_starts_no_second_switch(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(Path(path).parents[1]))
    with ExitStack() as machines:
        for _ in range(MOST_PORTS):
            machines.enter_context(connected(path))
        with pytest.raises(StartError, match=f"{MOST_PORTS} machines") as raised:
            join("full")
    assert raised.value.hint


def test_machine_that_does_not_read_loses_frames_and_is_told_how_many(path: str) -> None:
    sender, reader, sleeper = (connected(path) for _ in range(3))
    with sender, reader:
        for _ in range(2000):
            sender.send(frame(EVERYBODY, A, 1000))
            assert reader.recv(2000) == bytes(4) + frame(EVERYBODY, A, 1000)
        sleeper.setblocking(False)
        late = SwitchPort(sleeper.detach())
        found = 0
        while frames := late.receive():
            found += len(frames)
        last = frame(EVERYBODY, A, 61)
        sender.send(last)
        reader.recv(2000)
        frames = []
        while frames[-1:] != [last]:
            frames += late.receive()
        assert found + len(frames) < 2000
        assert late.lost == 2001 - found - len(frames)
        late.close()
