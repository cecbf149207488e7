"""`kvmbox run` on a terminal: raw while the guest has it, as it was in every way out, and Ctrl-A in between.

The terminal is a pseudo-terminal of the test. kvmbox leads a session on it, and so is in the foreground.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.patience import LATE, far_enough, seconds
from tests.support.real_mode import HALT_FOR_EVER, IDLE, SHUTDOWN, debug_exit, echo, say, wait_input
from tests.support.runs import ENTRY, Images, Run, error_lines
from tests.support.terminal import COMMAND, LEAD, Terminal
from tests.support.waiting import Stream

pytestmark = pytest.mark.kvm


def show(text: bytes, row: int = 0) -> bytes:
    """mov ax,0xb800; mov es,ax; then mov byte es:[place],character for each."""
    places = (160 * row + 2 * column for column in range(len(text)))
    return bytes.fromhex("b800b8 8ec0") + b"".join(
        b"\x26\xc6\x06" + place.to_bytes(2, "little") + bytes((code,))
        for place, code in zip(places, text, strict=True)
    )


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    terminal = Terminal()
    yield terminal
    terminal.close()


def test_terminal_is_raw_while_the_guest_runs_and_restored_after(images: Images, terminal: Terminal) -> None:
    assert not terminal.is_raw
    with terminal.run(images, wait_input() + SHUTDOWN) as run:
        assert terminal.is_raw
        terminal.send(b"!")
        assert run.status() == 0
    assert terminal.settings() == terminal.before


@pytest.mark.parametrize(
    ("end", "status"), [(debug_exit(1), 3), (HALT_FOR_EVER, 6)], ids=["debug exit", "crash"]
)
def test_terminal_is_restored_after_other_ends_of_the_guest(
    images: Images, terminal: Terminal, end: bytes, status: int
) -> None:
    with terminal.run(images, wait_input() + end) as run:
        terminal.send(b"!")
        assert run.status() == status
    assert terminal.settings() == terminal.before


@pytest.mark.parametrize(
    "number",
    [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1],
    ids=lambda number: number.name,
)
def test_terminal_is_restored_after_a_signal(
    images: Images, terminal: Terminal, number: signal.Signals
) -> None:
    with terminal.run(images, IDLE) as run:
        run.signal(number)
        assert run.status() == 130
    assert terminal.settings() == terminal.before


def test_terminal_is_restored_after_a_timeout(images: Images, terminal: Terminal) -> None:
    def ended(scale: int) -> tuple[int, str]:
        with terminal.start(images, IDLE, "--timeout", seconds(scale)) as run:
            return run.status(), run.messages

    status, _ = far_enough(ended, lambda end: LATE not in end[1])
    assert status == 124
    assert terminal.settings() == terminal.before


def test_terminal_is_restored_after_the_death_of_a_device_process(images: Images, terminal: Terminal) -> None:
    with terminal.run(images, IDLE) as run:
        os.kill(run.family.devices["uart"], signal.SIGKILL)
        assert run.status() == 8
        run.family.assert_gone()
    assert terminal.settings() == terminal.before


@pytest.mark.parametrize("keys", [b"\x01x", b"\x01X", b"abc\x01xdef"])
def test_ctrl_a_x_leaves_with_130(images: Images, terminal: Terminal, keys: bytes) -> None:
    with terminal.run(images, IDLE, "--expect", "never") as run:
        terminal.send(keys)
        assert run.status() == 130
        assert error_lines(run.messages) == []
    assert terminal.settings() == terminal.before


def test_ctrl_a_x_typed_in_two_pieces_leaves_with_130(images: Images, terminal: Terminal) -> None:
    with terminal.run(images, echo()) as run:
        terminal.send(b"a\x01")
        terminal.screen.until(b"a")  # so the first piece has been read
        terminal.send(b"x")
        assert run.status() == 130


def test_ctrl_a_h_prints_help_on_stderr_and_the_run_goes_on(images: Images, terminal: Terminal) -> None:
    with terminal.run(images, echo()) as run:
        terminal.send(b"\x01h")
        run.stderr.until(b"Ctrl-A X")
        terminal.send(b"\x01x")
        assert run.status() == 130
    assert b"Ctrl-A" not in terminal.screen.seen


def test_ctrl_a_twice_reaches_the_guest_once(images: Images, terminal: Terminal) -> None:
    with terminal.run(images, echo()) as run:
        terminal.send(b"1\x01\x012\x01q3")
        terminal.screen.until(b"1\x0123")
        terminal.send(b"\x01x")
        assert run.status() == 130


def test_ctrl_c_and_other_keys_reach_the_guest_as_they_are(images: Images, terminal: Terminal) -> None:
    keys = b"\x03\x1a\x1c\x04\x11\x13\r\x7f\x1b[A\xc3\xa9"
    with terminal.run(images, echo()) as run:
        terminal.send(keys)
        terminal.screen.until(keys)
        terminal.send(b"\x01x")
        assert run.status() == 130


def test_interactive_guest_answers_what_is_typed(terminal: Terminal) -> None:
    with Run(
        "echo", command=COMMAND, stdin=terminal.slave, stdout=terminal.slave, start_new_session=True
    ) as run:
        terminal.screen.until(b"Ctrl-D leaves\r\n")
        for line in (b"The quick brown fox", b"jumps over the lazy dog"):
            terminal.send(line + b"\r")
            terminal.screen.until(line + b"\r\r\n")
        terminal.send(b"\x04")
        assert run.status() == 0
        terminal.screen.until(b"echo: bye\r\n")
    assert terminal.settings() == terminal.before


def test_keys_of_the_terminal_are_keys_of_the_keyboard_if_it_is_the_consoles(terminal: Terminal) -> None:
    with Run(
        *("--keyboard", "console", "keyboard"),
        command=COMMAND,
        stdin=terminal.slave,
        stdout=terminal.slave,
        start_new_session=True,
    ) as run:
        terminal.screen.until(b"Ctrl-D leaves\r\n")
        for typed, shown in ((b"Hi!", b"Hi!"), (b"\x1b[A", b"<48>"), (b"\x1b", b"<01>"), (b"\r", b"\r\n")):
            terminal.send(typed)
            terminal.screen.until(shown)
        terminal.send(b"\x01h")
        run.stderr.until(b"Ctrl-A X")
        terminal.send(b"\x01x")
        assert run.status() == 130
    assert terminal.settings() == terminal.before


def test_suspended_run_gives_the_terminal_back_and_takes_it_again(images: Images, terminal: Terminal) -> None:
    with terminal.run(images, echo()) as run:
        run.signal(signal.SIGTSTP)
        os.waitid(os.P_PID, run.pid, os.WSTOPPED)
        assert terminal.settings() == terminal.before
        run.signal(signal.SIGCONT)
        terminal.send(b"\x01h")  # typed before or after it is raw again
        run.stderr.until(b"Ctrl-A X")
        assert terminal.is_raw
        terminal.send(b"still here")
        terminal.screen.until(b"still here")
        terminal.send(b"\x01x")
        assert run.status() == 130
    assert terminal.settings() == terminal.before


TWO_RUNS = (
    LEAD
    + """
