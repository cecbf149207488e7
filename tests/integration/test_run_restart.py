"""`--on-device-crash restart` and `all-ones` from outside: what is said, what it comes to, what is given up.

The guest prints through the debug console, which stays honest, and writes to the device that does not. What
random faults at random moments do to a guest is tests/chaos.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from kvmbox.base import layout
from tests.support.real_mode import COM1, DEBUGCON, IDLE, SHUTDOWN, debug_exit, out, say, wait_input
from tests.support.runs import Images, error_lines, run_to_end
from tests.support.selection import first_per_commit

pytestmark = pytest.mark.kvm

PROGRAM = str(Path(__file__).parent / "run_payload" / "other_spawner.py")
WRITE = out(COM1 + 7, 0x5A)  # the scratch register
SHOW_SCRATCH = (
    b"\xba" + (COM1 + 7).to_bytes(2, "little") + b"\xec" + b"\xba" + DEBUGCON.to_bytes(2, "little") + b"\xee"
)
"""in al,dx of the scratch register; out dx,al to the debug console."""

GUEST = say(b"before ", DEBUGCON) + WRITE + SHOW_SCRATCH + say(b" after", DEBUGCON) + SHUTDOWN + IDLE


def run(images: Images, types: str, entry: str, choice: str, *arguments: str) -> tuple[int, bytes, str]:
    command = (sys.executable, PROGRAM, types, entry, "1000")
    return run_to_end(images.run(GUEST, "--on-device-crash", choice, *arguments, command=command))


LOSSES = [
    ("sequence", "broke the protocol: reply "),
    ("short", "broke the protocol: a frame of 31 bytes"),
    ("never", "is hung: no reply within 500 ms"),
    ("stop", "broke the protocol: effect Stop of COM1: not granted"),
    ("error", "failed: "),
    ("leave", "exited with status 7"),
    ("opens", "openat"),
]


@pytest.mark.parametrize(("entry", "words"), LOSSES)
def test_restart_says_a_line_and_the_guest_goes_on_as_if_nothing_had_been(
    images: Images, entry: str, words: str
) -> None:
    status, output, messages = run(images, "uart", entry, "restart")
    assert (status, output) == (0, b"before Z after")
    (line,) = messages.splitlines()
    assert line.startswith("kvmbox: device process 'uart' ")
    assert words in line
    assert re.search(r": restarted, \d+ requests replayed in \d+\.\d ms \(restart 1, 15 left\)$", line)


def test_restart_counts_in_json_and_stats(images: Images) -> None:
    report = images.directory / "report.json"
    _, _, messages = run(images, "uart", "leave", "restart", "--stats", "--json", str(report))
    restarts = json.loads(report.read_bytes())["restarts"]
    assert restarts["by_type"] == {"uart": 1}
    assert restarts["budget"] == 15
    assert len(restarts["durations"]) == 1
    assert re.search(r"^restarts +uart 1; 15 left$", messages, re.MULTILINE)


@pytest.mark.parametrize(("entry", "words"), LOSSES)
def test_restart_gives_up_when_the_same_request_breaks_three_and_shows_it(
    images: Images, entry: str, words: str
) -> None:
    status, output, messages = run(images, "uart,standby", entry, "restart")
    assert (status, output) == (8, b"before ")
    (line,) = error_lines(messages)
    assert line.startswith("kvmbox: error: device process 'uart' ")
    assert words in line
    assert (
        "; the same request had broken the 2 processes before it: write device 0 offset 0x7 size 1 " in line
    )
    assert "value 0x5a at " in line


@pytest.mark.parametrize(
    ("entry", "words"),
    [("struck", "was killed by signal 9 (SIGKILL)"), ("leave", "exited with status 7"), ("never", "is hung")],
)
def test_two_processes_lost_at_the_same_request_are_chance_and_the_third_decides(
    images: Images, entry: str, words: str
) -> None:
    status, output, messages = run(images, "uart,standby:1", entry, "restart", "--seccomp", "off")
    assert (status, output) == (0, b"before Z after")
    _, line = messages.splitlines()  # the other one is about --seccomp off
    assert line.count(words) == 2
    assert "; its replacement: " in line
    assert line.endswith("(restart 1, 14 left)")


LOST_AT_HELLO = [
    ("faints", "exited with status 3"),
    ("greets", "broke the protocol: an effect in the reply to hello"),
]


@pytest.mark.parametrize(("entry", "words"), LOST_AT_HELLO)
def test_process_that_is_lost_at_hello_is_replaced(images: Images, entry: str, words: str) -> None:
    # The first replacement, too: the third decides.
    status, output, messages = run(images, "uart,standby:1", entry, "restart")
    assert (status, output) == (0, b"before Z after")
    assert messages.count(words) == 2
    assert "restarted, 0 requests replayed" in messages
    assert messages.endswith(", 14 left)\n")


@pytest.mark.parametrize("ipc", first_per_commit(["socketpair", "pipe", "shm"]))
def test_process_that_is_lost_before_hello_is_replaced(images: Images, ipc: str) -> None:
    # The first replacement, too. They may be dead before the spawner has told that they are jailed, or after.
    status, output, messages = run(images, "uart,standby:1", "stillborn", "restart", "--ipc", ipc)
    assert (status, output) == (0, b"before Z after")
    assert "device process 'uart' exited with status 3" in messages
    assert messages.endswith(" (restart 1, 14 left)\n")


def test_process_that_is_killed_before_it_is_jailed_is_replaced(images: Images) -> None:
    status, output, messages = run(images, "uart", "unborn", "restart")
    assert (status, output) == (0, b"before Z after")
    (line,) = messages.splitlines()
    assert "device process 'uart' was killed by signal 9 (SIGKILL): restarted, 0 requests replayed" in line


def test_process_that_is_killed_before_it_is_jailed_gives_4_where_it_is_not_replaced(images: Images) -> None:
    status, output, messages = run(images, "uart", "unborn", "fail")
    assert (status, output) == (4, b"")
    assert "'uart': it was killed by signal 9 (SIGKILL) before it was ready" in error_lines(messages)[0]


KILLED = "was killed by signal 9 (SIGKILL)"


def test_process_that_is_killed_before_it_has_proved_its_filter_is_lost(images: Images) -> None:
    status, output, messages = run(images, "uart", "unheard_uart", "restart")
    assert (status, output) == (0, b"before Z after")
    (line,) = messages.splitlines()
    assert f"device process 'uart' {KILLED}: restarted, 0 requests replayed" in line
    status, output, messages = run(images, "uart", "unheard_uart", "fail")
    assert (status, output) == (4, b"")
    assert f"cannot start device process 'uart': it {KILLED}" in error_lines(messages)[0]
    status, output, messages = run(images, "uart", "unheard_uart", "all-ones")
    assert (status, output) == (0, b"before \xff after")
    assert f"device process 'uart' {KILLED}: from now on its ports read as ones" in messages


def test_process_that_is_stopped_while_it_proves_its_filter_does_it_once_more(images: Images) -> None:
    # As a container that is frozen, and a host that sleeps, do.
    assert run(images, "uart", "again_heard_uart", "fail") == (0, b"before Z after", "")


def test_standby_processes_that_never_prove_their_filter_are_given_up(images: Images) -> None:
    command = (sys.executable, PROGRAM, "standby", "unheard_standby", "1000")
    code = wait_input() + GUEST
    with images.run(code, "--on-device-crash", "restart", command=command, stdin=-1) as run:
        run.stderr.until(f"no further standby device process is started: 3 in a row {KILLED}".encode())
        run.send(b"!")
        assert run.status() == 0
        assert run.output == b"before Z after"


@pytest.mark.parametrize(("entry", "words"), LOST_AT_HELLO)
def test_hello_that_no_process_survives_gives_8_and_is_shown(images: Images, entry: str, words: str) -> None:
    status, output, messages = run(images, "uart,standby", entry, "restart")
    assert (status, output) == (8, b"")
    (line,) = error_lines(messages)
    assert f"device process 'uart' {words}" in line
    assert "; the same request had broken the 2 processes before it: hello device 0 " in line


@pytest.mark.parametrize(("entry", "words"), LOST_AT_HELLO)
def test_process_that_is_lost_at_hello_gives_8_where_it_is_not_replaced(
    images: Images, entry: str, words: str
) -> None:
    status, output, messages = run(images, "uart", entry, "fail")
    assert (status, output) == (8, b"")
    assert f"device process 'uart' {words}" in error_lines(messages)[0]


@pytest.mark.parametrize(("entry", "words"), [*LOST_AT_HELLO, ("stillborn", "exited with status 3")])
def test_all_ones_holds_for_a_process_that_is_lost_at_or_before_hello(
    images: Images, entry: str, words: str
) -> None:
    status, output, messages = run(images, "uart", entry, "all-ones")
    assert (status, output) == (0, b"before \xff after")
    (line,) = messages.splitlines()
    assert f"device process 'uart' {words}" in line
    assert line.endswith(": from now on its ports read as ones")


def test_processes_that_hang_at_hello_hang_for_as_long_as_one(images: Images) -> None:
    status, output, messages = run(images, "COM1,MMIO", "mute", "restart", "--sandbox", "per-device")
    assert (status, output) == (0, b"before Z after")
    assert "'COM1' is hung: no reply within 10000 ms: restarted, 0 requests" in messages
    lines = messages.splitlines()
    assert sorted(re.findall(r"'(\w+)' is hung", messages)) == ["COM1", "MMIO"]
    waited = [int(found) for found in re.findall(r"no reply within (\d+) ms: restarted", messages)]
    assert len(lines) == len(waited) == 2
    assert waited[0] == 10_000
    assert waited[1:] == [50]


def test_restart_budget_ends_a_run_whose_device_breaks_again_and_again(images: Images) -> None:
    # Each process is honest until its first write: the second write breaks the replacement.
    code = say(b"before ", DEBUGCON) + out(layout.RTC_INDEX_PORT, 0x0A) + WRITE + say(b"after", DEBUGCON)
    command = (sys.executable, PROGRAM, "uart,rtc", "leave", "1000")
    arguments = ("--on-device-crash", "restart", "--restart-budget", "1")
    status, _, messages = run_to_end(images.run(code + SHUTDOWN + IDLE, *arguments, command=command))
    assert status == 8
    (line,) = error_lines(messages)
    assert "exited with status 7; the budget of restarts is used up" in line


@pytest.mark.parametrize(("entry", "words"), LOSSES)
def test_all_ones_the_guest_goes_on_and_reads_ones(images: Images, entry: str, words: str) -> None:
    status, output, messages = run(images, "uart", entry, "all-ones")
    assert (status, output) == (0, b"before \xff after")
    (line,) = messages.splitlines()
    assert line.startswith("kvmbox: device process 'uart' ")
    assert words in line
    assert line.endswith(": from now on its ports read as ones")


# --- Verdicts ---------------------------------------------------------------------------------------------

POWER_OFF = out(layout.PM1_CONTROL_PORT, layout.SLEEP_TYPES["S5"] << 10 | 1 << 13, 2)
LOSE_DEBUG = say(b"x", DEBUGCON) + say(b"1")
"""The debug console's process is lost by then: the write to COM1 comes behind the byte."""


