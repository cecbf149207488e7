"""The in-memory end of a serial port: what is kept, what is found, and how a wait for it ends."""

from __future__ import annotations

import re
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmbox.base.errors import ExpectError, UsageError
from kvmbox.host.console.captured_port import Capture, CaptureStream
from tests.support.patience import patience

PATIENCE_S = patience(30.0)


def printed(*pieces: bytes, limit: int = 100) -> Capture:
    capture = Capture(limit=limit)
    for piece in pieces:
        capture.append(piece)
    return capture


@given(pieces=st.lists(st.binary(max_size=12)), limit=st.integers(1, 20))
def test_output_is_the_last_bytes_and_the_others_are_counted(pieces: list[bytes], limit: int) -> None:
    capture = printed(*pieces, limit=limit)
    everything = b"".join(pieces)
    assert capture.output == everything[-limit:]
    assert capture.dropped == max(0, len(everything) - limit)


@pytest.mark.parametrize("limit", [0, -1])
def test_limit_that_keeps_nothing_is_refused(limit: int) -> None:
    with pytest.raises(UsageError, match="cannot keep"):
        Capture(limit=limit)


def test_expect_goes_on_behind_what_it_has_found() -> None:
    capture = printed(b"a1 a2 a", b"3")
    assert [capture.expect(rb"a(\d)", 0)[1] for _ in range(3)] == [b"1", b"2", b"3"]
    with pytest.raises(ExpectError):
        capture.expect(rb"a", 0)


def test_expect_goes_on_behind_what_it_has_found_where_older_output_is_dropped() -> None:
    capture = printed(b"abcdef", limit=6)
    capture.expect(b"bc", 0)
    capture.append(b"gh")  # "ab" is gone
    assert capture.expect(b"(?s).", 0)[0] == b"d"
    capture.append(b"0123456789")  # all that was searched is gone
    assert capture.expect(b"(?s).", 0)[0] == b"4"


def test_expect_takes_text_bytes_and_compiled_patterns() -> None:
    capture = printed("grün ROT blau".encode())
    capture.expect("grün", 0)
    capture.expect(re.compile(b"rot", re.IGNORECASE), 0)
    capture.expect(b"bla+u$", 0)


def test_expect_not_seen_tells_the_pattern_and_the_end_of_the_output() -> None:
    capture = printed(b"x" * 1000 + b"the end", limit=2000)
    with pytest.raises(
        ExpectError, match=r"^'login: ' was not seen within 0 s; .* with 'x*the end'$"
    ) as caught:
        capture.expect(rb"login: ", 0)
    assert len(str(caught.value)) < 300
    assert caught.value.output == capture.output
    with pytest.raises(ExpectError, match="ends with nothing"):
        Capture().expect("x", 0)


def test_expect_waits_for_output_and_for_the_end() -> None:
    capture = Capture()
    with ThreadPoolExecutor(2) as threads:
        waiting = [threads.submit(capture.expect, pattern) for pattern in (b"never", b"\n")]
        capture.append(b"late")
        capture.append(b"r\n")
        assert waiting[1].result(PATIENCE_S)[0] == b"\n"
        assert not waiting[0].done()
        capture.end()
        with pytest.raises(ExpectError, match="before the guest ended"):
            waiting[0].result(PATIENCE_S)


def test_expect_output_that_came_just_before_the_end_is_found() -> None:
    capture = printed(b"bye")
    capture.end()
    assert capture.expect(b"bye")[0] == b"bye"


def test_send_before_there_is_a_port_is_told_when_there_is_one() -> None:
    capture, counts = Capture(), list[int]()
    capture.send(b"ab")
    capture.send(b"c")
    capture.typed.connect(counts.append)
    capture.send(b"d")
    assert counts == [3, 1]
    assert capture.typed.pending == b"abcd"


def test_text_is_typed_as_utf_8() -> None:
    capture = Capture()
    capture.send("é\n")
    capture.send(b"!")
    assert bytes(capture.typed.pending) == b"\xc3\xa9\n!"


def test_send_by_many_threads_keeps_each_piece_whole() -> None:
    capture = Capture()
    start = threading.Barrier(4)

    def send(byte: int) -> None:
        start.wait()
        for _ in range(200):
            capture.send(bytes([byte] * 7))

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(send, range(4)))
    pieces = [bytes(capture.typed.pending[at : at + 7]) for at in range(0, len(capture.typed.pending), 7)]
    assert len(pieces) == 800
    assert all(len(set(piece)) == 1 for piece in pieces)


def test_claim_twice_is_refused() -> None:
    capture = Capture()
    capture.claim()
    with pytest.raises(UsageError, match="has been used"):
        capture.claim()


@given(pieces=st.lists(st.binary(min_size=1, max_size=7), min_size=1), limit=st.integers(1, 30))
def test_stream_with_a_limit_takes_that_much_and_tells(pieces: list[bytes], limit: int) -> None:
    capture, reached = Capture(), list[int]()
    stream = CaptureStream("capture", capture, limit=limit, limit_reached=lambda: reached.append(1))
    for piece in pieces:
        stream.append(piece)
    everything = b"".join(pieces)
    assert capture.output == everything[:limit]
    assert bool(reached) == (len(everything) > limit)
    assert (stream.appended, stream.dropped, stream.flush(0)) == (min(limit, len(everything)), 0, 0)
