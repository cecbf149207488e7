"""A port: between a wire that a test holds and the virtio device, walked rings and all."""

from __future__ import annotations

import os
import socket
import struct
from collections import deque
from pathlib import Path
from typing import Any

import pytest

from kvmbox.base.errors import StartError
from kvmbox.devices.virtio import mmio
from kvmbox.devices.virtio.board import virtio_net
from kvmbox.devices.virtio.net import RECEIVED, SENT
from kvmbox.parts.net.pcap import Capture
from kvmbox.parts.net.port import MOST_OFFERED, MOST_WAITING, Port
from kvmbox.parts.net.wires import CutError, Wire, wire_of
from tests.support.virtio_driver import WRITE, Driver
from tests.support.virtio_rig import READY, VirtioRig

HEADER = 12
BUFFERS = 0x8000
FRAME = bytes(range(60))


class HeldWire(Wire):
    """Takes `room` frames, and has what the test puts there."""

    def __init__(self) -> None:
        self.room = 1 << 30
        self.taken: list[bytes] = []
        self.coming: list[bytes] = []
        self.is_cut = False

    def send(self, frame: bytes) -> bool:
        if self.is_cut:
            raise CutError("cut by the test")
        if self.room:
            self.room -= 1
            self.taken.append(frame)
            return True
        return False

    def receive(self) -> list[bytes]:
        if self.is_cut:
            raise CutError("cut by the test")
        frames, self.coming = self.coming, []
        return frames


class Link:
    """A guest with a driver, its port, and the wire."""

    def __init__(self, capture: Capture | None = None) -> None:
        self.wire = HeldWire()
        self.port = Port("net0", self.wire, capture)
        self.rig = VirtioRig(virtio_net(0, bytes(6)), self.port)
        self.rig.start(queues=2)

    def send(self, *frames: bytes) -> None:
        driver = self.rig.drivers[SENT]
        for number, frame in enumerate(frames):
            place = BUFFERS + 0x800 * number
            self.rig.memory.write(place, bytes(HEADER) + frame)
            driver.chain((place, HEADER + len(frame), 0), first=number)
            driver.offer(number)
        self.rig.notify(SENT)

    def give(self, count: int, size: int = 1526) -> None:
        driver = self.rig.drivers[RECEIVED]
        for number in range(count):
            driver.chain((BUFFERS + 0x800 * number, size, WRITE), first=number)
            driver.offer(number)
        self.rig.notify(RECEIVED)

    def turn(self) -> None:
        self.port.move()
        self.port.feed(self.rig.channel, 0)

    def received(self) -> list[bytes]:
        return [
            self.rig.memory.read(BUFFERS + 0x800 * head + HEADER, size - HEADER)
            for head, size in self.rig.drivers[RECEIVED].take_used()
        ]

    @property
    def counts(self) -> dict[str, int]:
        return {name: count for name, count in self.port.facts().items() if count and name != "name"}


def numbered(number: int) -> bytes:
    return bytes((number,)) * (60 + number)


def test_sent_frames_are_on_the_wire_before_the_notification_is_over() -> None:
    link = Link()

    link.send(FRAME, numbered(2))
    assert link.wire.taken == [FRAME, numbered(2)]
    assert link.rig.drivers[SENT].take_used() == [(0, 0), (1, 0)]
    assert link.counts == {"sent": 2, "sent_bytes": 122}


@pytest.mark.parametrize("is_early", [True, False])
def test_buffers_that_were_there_before_the_driver_was_ready_are_filled(is_early: bool) -> None:
    link = Link()
    rig = link.rig
    rig.write(mmio.STATUS, 0)
    rig.negotiate(mmio.F_VERSION_1)
    rig.drivers = [Driver(rig.memory, 64, 0x1000 * (number + 1)) for number in range(2)]
    for number, driver in enumerate(rig.drivers):
        rig.publish(number, driver)
    if is_early:
        link.give(4)
    rig.write(mmio.STATUS, READY)
    if not is_early:
        link.give(4)

    link.wire.coming = [FRAME]
    link.turn()
    link.turn()
    assert link.received() == [FRAME]


def test_driver_that_starts_again_while_a_frame_is_offered_gets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    link = Link()
    link.give(2)
    link.turn()
    link.rig.write(mmio.STATUS, 0)
    link.wire.coming = [FRAME]
    channel = link.rig.channel
    request = channel.request

    def late(*arguments: Any, **named: Any) -> tuple[int, bytes]:
        monkeypatch.setattr(channel, "request", request)
        link.rig.start(queues=2)
        link.give(2)
        return request(*arguments, **named)

    monkeypatch.setattr(channel, "request", late)
    for _ in range(3):
        link.turn()
    assert link.received() == [FRAME]


def test_received_frames_are_in_the_guest_in_their_order() -> None:
    link = Link()
    link.give(8)

    link.wire.coming = [numbered(number) for number in range(3)]
    link.turn()
    assert link.received() == [numbered(number) for number in range(3)]
    assert link.rig.lines() == [1, 1, 1]
    assert link.counts == {"received": 3, "received_bytes": 183}


def test_nothing_is_read_before_the_guest_has_buffers() -> None:
    link = Link()
    link.wire.coming = [FRAME]

    link.turn()
    assert link.wire.coming == [FRAME]
    assert link.port.events == 0
    link.give(1)
    link.turn()
    assert link.received() == [FRAME]