def lose_debug_and(images: Images, code: bytes, choice: str, *arguments: str) -> tuple[int, bytes, str]:
    command = (sys.executable, PROGRAM, "debug", "leave", "1000")
    return run_to_end(
        images.run(
            LOSE_DEBUG + code + POWER_OFF + IDLE, "--on-device-crash", choice, *arguments, command=command
        )
    )


@pytest.mark.parametrize(
    "verdict",
    [debug_exit(1), debug_exit(1, 4), out(layout.EXTRA_DEBUG_EXIT_PORT, 1), out(layout.PVPANIC_PORT, 1)],
    ids=["byte", "four", "0x501", "pvpanic"],
)
def test_verdict_that_is_lost_with_its_process_ends_the_run(images: Images, verdict: bytes) -> None:
    """The power-off behind it would make a success of it."""
    status, output, messages = lose_debug_and(images, verdict + say(b"2"), "all-ones")
    assert (status, output) == (8, b"1")
    (line,) = error_lines(messages)
    assert line.startswith("kvmbox: error: device process 'debug' exited with status 7; ")
    assert "; a verdict of the guest was lost: " in line


@pytest.mark.parametrize(("choice", "status"), [("all-ones", 0), ("restart", 0)])
def test_other_writes_of_a_lost_debug_process_end_nothing(images: Images, choice: str, status: int) -> None:
    code = out(layout.POST_PORT, 1) + say(b"y", DEBUGCON) + say(b"Sh", layout.SHUTDOWN_PORT) + say(b"2")
    ended, output, _ = lose_debug_and(images, code, choice)
    assert (ended, output) == (status, b"12" if choice == "all-ones" else b"x1y2")


@pytest.mark.parametrize("arguments", [("--fail-on", "bad"), ()], ids=["fail-on", "nothing"])
def test_text_that_would_fail_the_run_is_not_lost_with_its_process(
    images: Images, arguments: tuple[str, ...]
) -> None:
    command = (sys.executable, PROGRAM, "uart", "leave", "1000")
    code = WRITE + say(b"bad") + SHUTDOWN + IDLE
    run = images.run(code, "--on-device-crash", "all-ones", *arguments, command=command)
    assert run_to_end(run)[0] == (8 if arguments else 0)
