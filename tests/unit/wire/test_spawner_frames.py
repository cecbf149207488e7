"""The frames between the VMM and the spawner, and messages that carry descriptors."""

from __future__ import annotations

import os

import pytest

from kvmbox.jail import descriptor_passing
from kvmbox.wire import spawner_frames as frames


def test_unpack_packed_frame_gives_fields_back() -> None:
    frame = frames.pack(frames.READY, 7, -1, 0x7FF, b"rest")
    assert frames.unpack(frame) == (frames.READY, 7, -1, 0x7FF, b"rest")


def test_unpack_short_frame_is_refused() -> None:
    with pytest.raises(frames.FrameError):
        frames.unpack(frames.pack(frames.HELLO)[:-1])


def test_unpack_spawn_packed_gives_fields_back() -> None:
    assert frames.unpack_spawn(frames.pack_spawn(1, "uart", b"\x06bpf")) == (1, "uart", b"\x06bpf")


@pytest.mark.parametrize("payload", [b"", b"\x00", b"\x00\x05uar"])
def test_unpack_spawn_cut_short_is_refused(payload: bytes) -> None:
    with pytest.raises(frames.FrameError):
        frames.unpack_spawn(payload)


def test_pack_spawn_too_long_is_refused() -> None:
    with pytest.raises(frames.FrameError):
        frames.pack_spawn(0, "x" * 256, b"")
    with pytest.raises(frames.FrameError):
        frames.pack_spawn(0, "uart", bytes(descriptor_passing.MAXIMUM_MESSAGE))


def test_text_payload_is_bounded() -> None:
    assert len(frames.text_payload("é" * 4000)) == frames.MAXIMUM_TEXT


def test_receive_message_brings_descriptor() -> None:
    one, other = descriptor_passing.socket_pair()
    reading, writing = os.pipe()
    descriptor_passing.send(one, b"take", [writing])
    os.close(writing)

    message = descriptor_passing.receive(other)

    assert message is not None
    text, (received,) = message
    os.write(received, b"through")
    assert (text, os.read(reading, 16)) == (b"take", b"through")
    assert not os.get_inheritable(received)
    for descriptor in (one, other, reading, received):
        os.close(descriptor)


def test_receive_nothing_yet_raises_and_end_gives_none() -> None:
    one, other = descriptor_passing.socket_pair()
    with pytest.raises(BlockingIOError):
        descriptor_passing.receive(other, wait=False)
    os.close(one)
    assert descriptor_passing.receive(other) is None
    os.close(other)


def test_receive_too_many_descriptors_closes_them() -> None:
    one, other = descriptor_passing.socket_pair()
    before = os.listdir("/proc/self/fd")
    descriptor_passing.send(one, b"five", [0, 1, 2, one, other])
    with pytest.raises(descriptor_passing.CutShortError):
        descriptor_passing.receive(other)
    assert os.listdir("/proc/self/fd") == before
    os.close(one)
    os.close(other)


def test_receive_peer_gone_with_unread_message_gives_its_last_words() -> None:
    one, other = descriptor_passing.socket_pair()
    descriptor_passing.send(one, b"unread")
    descriptor_passing.send(other, b"last words")
    os.close(other)
    assert descriptor_passing.receive(one) == (b"last words", [])
    assert descriptor_passing.receive(one) is None
    os.close(one)