def test_frames_wait_for_buffers_and_none_is_lost() -> None:
    link = Link()
    link.give(2)

    link.wire.coming = [numbered(number) for number in range(5)]
    link.turn()
    assert len(link.received()) == 2
    assert not link.port.has_room
    link.give(8)
    link.turn()
    assert link.received() == [numbered(number) for number in range(2, 5)]


def test_frame_for_which_the_guest_has_no_buffer_of_the_size_is_lost_and_counted() -> None:
    link = Link()
    link.give(2, size=100)

    link.wire.coming = [bytes(1514), FRAME]
    link.turn()
    assert link.received() == [FRAME]
    assert link.counts["lost_received"] == 1


@pytest.mark.parametrize("size", [0, 13, 1519, 60000])
def test_what_no_interface_takes_is_lost_and_counted(size: int) -> None:
    link = Link()
    link.give(2)

    link.wire.coming = [bytes(size)]
    link.turn()
    assert link.received() == []
    assert link.counts == {"lost_received": 1}


def test_frames_wait_for_a_full_wire_and_go_in_their_order() -> None:
    link = Link()
    link.wire.room = 1

    link.send(*[numbered(number) for number in range(4)])
    assert link.counts["waited"] == 3
    assert link.port.events & 4
    link.wire.room = 9
    link.turn()
    assert link.wire.taken == [numbered(number) for number in range(4)]


def test_guest_that_floods_a_full_wire_loses_frames_and_no_memory_grows() -> None:
    link = Link()
    link.wire.room = 0

    for _ in range(MOST_WAITING // 16 + 2):
        link.send(*[FRAME] * 16)
    assert link.counts["lost_sent"] == 32
    link.wire.room = 1 << 30
    link.turn()
    assert len(link.wire.taken) == MOST_WAITING


def test_cut_wire_loses_what_is_sent_and_the_guest_goes_on() -> None:
    link = Link()
    link.wire.is_cut = True

    link.send(FRAME, FRAME)
    link.turn()
    assert link.counts == {"sent": 2, "sent_bytes": 120, "lost_sent": 2, "cut": "cut by the test"}
    assert link.rig.drivers[SENT].take_used() == [(0, 0), (1, 0)]
    assert link.port.events == 0


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_SEQPACKET])
@pytest.mark.parametrize("has_read", [False, True])
def test_last_frames_of_a_peer_that_has_gone_are_received_though_a_send_has_met_its_end(
    kind: socket.SocketKind, *, has_read: bool
) -> None:
    ours, peer = socket.socketpair(socket.AF_UNIX, kind)
    link = Link()
    link.port.wire = wire_of(ours.detach())
    link.give(4)
    link.send(FRAME)
    if has_read:
        peer.recv(1000)
    for number in range(3):
        frame = numbered(number)
        peer.send(len(frame).to_bytes(4, "big") + frame if kind == socket.SOCK_STREAM else frame)
    peer.close()

    link.send(FRAME)
    link.turn()
    link.turn()
    assert link.received() == [numbered(number) for number in range(3)]
    assert link.counts["lost_sent"] == 1
    assert link.port.cut is not None
    assert link.port.events == 0
    link.port.close()


def test_frames_before_a_length_that_none_has_are_received() -> None:
    ours, peer = socket.socketpair()
    link = Link()
    link.port.wire = wire_of(ours.detach())
    link.give(1)

    with peer:
        peer.send((60).to_bytes(4, "big") + FRAME + b"\xff" * 8)
        link.turn()
    assert link.received() == [FRAME]
    link.turn()
    assert link.port.cut == "the peer sends a frame of 4294967295 bytes"
    link.port.close()


def test_parts_of_frames_that_are_not_offered_are_refused() -> None:
    link = Link()
    link.give(1)
    link.wire.coming = [FRAME] * (MOST_OFFERED + 2)
    link.turn()

    for offset, size in ((0, 61), (59, 2), (MOST_OFFERED << 16, 1)):
        with pytest.raises(OSError, match="frame"):
            link.port.read_now(offset, size)


def test_read_of_a_frame_that_is_just_taken_away_is_refused() -> None:
    class Vanishing(deque[bytes]):
        def __len__(self) -> int:
            return 1

    port = Port("net0", HeldWire())
    port.incoming = Vanishing()
    with pytest.raises(OSError, match="frame"):
        port.read_now(0, 1)


@pytest.mark.parametrize("has_reader", [False, True])
def test_capture_is_a_regular_file_and_no_pipe(tmp_path: Path, *, has_reader: bool) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK) if has_reader else -1

    with pytest.raises(StartError, match="is no regular file") as raised:
        Capture(str(path))
    assert raised.value.hint
    if has_reader:
        os.close(reader)


def test_capture_that_cannot_be_made_is_an_error_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="No such file") as raised:
        Capture(str(tmp_path / "none" / "net.pcap"))
    assert raised.value.hint


def test_capture_has_each_frame_with_its_time(tmp_path: Path) -> None:
    path = tmp_path / "net.pcap"
    link = Link(Capture(str(path)))
    link.port.now = lambda: 3_000_000_007
    link.give(1)

    link.send(FRAME)
    link.wire.coming = [numbered(1)]
    link.turn()
    link.port.close()
    data = path.read_bytes()
    assert struct.unpack_from("<IHHiIII", data) == (0xA1B23C4D, 2, 4, 0, 0, 65536, 1)
    assert data[24:] == b"".join(
        struct.pack("<IIII", 3, 7, len(frame), len(frame)) + frame for frame in (FRAME, numbered(1))
    )
