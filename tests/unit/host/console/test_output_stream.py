"""Output streams: nothing lost, nothing out of order, nobody blocked for ever, and every loss told."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvmbox.host.console import output_stream
from kvmbox.host.console.output_stream import CAPACITY, GATHER_SIZE, WRITE_SIZE, OutputStream
from tests.support.patience import patience

PATIENCE = patience(30.0)
"""Seconds after which a test that waits for another thread has failed; none ever takes that long."""


class Pipe:
    """A pipe: what a stream writes into, and what the test reads from."""

    def __init__(self) -> None:
        self.read_end, self.write_end = os.pipe()
        self.collected = bytearray()
        self._reader: threading.Thread | None = None

    def collect(self) -> None:
        """Read from now on until the write end is closed, in a thread."""
        self._reader = threading.Thread(target=self._collect)
        self._reader.start()

    def _collect(self) -> None:
        while data := os.read(self.read_end, 1 << 16):
            self.collected += data

    def everything(self) -> bytes:
        """Close the write end; all that came."""
        os.close(self.write_end)
        self.write_end = -1
        if self._reader is None:
            self._collect()
        else:
            self._reader.join(PATIENCE)
            assert not self._reader.is_alive()
        return bytes(self.collected)

    def close(self) -> None:
        for descriptor in (self.read_end, self.write_end):
            if descriptor >= 0:
                os.close(descriptor)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.close()


class Failures:
    """Collects what a stream reports, and lets the test wait for it."""

    def __init__(self) -> None:
        self.errors: list[OSError] = []
        self._came = threading.Event()

    def __call__(self, error: OSError) -> None:
        self.errors.append(error)
        self._came.set()

    def wait(self) -> OSError:
        assert self._came.wait(PATIENCE)
        return self.errors[0]


def unexpected(error: OSError) -> None:
    raise AssertionError(error)


def fill(pipe: Pipe) -> int:
    """Stuff the pipe until it takes no more; how many bytes it took."""
    os.set_blocking(pipe.write_end, False)
    count = 0
    try:
        while True:
            count += os.write(pipe.write_end, bytes(4096))
    except BlockingIOError:
        os.set_blocking(pipe.write_end, True)
        return count


def test_append_writes_all_in_order(pipe: Pipe) -> None:
    stream = OutputStream("out", pipe.write_end, failed=unexpected)
    for piece in (b"one ", b"", b"two ", b"three"):
        stream.append(piece)
    assert stream.flush(PATIENCE) == 0
    assert pipe.everything() == b"one two three"
    assert (stream.appended, stream.dropped) == (13, 0)


def test_flush_of_a_stream_without_output_returns_at_once(pipe: Pipe) -> None:
    assert OutputStream("out", pipe.write_end, failed=unexpected).flush(PATIENCE) == 0
    assert pipe.everything() == b""


def test_append_reaches_the_descriptor_without_a_flush(pipe: Pipe) -> None:
    stream = OutputStream("out", pipe.write_end, failed=unexpected)
    stream.append(b"prompt> ")
    assert os.read(pipe.read_end, 100) == b"prompt> "  # blocks for ever if nothing is written
    stream.append(b"again")
    assert os.read(pipe.read_end, 100) == b"again"
    stream.flush(PATIENCE)


@settings(max_examples=20)
@given(st.lists(st.integers(0, 3 * GATHER_SIZE), max_size=40))
def test_append_any_pieces_lose_nothing(sizes: list[int]) -> None:
    pipe = Pipe()
    pipe.collect()
    stream = OutputStream("out", pipe.write_end, failed=unexpected)
    sent = bytearray()
    for number, size in enumerate(sizes):
        piece = bytes((number + index) & 0xFF for index in range(size))
        sent += piece
        stream.append(piece)
    assert stream.flush(PATIENCE) == 0
    assert pipe.everything() == bytes(sent)
    pipe.close()


def test_append_from_many_threads_keeps_the_order_of_each(pipe: Pipe) -> None:
    pipe.collect()
    stream = OutputStream("out", pipe.write_end, failed=unexpected)

    def print_lines(name: int) -> None:
        for number in range(500):
            stream.append(f"{name}:{number}\n".encode())

    threads = [threading.Thread(target=print_lines, args=(name,)) for name in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert stream.flush(PATIENCE) == 0
    lines = pipe.everything().decode().splitlines()
    for name in range(3):
        own = [line for line in lines if line.startswith(f"{name}:")]
        assert own == [f"{name}:{number}" for number in range(500)]


# --- A host that is slow --------------------------------------------------------------------------------


def stuck_stream(pipe: Pipe, overflow: str = "wait") -> OutputStream:
    """A stream whose writer sits in a write that the full pipe does not take."""
    fill(pipe)
    return OutputStream("out", pipe.write_end, overflow=overflow, failed=unexpected)


def drain(pipe: Pipe, stream: OutputStream) -> bytes:
    pipe.collect()
    assert stream.flush(PATIENCE) == 0
    return pipe.everything().lstrip(b"\0")


def test_append_beyond_the_capacity_congests_and_loses_nothing(pipe: Pipe) -> None:
    stream = stuck_stream(pipe)
    # The writer has taken one chunk at most.
    stream.append(b"a" * (CAPACITY - 1))
    assert not stream.congested
    stream.append(b"b" * (WRITE_SIZE + 1))
    assert stream.congested
    stream.append(b"c")
    assert drain(pipe, stream) == b"a" * (CAPACITY - 1) + b"b" * (WRITE_SIZE + 1) + b"c"
    assert not stream.congested
    assert stream.dropped == 0


def test_append_of_the_dropping_kind_drops_what_does_not_fit_whole_and_counts(pipe: Pipe) -> None:
    stream = stuck_stream(pipe, overflow="drop")
    stream.append(b"a" * (CAPACITY + 1))  # never fits
    assert stream.dropped == CAPACITY + 1
    for _ in range(CAPACITY // WRITE_SIZE + 2):  # the writer has taken one chunk at most
        stream.append(b"b" * WRITE_SIZE)
    dropped = stream.dropped - (CAPACITY + 1)
    assert dropped in (WRITE_SIZE, 2 * WRITE_SIZE)
    assert stream.appended == CAPACITY + 1 + CAPACITY + 2 * WRITE_SIZE
    assert drain(pipe, stream) == b"b" * (CAPACITY + 2 * WRITE_SIZE - dropped)


def in_thread(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_wait_for_room_without_congestion_returns_at_once(pipe: Pipe) -> None:
    stream = OutputStream("out", pipe.write_end, failed=unexpected)
    stream.wait_for_room(lambda: True)
    stream.flush(PATIENCE)


def test_wait_for_room_ends_when_the_host_reads(pipe: Pipe) -> None:
    stream = stuck_stream(pipe)
    stream.append(b"x" * (CAPACITY + WRITE_SIZE))
    asked = threading.Event()

    def wanted() -> bool:
        asked.set()
        return True

    waiter = in_thread(lambda: stream.wait_for_room(wanted))
    assert asked.wait(PATIENCE)
    assert waiter.is_alive()
    pipe.collect()
    waiter.join(PATIENCE)
    assert not waiter.is_alive()
    assert stream.flush(PATIENCE) == 0
    pipe.everything()


def test_wait_for_room_ends_when_the_writer_takes_a_chunk_which_the_host_does_not(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The waiter comes while the writer gathers, so that nothing but the chunk taken makes it look again.
    monkeypatch.setattr(output_stream, "GATHER_SIZE", 2 * CAPACITY)
    monkeypatch.setattr(output_stream, "GATHER_SECONDS", 0.1)
    stream = stuck_stream(pipe)
    stream.append(b"x" * CAPACITY)
    waiter = in_thread(lambda: stream.wait_for_room(lambda: True))
    waiter.join(PATIENCE)
    waits = waiter.is_alive()
    drain(pipe, stream)
    assert not waits


def test_flush_of_a_stream_without_output_starts_no_thread(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[threading.Thread] = []
    monkeypatch.setattr(threading.Thread, "start", started.append)
    stream = OutputStream("none", pipe.write_end, failed=unexpected)
    assert stream.flush(PATIENCE) == 0
    assert started == []


def test_wait_for_room_ends_when_the_run_does(pipe: Pipe) -> None:
    stream = stuck_stream(pipe)
    stream.append(b"x" * (CAPACITY + WRITE_SIZE))
    going_on = threading.Event()
    asked = threading.Event()
    going_on.set()

    def wanted() -> bool:
        asked.set()
        return going_on.is_set()

    waiter = in_thread(lambda: stream.wait_for_room(wanted))
    assert asked.wait(PATIENCE)
    going_on.clear()
    stream.wake()
    waiter.join(PATIENCE)
    assert not waiter.is_alive()
    assert stream.congested
    drain(pipe, stream)


def test_flush_with_a_stuck_reader_gives_up_and_tells_how_much_is_left(pipe: Pipe) -> None:
    stream = stuck_stream(pipe)
    stream.append(b"lost" * 10)
    assert stream.flush(0.0) == 40
    assert stream.flush(0.01) == 40
    assert drain(pipe, stream) == b"lost" * 10


def test_flush_counts_what_a_write_has_taken_in_part(pipe: Pipe) -> None:
    fill(pipe)
    os.set_blocking(pipe.write_end, False)  # a blocking write does not return before all is written
    stream = OutputStream("out", pipe.write_end, failed=unexpected)
    stream.append(b"x" * 10_000)
    # Make room for exactly one page: the writer gets 4096 bytes rid, and no more.
    os.read(pipe.read_end, 4096)
    ask_until(lambda: stream.flush(0.001) == 10_000 - 4096)
    drain(pipe, stream)


def ask_until(condition: Callable[[], bool]) -> None:
    """Ask until `condition` holds: each call of it waits a millisecond by itself."""
    for _ in range(3000):
        if condition():
            return
    raise AssertionError("it never came")


def test_append_to_a_non_blocking_descriptor_waits_for_room_and_loses_nothing(pipe: Pipe) -> None:
    fill(pipe)
    os.set_blocking(pipe.write_end, False)
    stream = OutputStream("out", pipe.write_end, failed=unexpected)
    stream.append(b"y" * 200_000)
    assert stream.flush(0.01) == 200_000
    assert drain(pipe, stream) == b"y" * 200_000


# --- A host that is broken ------------------------------------------------------------------------------


def test_append_to_a_closed_pipe_is_told_once_and_counted(pipe: Pipe) -> None:
    os.close(pipe.read_end)
    pipe.read_end = -1
    failures = Failures()
    stream = OutputStream("out", pipe.write_end, failed=failures)
    stream.append(b"hello")
    assert failures.wait().errno == errno.EPIPE
    stream.append(b" world")
    assert stream.dropped == 11
    assert len(failures.errors) == 1
    assert not stream.congested


def test_flush_of_a_broken_descriptor_tells_that_output_was_lost(pipe: Pipe) -> None:
    # The guest printed and stopped within the time in which output is gathered: the run has its outcome
    # before the write fails, so this number is all that keeps the exit status from lying.
    os.close(pipe.read_end)
    pipe.read_end = -1
    stream = OutputStream("out", pipe.write_end, failed=Failures())
    stream.append(b"hello")
    assert stream.flush(PATIENCE) == 5
    stream.append(b"!")
    assert stream.flush(0.0) == 6


def test_append_to_a_full_disk_is_told() -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full")
    descriptor = os.open(full, os.O_WRONLY)
    failures = Failures()
    stream = OutputStream("out", descriptor, failed=failures)
    stream.append(b"x")
    assert failures.wait().errno == errno.ENOSPC
    os.close(descriptor)


def test_wait_for_room_ends_when_the_descriptor_breaks(pipe: Pipe) -> None:
    fill(pipe)
    failures = Failures()
    stream = OutputStream("out", pipe.write_end, failed=failures)
    stream.append(b"x" * (CAPACITY + WRITE_SIZE))
    waiter = in_thread(lambda: stream.wait_for_room(lambda: True))
    os.close(pipe.read_end)
    pipe.read_end = -1
    waiter.join(PATIENCE)
    assert not waiter.is_alive()
    assert failures.wait().errno == errno.EPIPE
    assert stream.dropped == CAPACITY + WRITE_SIZE


# --- Limits ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pieces", "written", "reached"),
    [
        ([b"12345"], b"12345", 0),
        ([b"123456"], b"12345", 1),
        ([b"123", b"456"], b"12345", 1),
        ([b"12345", b"6", b"7"], b"12345", 2),
        ([b"12345", b""], b"12345", 0),
    ],
)
def test_limit_cuts_the_output_and_is_told(
    pipe: Pipe, pieces: list[bytes], written: bytes, reached: int
) -> None:
    calls: list[int] = []
    stream = OutputStream(
        "out", pipe.write_end, limit=5, failed=unexpected, limit_reached=lambda: calls.append(1)
    )
    for piece in pieces:
        stream.append(piece)
    assert stream.flush(PATIENCE) == 0
    assert pipe.everything() == written
    assert len(calls) == reached
    assert stream.appended == len(written)


# --- Pseudo-terminals ------------------------------------------------------------------------------------


def test_pty_without_a_reader_drops_and_counts_and_goes_on() -> None:
    master, slave = os.openpty()
    path = os.ttyname(slave)
    os.close(slave)
    os.set_blocking(master, False)
    stream = OutputStream("pty", master, drop_without_reader=True, failed=unexpected)
    stream.append(b"nobody hears this")
    stop = threading.Event()
    ask_until(lambda: stream.dropped == 17 or stop.wait(0.001))
    slave = os.open(path, os.O_RDWR | os.O_NOCTTY)
    stream.append(b"hello\n")
    assert os.read(slave, 100).startswith(b"hello")
    assert stream.flush(PATIENCE) == 0
    os.close(slave)
    os.close(master)


def test_gathering_writes_many_small_pieces_at_once(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    # Gather for as long as it takes to fill a page: then no write is smaller.
    monkeypatch.setattr(output_stream, "GATHER_SECONDS", PATIENCE)
    writes: list[int] = []
    real = os.write

    def write(descriptor: int, data: memoryview) -> int:
        writes.append(len(data))
        return real(descriptor, data)

    monkeypatch.setattr(os, "write", write)
    stream = OutputStream("out", pipe.write_end, failed=unexpected)
    for _ in range(GATHER_SIZE - 1):
        stream.append(b"x")
    stream.append(b"x")
    assert stream.flush(PATIENCE) == 0
    assert sum(writes) == GATHER_SIZE
    assert len(writes) <= 3