import subprocess, sys
for image in sys.argv[2:]:
    os.read(int(sys.argv[1]), 1)
    run = subprocess.Popen([sys.executable, "-c", COMMAND, "run", "--boot", "real", image], stdout=0)
    print(run.pid, flush=True)
for _ in sys.argv[2:]:
    print("ended", os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
"""
)
"""A job of two runs, on the terminal that is its stdin; each starts when a byte comes from the descriptor."""


@pytest.mark.parametrize("ends", [(0, 1), (1, 0)], ids=["first ends first", "first ends last"])
def test_two_runs_on_one_terminal_leave_it_as_it_was(
    images: Images, terminal: Terminal, ends: tuple[int, int]
) -> None:
    guests = [images.write(say(b"guest %d\n" % number) + IDLE) for number in (1, 2)]
    reading, starting = os.pipe()
    program = TWO_RUNS.replace("COMMAND", repr(ENTRY))
    with subprocess.Popen(
        [sys.executable, "-c", program, str(reading), *map(str, guests)],
        stdin=terminal.slave,
        stdout=subprocess.PIPE,
        pass_fds=[reading],
        start_new_session=True,
    ) as job:
        assert job.stdout is not None
        told = Stream(job.stdout.fileno(), "what the job says")
        pids = []
        for number in (1, 2):
            os.write(starting, b"!")
            terminal.screen.until(b"guest %d\r\n" % number)
            told.until(b"\n")
            pids.append(int(told.seen.splitlines()[-1]))
            assert terminal.is_raw
        for number in ends:
            os.kill(pids[number], signal.SIGTERM)
            told.until(b"ended 130\n")
        assert terminal.settings() == terminal.before
    os.close(reading)
    os.close(starting)


def test_terminal_that_goes_away_ends_the_run(images: Images) -> None:
    terminal = Terminal()
    with terminal.run(images, IDLE) as run:
        family = run.family
        os.close(terminal.slave)
        os.close(terminal.master)  # the session's leader gets SIGHUP
        assert run.status() == 130
        family.assert_gone()


# --- --screen live ----------------------------------------------------------------------------------------


def run_live(terminal: Terminal, images: Images, code: bytes, *arguments: str) -> Run:
    options: dict[str, Any] = {"stdin": terminal.slave, "stdout": terminal.slave, "start_new_session": True}
    return images.run(code, "--screen", "live", *arguments, command=COMMAND, **options)


@pytest.fixture(autouse=True)
def _term(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")


def test_screen_is_drawn_as_it_changes_and_stays(images: Images, terminal: Terminal) -> None:
    code = show(b"first") + wait_input() + show(b"second", 1) + wait_input() + show(b"third", 2)
    with run_live(terminal, images, code + SHUTDOWN) as run:
        terminal.screen.until(b"\x1b[J\x1b7\x1b[?7lfirst\x1b[K\x1b[?7h\x1b8")
        terminal.send(b"!")
        terminal.screen.until(b"\x1bD\x1b[1A\x1b[J\x1b7\x1b[?7lfirst\x1b[K\r\nsecond\x1b[K\x1b[?7h\x1b8")
        terminal.send(b"!")
        assert run.status() == 0
        terminal.screen.until(b"\x1b[Jfirst\r\nsecond\r\nthird\r\n")
        assert run.messages == ""
    assert terminal.settings() == terminal.before


def test_output_of_a_port_goes_above_the_picture(images: Images, terminal: Terminal) -> None:
    code = show(b"drawn") + wait_input() + say(b"one\ntw") + wait_input() + say(b"o\n") + wait_input()
    with run_live(terminal, images, code + HALT_FOR_EVER) as run:
        terminal.screen.until(b"drawn\x1b[K\x1b[?7h\x1b8")
        terminal.send(b"!")
        terminal.screen.until(b"\x1b[Jone\r\ntw")
        terminal.screen.until(b"\x1bD\x1b[1A\x1b[J\x1b7\x1b[?7l\r\ndrawn\x1b[K\x1b[?7h\x1b8")
        terminal.send(b"!")
        terminal.screen.until(b"\x1b[Jo\r\n")
        terminal.screen.until(b"\x1b[J\x1b7\x1b[?7ldrawn\x1b[K\x1b[?7h\x1b8")
        terminal.send(b"!")
        assert run.status() == 6
        assert "Screen:" not in run.messages
        terminal.screen.until(b"\x1b[Jdrawn\r\n")


def test_text_of_the_bios_is_drawn_and_not_printed_beside_that(images: Images, terminal: Terminal) -> None:
    code = bytes.fromhex("b8410e cd10 f4 ebfd")  # int 0x10 AH=0x0e: A
    sector = images.write(code.ljust(510, b"\0") + b"\x55\xaa")
    options: dict[str, Any] = {"stdin": terminal.slave, "stdout": terminal.slave, "start_new_session": True}
    with Run("--screen", "live", sector, command=COMMAND, **options) as run:
        terminal.screen.until(b"\x1b[?7lA\x1b[K")
        terminal.send(b"\x01x")
        assert run.status() == 130
        assert terminal.screen.seen.split(b"A")[0].endswith(b"\x1b[?7l")


def test_live_without_a_terminal_is_a_usage_error(
    images: Images, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = "kvmbox: error: --screen live needs a terminal on stdout that is not dumb"
    with images.run(SHUTDOWN, "--screen", "live") as run:
        assert run.status() == 2
        assert error_lines(run.messages) == [needed]
        assert "hint: --screen end" in run.messages
    with monkeypatch.context() as patch:
        patch.setenv("TERM", "dumb")
        with run_live(terminal, images, SHUTDOWN) as run:
            assert run.status() == 2
            assert error_lines(run.messages) == [needed]
    with run_live(terminal, images, SHUTDOWN, "--serial-limit", "1M") as run:
        assert run.status() == 2
        assert "--screen live contradicts --serial-limit" in run.messages
