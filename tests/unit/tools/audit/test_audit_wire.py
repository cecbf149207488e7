"""Requests and frames of audit and payload survive the way, whole or in pieces; nothing else does."""

from __future__ import annotations

import pytest

from kvmbox.tools.audit import wire


def test_request_with_values_comes_back() -> None:
    given = {"path": "/etc/a=b", "pid": "12"}

    assert wire.decode_request(wire.encode_request("read-file", given)) == ("read-file", given)


def test_request_with_a_line_break_is_refused() -> None:
    with pytest.raises(ValueError, match="request"):
        wire.encode_request("read-file", {"path": "a\nb=c"})


def test_request_too_long_is_refused() -> None:
    with pytest.raises(ValueError, match="request"):
        wire.encode_request("read-file", {"path": "a" * wire.MAXIMUM_REQUEST})


def test_frame_in_pieces_is_whole_with_the_last_one() -> None:
    frame = wire.encode_frame(wire.STOPPED, 13, "openat", b"so far")

    assert [wire.decode_frame(frame[:end]) for end in range(len(frame))] == [None] * len(frame)
    assert wire.decode_frame(frame) == (wire.STOPPED, 13, "openat", b"so far", b"")


def test_two_frames_in_one_read_come_apart() -> None:
    data = wire.encode_frame(wire.BEGUN) + wire.encode_frame(wire.DONE, evidence=b"x")

    first = wire.decode_frame(data)
    assert first is not None
    assert first[0] == wire.BEGUN
    assert wire.decode_frame(first[4]) == (wire.DONE, 0, "", b"x", b"")


def test_frame_of_unknown_kind_is_refused() -> None:
    with pytest.raises(wire.WireError):
        wire.decode_frame(wire.HEADER.pack(9, 0, 0, 0))


def test_frame_with_a_length_beyond_the_bound_is_refused() -> None:
    with pytest.raises(wire.WireError):
        wire.decode_frame(wire.HEADER.pack(wire.DONE, 0, 0, wire.MAXIMUM_EVIDENCE + 1))


def test_evidence_too_long_is_cut() -> None:
    frame = wire.decode_frame(wire.encode_frame(wire.DONE, evidence=bytes(5000)))

    assert frame is not None
    assert len(frame[3]) == wire.MAXIMUM_EVIDENCE
    assert len(wire.encode_frame(wire.DONE, 0, "x" * 5000, bytes(5000))) <= wire.MAXIMUM_FRAME
