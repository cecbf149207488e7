"""Output that the host does not take: closed, full, broken, blocked. The status cannot lie about it."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.patience import far_enough, seconds
from tests.support.real_mode import (
    COM2,
    FLOOD,
    HALT_FOR_EVER,
    IDLE,
    SHUTDOWN,
    debug_exit,
    say,
    say_much,
    wait_input,
)
from tests.support.runs import ENTRY, KVMBOX, Images, Run, error_lines, run_to_end
from tests.support.waiting import Stream

pytestmark = pytest.mark.kvm

HELLO = say(b"Hello\n")
PIPE_SIZE = 4096  # the least that the kernel gives a pipe
STREAM_SIZE = 8192
# Filling the usual megabyte byte by byte takes a guest half a minute.
SMALL_STREAMS = (
    sys.executable,
    "-c",
    f"import kvmbox.host.console.output_stream as o; o.CAPACITY = {STREAM_SIZE}; " + ENTRY,
)
CLOSED_STDOUT = ("sh", "-c", 'exec "$@" >&-', "sh", *KVMBOX)
CLOSED_STDERR = ("sh", "-c", 'exec "$@" 2>&-', "sh", *KVMBOX)
CLOSED_STDIN = ("sh", "-c", 'exec "$@" <&-', "sh", *KVMBOX)
CLOSED_ALL = ("sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *KVMBOX)


# --- Closed, full, broken ---------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [SHUTDOWN, debug_exit(1), IDLE], ids=["shutdown", "debug exit", "goes on"])
def test_closed_stdout_gives_14(images: Images, end: bytes) -> None:
    with images.run(HELLO + end, command=CLOSED_STDOUT) as run:
        assert run.status() == 14
        (line,) = error_lines(run.messages)
        assert "stdout" in line


def test_closed_stdout_of_a_silent_guest_is_nothing(images: Images) -> None:
    assert run_to_end(images.run(debug_exit(1), command=CLOSED_STDOUT)) == (3, b"", "")


@pytest.mark.parametrize("end", [SHUTDOWN, debug_exit(1), IDLE], ids=["shutdown", "debug exit", "goes on"])
def test_full_stdout_gives_14(images: Images, end: bytes) -> None:
    with open("/dev/full", "wb") as full, images.run(HELLO + end, stdout=full) as run:
        assert run.status() == 14
        (line,) = error_lines(run.messages)
        assert "No space left on device" in line


def test_full_serial_file_gives_14(images: Images) -> None:
    code = say(b"lost", COM2) + IDLE
    status, _, messages = run_to_end(images.run(code, "--serial", "COM2=file:/dev/full"))
    assert status == 14
    (line,) = error_lines(messages)
    assert "/dev/full" in line
    assert "No space left on device" in line


@pytest.mark.parametrize("end", [SHUTDOWN, debug_exit(1), IDLE], ids=["shutdown", "debug exit", "goes on"])
def test_reader_that_never_was_gives_14(images: Images, end: bytes) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with images.run(HELLO + end, stdout=writer) as run:
        os.close(writer)
        assert run.status() == 14
        (line,) = error_lines(run.messages)
        assert "Broken pipe" in line


def test_reader_that_leaves_gives_14(images: Images) -> None:
    with images.run(HELLO + wait_input() + HELLO + IDLE, stdin=subprocess.PIPE) as run:
        run.stdout.until(b"Hello\n")
        assert run.process.stdout is not None
        run.process.stdout.close()
        run.process.stdout = None
        run.send(b"!")
        assert run.status() == 14
        assert "Broken pipe" in run.messages


def test_reader_that_leaves_does_not_hide_a_crash(images: Images) -> None:
    with images.run(HELLO + wait_input() + HALT_FOR_EVER, stdin=subprocess.PIPE) as run:
        run.stdout.until(b"Hello\n")
        assert run.process.stdout is not None
        run.process.stdout.close()
        run.process.stdout = None
        run.send(b"!")
        assert run.status() == 6


@pytest.mark.parametrize("command", [CLOSED_STDERR, CLOSED_STDIN], ids=["stderr", "stdin"])
@pytest.mark.parametrize(
    ("end", "status"), [(SHUTDOWN, 0), (debug_exit(1), 3), (HALT_FOR_EVER, 6)], ids=["clean", "odd", "crash"]
)
def test_other_closed_descriptors_change_no_status(
    images: Images, command: tuple[str, ...], end: bytes, status: int
) -> None:
    assert run_to_end(images.run(HELLO + end, command=command))[:2] == (status, b"Hello\n")


def test_all_descriptors_closed_still_gives_the_status(images: Images) -> None:
    assert run_to_end(images.run(debug_exit(1), command=CLOSED_ALL))[0] == 3
    assert run_to_end(images.run(HELLO + debug_exit(1), command=CLOSED_ALL))[0] == 14


def test_full_stderr_changes_no_status(images: Images) -> None:
    with open("/dev/full", "wb") as full, images.run(HALT_FOR_EVER, stderr=full) as run:
        assert run.status() == 6


# --- Blocked ----------------------------------------------------------------------------------------------


@dataclass
class Blocked:
    """A pipe that nobody reads, as small as the kernel makes them."""

    reader: int
    writer: int


@contextmanager
def blocked_pipe() -> Iterator[Blocked]:
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
    yield Blocked(reader, writer)
    os.close(reader)


@pytest.fixture
def blocked() -> Iterator[Blocked]:
    with blocked_pipe() as made:
        yield made


def run_blocked(
    images: Images, blocked: Blocked, code: bytes, *arguments: str, command: tuple[str, ...] = KVMBOX
) -> Run:
    run = images.run(code, *arguments, stdout=blocked.writer, command=command)
    os.close(blocked.writer)
    return run


@pytest.mark.parametrize(
    ("overflow", "command"),
    [("wait", KVMBOX), ("wait", SMALL_STREAMS), ("drop", SMALL_STREAMS)],
    ids=["buffering", "waiting", "dropping"],
)
def test_blocked_stdout_does_not_stop_the_timeout(
    images: Images, overflow: str, command: tuple[str, ...]
) -> None:
    def ended(scale: int) -> tuple[int, bytes]:
        arguments = ("--serial-overflow", overflow, "--timeout", seconds(scale))
        with (
            blocked_pipe() as blocked,
            run_blocked(images, blocked, FLOOD, *arguments, command=command) as run,
        ):
            return run.exit_status(), Stream(blocked.reader, "the pipe").rest()

    status, output = far_enough(ended, lambda end: end[1])
    assert status == 124
    assert output == b"A" * len(output)
    assert 0 < len(output) <= PIPE_SIZE


def test_blocked_stdout_does_not_stop_signals(images: Images, blocked: Blocked) -> None:
    with run_blocked(images, blocked, FLOOD, "--serial-limit", "1G", command=SMALL_STREAMS) as run:
        os.set_blocking(blocked.reader, True)
        first = os.read(blocked.reader, 1)  # it has begun
        run.signal(signal.SIGTERM)
        assert run.exit_status() == 130
        assert set(first + Stream(blocked.reader, "the pipe").rest()) == {ord("A")}


def test_output_that_stays_blocked_turns_success_into_14(images: Images, blocked: Blocked) -> None:
    with run_blocked(images, blocked, say_much(b"x" * 3 * PIPE_SIZE) + SHUTDOWN) as run:
        assert run.exit_status() == 14
        assert run.stderr.rest().count(b"\n") == 1
        assert "could not be written" in run.messages


def test_output_that_stays_blocked_does_not_hide_a_crash(images: Images, blocked: Blocked) -> None:
    with run_blocked(images, blocked, say_much(b"x" * 3 * PIPE_SIZE) + HALT_FOR_EVER) as run:
        assert run.exit_status() == 6


def test_slow_reader_gets_everything(images: Images, blocked: Blocked) -> None:
    # The guest waits for the reader again and again: more than pipe and stream hold together.
    text = b"".join(b"%08d" % number for number in range(4000))
    with run_blocked(images, blocked, say_much(text) + debug_exit(1), command=SMALL_STREAMS) as run:
        stream = Stream(blocked.reader, "the pipe")
        assert stream.rest() == text
        assert run.exit_status() == 3


def test_overflow_drop_counts_what_a_blocked_reader_misses(
    images: Images, blocked: Blocked, tmp_path: Path
) -> None:
    text = b"".join(b"%08d" % number for number in range(4000))
    code = say_much(text) + say(b"done", COM2) + wait_input() + debug_exit(1)
    report = tmp_path / "com2.txt"
    os.mkfifo(report)
    watcher = os.open(report, os.O_RDONLY | os.O_NONBLOCK)
    arguments = ("--serial-overflow", "drop", "--stats", "--serial", f"COM2=file:{report}")
    run = images.run(code, *arguments, stdout=blocked.writer, stdin=subprocess.PIPE, command=SMALL_STREAMS)
    os.close(blocked.writer)
    with run:
        Stream(watcher, "COM2").until(b"done")  # the guest got there though nobody reads
        run.send(b"!")
        kept = Stream(blocked.reader, "the pipe").rest()
        assert run.status() == 3
    assert text.startswith(kept[:STREAM_SIZE])
    assert STREAM_SIZE <= len(kept) < len(text)
    assert f"stdout dropped           {len(text) - len(kept)} bytes" in run.messages
    os.close(watcher)


def test_serial_limit_ends_a_flood(images: Images) -> None:
    status, output, _ = run_to_end(images.run(FLOOD, "--serial-limit", "1000"))
    assert (status, output) == (12, b"A" * 1000)
