"""Wires: frames on real sockets, in pieces, and peers that are gone or send nonsense."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from kvmbox.base.errors import StartError
from kvmbox.host.sockets.unix_socket import listen_at
from kvmbox.host.time.guest_clock import GuestClock
from kvmbox.parts.net.net_option import net
from kvmbox.parts.net.part import Wires
from kvmbox.parts.net.port import Port
from kvmbox.parts.net.wire_backends import Listening, open_wire
from kvmbox.parts.net.wires import MOST_FRAMES, CutError, Loop, Packets, Stream, wire_of
from kvmbox.remote.channel.connection import Channel

FRAME = bytes(range(60))
SENT = (60).to_bytes(4, "big") + FRAME


class Pair:
    """Two connected sockets: the descriptor of ours, which the wire closes, and the peer's."""

    def __init__(self, kind: socket.SocketKind) -> None:
        ours, self.peer = socket.socketpair(socket.AF_UNIX, kind)
        self.ours = ours.detach()
        os.set_blocking(self.ours, False)


@pytest.fixture
def stream() -> Iterator[Pair]:
    pair = Pair(socket.SOCK_STREAM)
    with pair.peer:
        yield pair


@pytest.fixture
def packets() -> Iterator[Pair]:
    pair = Pair(socket.SOCK_SEQPACKET)
    with pair.peer:
        yield pair


def test_stream_has_each_frame_behind_its_length(stream: Pair) -> None:
    wire = Stream(stream.ours)

    assert wire.send(FRAME)
    assert stream.peer.recv(1000) == SENT
    stream.peer.send(SENT + SENT)
    assert wire.receive() == [FRAME, FRAME]
    assert wire.receive() == []
    wire.close()


def test_stream_in_pieces_gives_whole_frames(stream: Pair) -> None:
    wire = Stream(stream.ours)
    found = []

    for place in range(0, 2 * len(SENT), 7):
        stream.peer.send((SENT + SENT)[place : place + 7])
        found += wire.receive()
    assert found == [FRAME, FRAME]
    wire.close()


def test_full_stream_takes_no_frame_and_keeps_the_rest_of_one(stream: Pair) -> None:
    wire = Stream(stream.ours)
    count = 0
    while wire.send(bytes(1514)):
        count += 1

    # What is sent is a number of whole frames, once the peer has read.
    total = b""
    while len(total) < count * 1518:
        total += stream.peer.recv(1 << 16)
        wire.flush()
    assert total == ((1514).to_bytes(4, "big") + bytes(1514)) * count
    assert wire.unsent == b""
    assert wire.send(FRAME)
    wire.close()


def test_length_that_no_frame_has_cuts_the_wire(stream: Pair) -> None:
    wire = Stream(stream.ours)

    stream.peer.send(b"\xff" * 8)
    with pytest.raises(CutError, match="4294967295"):
        wire.receive()
    wire.close()


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_SEQPACKET])
def test_peer_that_leaves_cuts_the_wire(kind: socket.SocketKind) -> None:
    pair = Pair(kind)
    wire = wire_of(pair.ours)
    pair.peer.close()

    with pytest.raises(CutError):
        wire.receive()
    wire.close()


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_SEQPACKET])
def test_last_frames_come_before_the_end(kind: socket.SocketKind) -> None:
    pair = Pair(kind)
    wire = wire_of(pair.ours)
    pair.peer.send(SENT if kind == socket.SOCK_STREAM else FRAME)
    pair.peer.close()

    assert wire.receive() == [FRAME]
    with pytest.raises(CutError, match="the peer has gone"):
        wire.receive()
    wire.close()


def test_packets_are_frames(packets: Pair) -> None:
    wire = Packets(packets.ours)

    assert wire.send(FRAME)
    assert packets.peer.recv(1000) == FRAME
    for _ in range(MOST_FRAMES + 1):
        packets.peer.send(FRAME)
    assert wire.receive() == [FRAME] * MOST_FRAMES
    assert wire.receive() == [FRAME]
    wire.close()


