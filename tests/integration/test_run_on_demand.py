"""Processes that start when the guest uses their devices, from outside: who is there, how jailed, and what a
start that fails comes to.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from kvmbox.base import layout
from tests.support.family import DEVICE_TYPES, device_processes
from tests.support.real_mode import (
    DEBUGCON,
    IDLE,
    RESET_8042,
    SHUTDOWN,
    SPIN,
    debug_exit,
    out,
    say,
    wait_input,
)
from tests.support.runs import Images, Run, error_lines, run_to_end
from tests.support.selection import first_per_commit
from tests.support.waiting import until

pytestmark = pytest.mark.kvm

PROGRAM = str(Path(__file__).parent / "run_payload" / "other_spawner.py")
ON_DEMAND = {"pit", "rtc", "i8042", "debug", "pm", "hpet", "fwcfg", "vga"}
SHOW = bytes.fromhex("ba1105 ec bae900 ee")
"""mov dx,0x511; in al,dx; mov dx,0xe9; out dx,al: the next byte of the item."""

SHOW_SIGNATURE = say(b"<", DEBUGCON) + SHOW * 4 + say(b">", DEBUGCON)
GUEST = SHOW_SIGNATURE + SHUTDOWN + IDLE
USE_PM = out(layout.PM1_EVENT_PORT + 2, 0, 2)


def report_of(images: Images, code: bytes, *arguments: str) -> tuple[int, bytes, dict[str, Any]]:
    """Status, output and report of a run."""
    path = images.directory / "report.json"
    status, output, _ = run_to_end(images.run(code, *arguments, "--json", path))
    return status, output, json.loads(path.read_bytes())


def processes_of(run: Run) -> dict[str, int]:
    """The pids of the device processes that there are just now, by name."""
    return {name: pid for pid, name in device_processes(run.pid).items()}


@pytest.mark.parametrize("design", first_per_commit(["process", "per-device", "none"]))
@pytest.mark.parametrize(
    ("end", "status"),
    [(SHUTDOWN, 0), (debug_exit(21), 43), (debug_exit(1, 4), 3)],
    ids=["word", "byte", "four"],
)
def test_unused_device_has_no_process(images: Images, end: bytes, status: int, design: str) -> None:
    ended, output, report = report_of(images, say(b"1") + end + IDLE, "--sandbox", design)
    assert (ended, output) == (status, b"1")
    if design == "process":
        assert report["on_demand"] == dict.fromkeys(ON_DEMAND)
        assert set(report["sandbox"]) == set(DEVICE_TYPES)
    else:
        assert not any(report["on_demand"].values())


def test_guest_that_prints_on_the_debug_console_gets_its_process_and_loses_nothing(images: Images) -> None:
    text = bytes(ord("a") + index % 26 for index in range(400))
    with images.run(say(b"1") + wait_input() + say(text, DEBUGCON) + say(b"2") + IDLE, stdin=-1) as run:
        run.stdout.until(b"1")
        assert set(processes_of(run)) == {"uart"}
        run.send(b"!")
        run.stdout.until(b"2")
        assert set(processes_of(run)) == {"uart", "debug"}
        assert run.stdout.seen == b"1" + text + b"2"


def test_words_that_do_not_stop_the_run_start_the_process_that_knows(images: Images) -> None:
    almost = say(b"ShutdowN", layout.SHUTDOWN_PORT) + say(b"1") + say(b"SSh", layout.SHUTDOWN_PORT)
    status, output, report = report_of(
        images, almost + say(b"2") + say(b"utdown", layout.SHUTDOWN_PORT) + IDLE
    )
    assert (status, output) == (0, b"12")
    assert report["on_demand"]["debug"] is not None


def test_word_that_a_snapshot_divides_stops_the_run(images: Images) -> None:
    path = images.directory / "divided"
    word = say(b"Shut", layout.SHUTDOWN_PORT) + say(b"!") + say(b"down", layout.SHUTDOWN_PORT)
    arguments = ("--snapshot-when", f"!={path}", "--snapshot-stop")
    assert run_to_end(images.run(word + IDLE, *arguments))[:2] == (0, b"!")
    assert run_to_end(Run("--from", path))[0] == 0


@pytest.mark.parametrize("ipc", first_per_commit(["socketpair", "pipe", "shm"]))
@pytest.mark.parametrize("seccomp", ["filter", "strict", "off"])
def test_first_access_is_answered_by_a_process_as_jailed_as_the_others(
    images: Images, ipc: str, seccomp: str
) -> None:
    status, output, report = report_of(images, GUEST, "--ipc", ipc, "--seccomp", seccomp)
    assert (status, output) == (0, b"<QEMU>")
    assert {name for name, start in report["on_demand"].items() if start is not None} == {"debug", "fwcfg"}
    assert not report["on_demand"]["fwcfg"]["failed"]
    assert report["sandbox"]["fwcfg"] == report["sandbox"]["uart"]
    assert set(report["sandbox"]) == {*DEVICE_TYPES, "debug", "fwcfg"}


@pytest.mark.parametrize("sandbox", first_per_commit(["none", "thread"]))
def test_designs_without_processes_have_nothing_to_start(images: Images, sandbox: str) -> None:
    status, output, report = report_of(images, GUEST, "--sandbox", sandbox)
    assert (status, output) == (0, b"<QEMU>")
    assert report["on_demand"] == {}
    assert set(report["sandbox"]) >= ON_DEMAND


def test_each_device_has_a_process_of_its_own_only_if_it_is_used(images: Images) -> None:
    status, _, report = report_of(images, USE_PM + SHUTDOWN + IDLE, "--sandbox", "per-device")
    assert status == 0
    used = {name for name, start in report["on_demand"].items() if start is not None}
    assert used == {"PM"}
    assert {"power-off", "HPET", "fw_cfg"} <= set(report["on_demand"])


def test_statistics_tell_which_have_started(images: Images) -> None:
    _, _, messages = run_to_end(images.run(GUEST, "--stats"))
    lines = [line for line in messages.splitlines() if line.startswith("process of ")]
    assert [line.split()[2:4] for line in lines] == [
        ["pit", "not"],
        ["rtc", "not"],
        ["i8042", "not"],
        ["debug", "started"],
        ["pm", "not"],
        ["hpet", "not"],
        ["fwcfg", "started"],
        ["vga", "not"],
    ]


@pytest.mark.parametrize("guest", [IDLE, SPIN], ids=["halted", "spinning"])
@pytest.mark.parametrize(
    ("number", "words"),
    [(signal.SIGKILL, "was killed by signal 9 (SIGKILL)"), (signal.SIGSTOP, "is hung")],
    ids=["SIGKILL", "SIGSTOP"],
)
def test_process_that_has_started_is_watched_as_the_others_are(
    images: Images, guest: bytes, number: signal.Signals, words: str
) -> None:
    with images.run(say(b"1") + wait_input() + USE_PM + say(b"2") + guest, stdin=-1) as run:
        run.stdout.until(b"1")
        assert sorted(processes_of(run)) == sorted(DEVICE_TYPES)
        run.send(b"!")
        run.stdout.until(b"2")
        processes = processes_of(run)
        assert sorted(processes) == sorted((*DEVICE_TYPES, "pm"))
        pidfd = os.pidfd_open(processes["pm"])
        os.kill(processes["pm"], number)
        assert run.status() == 8
        assert f"device process 'pm' {words}" in error_lines(run.messages)[0]
        with pytest.raises(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, 0)
        os.close(pidfd)


def test_process_that_makes_a_forbidden_call_at_its_first_request_is_named_with_the_call(
    images: Images,
) -> None:
    status, _, messages = run_to_end(
        images.run(USE_PM + SHUTDOWN + IDLE, command=(sys.executable, PROGRAM, "pm", "opens", "1000"))
    )
    assert status == 8
    (line,) = error_lines(messages)
    assert "device process 'pm' was killed (SIGKILL): it called openat" in line


# --- Starts that fail -------------------------------------------------------------------------------------

FAILURES = [
    ("unborn", "did not start when it was needed: it was killed by signal 9 (SIGKILL) before it was ready"),
    ("unheard_fwcfg", "did not start when it was needed: it was killed by signal 9 (SIGKILL)"),
    ("faints", "exited with status 3"),
    ("greets", "broke the protocol: an effect in the reply"),
]


def with_failing_start(
    images: Images, entry: str, choice: str, *arguments: str, types: str = "fwcfg"
) -> tuple[int, bytes, str]:
    command = (sys.executable, PROGRAM, types, entry, "1000")
    return run_to_end(images.run(GUEST, "--on-device-crash", choice, *arguments, command=command))


@pytest.mark.parametrize(("entry", "words"), FAILURES)
def test_start_that_fails_gives_8_and_says_why(images: Images, entry: str, words: str) -> None:
    status, output, messages = with_failing_start(images, entry, "fail")
    assert (status, output) == (8, b"<")
    (line,) = error_lines(messages)
    if entry == "greets":
        words = "broke the protocol: "
    assert line.startswith(f"kvmbox: error: device process 'fwcfg' {words}")
    assert "Traceback" not in messages


@pytest.mark.parametrize(("entry", "words"), FAILURES)
def test_start_that_fails_is_made_good_by_a_process_in_reserve(
    images: Images, entry: str, words: str
) -> None:
    status, output, messages = with_failing_start(images, entry, "restart")
    assert (status, output) == (0, b"<QEMU>")
    (line,) = messages.splitlines()
    assert "device process 'fwcfg' " in line
    assert ": restarted, 0 requests replayed in " in line


@pytest.mark.parametrize("entry", [entry for entry, _ in FAILURES])
def test_ports_of_what_does_not_start_read_as_ones_where_that_is_wanted(images: Images, entry: str) -> None:
    status, output, messages = with_failing_start(images, entry, "all-ones")
    assert (status, output) == (0, b"<\xff\xff\xff\xff>")
    (line,) = messages.splitlines()
    assert line.endswith(": from now on its ports read as ones")


@pytest.mark.parametrize("choice", ["fail", "restart"])
def test_process_that_lacks_a_layer_does_not_serve_though_the_guest_runs(images: Images, choice: str) -> None:
    types = "fwcfg,standby" if choice == "restart" else "fwcfg"
    status, output, messages = with_failing_start(
        images, "picky", choice, "--without", "landlock", types=types
    )
    assert (status, output) == (8, b"<")
    (line,) = error_lines(messages)
    assert "device process 'fwcfg' did not start when it was needed: " in line
    assert "landlock" in line


@pytest.mark.parametrize("ipc", first_per_commit(["socketpair", "shm"]))
def test_signal_ends_a_run_whose_first_access_waits_for_a_stopped_spawner(images: Images, ipc: str) -> None:
    with images.run(say(b"1") + wait_input() + USE_PM + IDLE, "--ipc", ipc, stdin=-1) as run:
        run.stdout.until(b"1")
        os.kill(run.family.spawner, signal.SIGSTOP)
        run.send(b"!")
        run.signal(signal.SIGTERM)
        assert run.status() == 130
        run.family.wait_dead()


@pytest.mark.parametrize("guest", [IDLE, SPIN], ids=["halted", "spinning"])
def test_signal_ends_a_run_that_prints_first_on_a_console_whose_spawner_is_stopped(
    images: Images, guest: bytes
) -> None:
    printing = say(b"1") + wait_input() + say(b"2", DEBUGCON) + guest
    with images.run(printing, stdin=-1) as run:
        run.stdout.until(b"1")
        files = Path(f"/proc/{run.pid}/fd")
        before = len(list(files.iterdir()))
        os.kill(run.family.spawner, signal.SIGSTOP)
        run.send(b"!")
        until(lambda: len(list(files.iterdir())), lambda seen: seen > before)  # the link to the new process
        run.signal(signal.SIGTERM)
        assert run.status() == 130
        assert run.output in (b"1", b"12")  # a slow host has a second for the start
        assert "ignores the kick" not in run.messages
        run.family.wait_dead()


def test_first_access_whose_spawner_is_dead_gives_8(images: Images) -> None:
    with images.run(say(b"1") + wait_input() + USE_PM + IDLE, stdin=-1) as run:
        run.stdout.until(b"1")
        os.kill(run.family.spawner, signal.SIGKILL)
        assert run.status() == 8
        (line,) = error_lines(run.messages)
        assert "SIGKILL" in line
        run.family.wait_dead()


# --- A timer that nobody has programmed -------------------------------------------------------------------

READ_PORT_B = bytes.fromhex("e461")  # in al,0x61


def wait_for_ticks(number: int, code: bytes = b"") -> bytes:
    """At each of so many interrupts 0 do `code`, and print a letter; then shut down."""
    # cli; call next; pop bx; xor ax,ax; mov ds,ax; then the vector: 0x20 is that of interrupt 8.
    start = bytes.fromhex("fa e80000 5b 31c0 8ed8 81c3")
    pic = out(0x20, 0x11) + out(0x21, 8) + out(0x21, 4) + out(0x21, 1) + out(0x21, 0xFE)
    rest = bytes.fromhex("891e2000 8c0e2200 b9") + number.to_bytes(2, "little") + pic
    rest += bytes.fromhex("fb f4 ebfc")  # sti; hlt; and again
    handler = code + say(b"t") + out(0x20, 0x20) + b"\x49\x75" + bytes((len(SHUTDOWN),)) + SHUTDOWN + b"\xcf"
    distance = len(start) - 4 + 2 + len(rest)
    return start + distance.to_bytes(2, "little") + rest + handler


@pytest.mark.parametrize("sandbox", first_per_commit(["process", "none", "per-device"]))
def test_tick_that_nobody_has_asked_for_comes_without_a_process(images: Images, sandbox: str) -> None:
    status, output, report = report_of(images, wait_for_ticks(3), "--sandbox", sandbox)
    assert (status, output) == (0, b"ttt")
    pit = "PIT" if sandbox == "per-device" else "pit"
    assert report["on_demand"].get(pit) is None


@pytest.mark.parametrize("choice", ["fail", "restart"])
def test_ticks_go_on_when_the_process_has_started(images: Images, choice: str) -> None:
    status, output, report = report_of(images, wait_for_ticks(4, READ_PORT_B), "--on-device-crash", choice)
    assert (status, output) == (0, b"tttt")
    assert not report["on_demand"]["pit"]["failed"]


def test_tick_that_nobody_has_asked_for_comes_in_a_machine_from_a_snapshot(images: Images) -> None:
    path = images.directory / "ticking"
    arguments = ("--snapshot-when", f"tt={path}", "--snapshot-stop")
    assert run_to_end(images.run(wait_for_ticks(6), *arguments))[:2] == (0, b"tt")
    with Run("--from", path) as run:
        assert run.status() == 0
        assert run.output == b"tttt"


@pytest.mark.parametrize(("entry", "words"), [FAILURES[0], FAILURES[2]])
def test_timer_whose_process_does_not_start_is_replaced(images: Images, entry: str, words: str) -> None:
    command = (sys.executable, PROGRAM, "pit", entry, "1000")
    status, output, messages = run_to_end(
        images.run(wait_for_ticks(3, READ_PORT_B), "--on-device-crash", "restart", command=command)
    )
    assert (status, output) == (0, b"ttt")
    assert words in messages
    assert "restarted" in messages


# --- What the guest does not see --------------------------------------------------------------------------

CMOS = 0x50
FIRST_BOOT = out(layout.RTC_INDEX_PORT, CMOS) + out(layout.RTC_DATA_PORT, 0xAA) + RESET_8042


def on_the_second_boot(code: bytes) -> bytes:
    """Reset once, then `code`: select CMOS; in al,0x71; cmp al,0xaa; je behind the first boot."""
    look = out(layout.RTC_INDEX_PORT, CMOS) + bytes.fromhex("e471 3caa 0f84")
    return look + len(FIRST_BOOT).to_bytes(2, "little") + FIRST_BOOT + code


@pytest.mark.parametrize("choice", ["fail", "restart"])
def test_device_that_is_first_used_after_a_reset_is_as_after_a_reset(images: Images, choice: str) -> None:
    status, output, report = report_of(images, on_the_second_boot(GUEST), "--on-device-crash", choice)
    assert (status, output, report["boots"]) == (0, b"<QEMU>", 2)
    assert report["on_demand"]["fwcfg"] is not None


def test_device_that_was_used_before_a_reset_has_its_process_still(images: Images) -> None:
    status, output, report = report_of(images, SHOW_SIGNATURE + on_the_second_boot(GUEST))
    # The reset has selected the signature again.
    assert (status, output, report["boots"]) == (0, b"<QEMU><QEMU><\0\0\0\0>", 2)
