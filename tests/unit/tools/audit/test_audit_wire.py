"""Requests and frames of audit and payload survive the way, whole or in pieces; nothing else does."""

from __future__ import annotations

import pytest

from kvmbox.tools.audit import payload_frames


def test_request_with_values_comes_back() -> None:
    given = {"path": "/etc/a=b", "pid": "12"}

    assert payload_frames.decode_request(payload_frames.encode_request("read-file", given)) == (
        "read-file",
        given,
    )


def test_request_with_a_line_break_is_refused() -> None:
    with pytest.raises(ValueError, match="request"):
        payload_frames.encode_request("read-file", {"path": "a\nb=c"})


def test_request_too_long_is_refused() -> None:
    with pytest.raises(ValueError, match="request"):
        payload_frames.encode_request("read-file", {"path": "a" * payload_frames.MAXIMUM_REQUEST})


def test_frame_in_pieces_is_whole_with_the_last_one() -> None:
    frame = payload_frames.encode_frame(payload_frames.STOPPED, 13, "openat", b"so far")

    assert [payload_frames.decode_frame(frame[:end]) for end in range(len(frame))] == [None] * len(frame)
    assert payload_frames.decode_frame(frame) == (payload_frames.STOPPED, 13, "openat", b"so far", b"")


def test_two_frames_in_one_read_come_apart() -> None:
    data = payload_frames.encode_frame(payload_frames.BEGUN) + payload_frames.encode_frame(
        payload_frames.DONE, evidence=b"x"
    )

    first = payload_frames.decode_frame(data)
    assert first is not None
    assert first[0] == payload_frames.BEGUN
    assert payload_frames.decode_frame(first[4]) == (payload_frames.DONE, 0, "", b"x", b"")


def test_frame_of_unknown_kind_is_refused() -> None:
    with pytest.raises(payload_frames.WireError):
        payload_frames.decode_frame(payload_frames.HEADER.pack(9, 0, 0, 0))


def test_frame_with_a_length_beyond_the_bound_is_refused() -> None:
    with pytest.raises(payload_frames.WireError):
        payload_frames.decode_frame(
            payload_frames.HEADER.pack(payload_frames.DONE, 0, 0, payload_frames.MAXIMUM_EVIDENCE + 1)
        )


def test_evidence_too_long_is_cut() -> None:
    frame = payload_frames.decode_frame(
        payload_frames.encode_frame(payload_frames.DONE, evidence=bytes(5000))
    )

    assert frame is not None
    assert len(frame[3]) == payload_frames.MAXIMUM_EVIDENCE
    assert (
        len(payload_frames.encode_frame(payload_frames.DONE, 0, "x" * 5000, bytes(5000)))
        <= payload_frames.MAXIMUM_FRAME
    )