def test_full_packet_socket_takes_no_frame(packets: Pair) -> None:
    wire = Packets(packets.ours)
    while wire.send(bytes(1514)):
        pass

    packets.peer.recv(2000)
    assert wire.send(FRAME)
    wire.close()


def test_loop_gives_back_and_wakes() -> None:
    woken: list[None] = []
    wire = Loop(lambda: woken.append(None))

    assert all(wire.send(FRAME) for _ in range(MOST_FRAMES))
    assert not wire.send(FRAME)
    assert len(woken) == MOST_FRAMES
    assert wire.receive() == [FRAME] * MOST_FRAMES
    assert wire.receive() == []


def test_descriptor_decides_how_frames_are_kept_apart(stream: Pair, packets: Pair) -> None:
    assert isinstance(wire_of(stream.ours), Stream)
    assert isinstance(wire_of(packets.ours), Packets)
    for pair in (stream, packets):
        os.close(pair.ours)


def test_descriptor_that_is_none_or_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="--net fd:999"):
        wire_of(999)
    with (
        (tmp_path / "file").open("wb") as file,
        pytest.raises(StartError, match="neither a socket nor a tap"),
    ):
        wire_of(file.fileno())


def test_descriptor_of_another_kind_is_left_as_it_is(tmp_path: Path) -> None:
    with listen_at(str(tmp_path / "net.sock")) as listener:
        null = os.open("/dev/null", os.O_RDWR)
        for descriptor in (null, listener.fileno()):
            with pytest.raises(StartError, match="neither a socket nor a tap") as raised:
                wire_of(descriptor)
            assert raised.value.hint
            assert os.get_blocking(descriptor)
        os.close(null)


def test_descriptor_that_a_command_has_not_inherited_is_refused(stream: Pair) -> None:
    with pytest.raises(StartError, match="was not inherited") as raised:
        open_wire(net(f"fd:{stream.ours}"), lambda: None, is_command=True)
    assert raised.value.hint
    os.close(stream.ours)


def test_interface_that_is_not_there_is_not_made() -> None:
    with pytest.raises(StartError, match="there is no such interface") as raised:
        open_wire(net("tap:kvmbox-none"), lambda: None)
    assert "ip tuntap add" in (raised.value.hint or "")


def test_socket_that_listens_serves_one_client_after_another(tmp_path: Path) -> None:
    wire = Listening(str(tmp_path / "net.sock"))
    with pytest.raises(OSError):
        wire.send(FRAME)

    for _ in range(2):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / "net.sock"))
            assert wire.receive() == []
            assert wire.send(FRAME)
            assert client.recv(1000) == SENT
            client.send(SENT)
            assert wire.receive() == [FRAME]
        assert wire.receive() == []
    wire.close()


def test_socket_file_that_is_left_is_an_error_with_a_hint_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "net.sock"
    with listen_at(str(path)), pytest.raises(StartError, match="in use") as raised:
        open_wire(net(f"socket:unix:{path},listen"), lambda: None)
    assert "left the file" in (raised.value.hint or "")
    assert path.exists()


def test_client_that_is_gone_is_closed_by_the_thread_that_polls_it(tmp_path: Path) -> None:
    wire = Listening(str(tmp_path / "net.sock"))
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "net.sock"))
        wire.receive()
    polled = wire.descriptor

    for _ in range(2):
        with pytest.raises(ConnectionError):
            wire.send(FRAME)
    os.fstat(polled)
    assert wire.descriptor == polled
    assert wire.receive() == []
    assert wire.descriptor != polled
    wire.close()


def test_descriptor_that_the_main_loop_has_given_up_is_no_error(tmp_path: Path) -> None:
    port, poll = Port("net0", Listening(str(tmp_path / "net.sock"))), select.poll()
    wires = Wires([(port, cast(Channel, None), 0)])
    port.has_room = True
    wires.watch(poll)

    poll.unregister(port.wire.descriptor)
    port.cut = "by the test"
    wires.tick(cast(GuestClock, None))
    port.close()


def test_peer_that_is_not_there_is_an_error_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="No such file") as raised:
        open_wire(net(f"socket:unix:{tmp_path / 'none'}"), lambda: None)
    assert "listen" in (raised.value.hint or "")
