"""A device process that lies, hangs or breaks out ends the run with status 8, is named, and changes nothing.

The guest prints through the debug console, which stays honest, and then writes to the device that does not.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from kvmbox.base import layout
from tests.support.real_mode import COM1, DEBUGCON, IDLE, SHUTDOWN, out, say
from tests.support.runs import Images, error_lines, run_to_end

pytestmark = pytest.mark.kvm

PROGRAM = str(Path(__file__).parent / "run_payload" / "other_spawner.py")
FIRST_WRITE = {
    "uart": out(COM1 + 7, 0),
    "pit": out(layout.PIT_PORT + 3, 0x34),
    "rtc": out(layout.RTC_INDEX_PORT, 0x0A),
    "i8042": out(layout.I8042_COMMAND_PORT, 0x20),
}


def run_with_liar(images: Images, device_type: str, entry: str, *arguments: str) -> tuple[int, bytes, str]:
    code = say(b"before\n", DEBUGCON) + FIRST_WRITE[device_type] * 2 + say(b"after", DEBUGCON) + SHUTDOWN
    command = (sys.executable, PROGRAM, device_type, entry, "1000")
    return run_to_end(images.run(code + IDLE, *arguments, command=command))


@pytest.mark.parametrize(
    ("device_type", "entry", "words"),
    [
        ("uart", "sequence", "broke the protocol: reply 43981 to request"),
        ("pit", "sequence", "broke the protocol: reply 43981 to request"),
        ("uart", "kind", "broke the protocol: a reply of kind 0x82 to a request of kind 0x3"),
        ("uart", "count", "broke the protocol: 200 effects announced"),
        ("rtc", "value", "broke the protocol: value 0x1 where at most 0x0 can be"),
        ("i8042", "zero", "broke the protocol"),
        ("uart", "length", "announces a payload of 2147483648"),
        ("uart", "short", "broke the protocol: a frame of 31 bytes"),
        ("uart", "empty", "broke the protocol"),
        ("uart", "long", "broke the protocol: a frame of 4097 bytes"),
        ("uart", "stray", "broke the protocol: 5 stray bytes"),
        ("uart", "twice", "broke the protocol: reply"),
        ("uart", "never", "is hung: no reply within 500 ms"),
        ("rtc", "spin", "is hung: no reply within 500 ms"),
        ("uart", "stop", "broke the protocol: effect Stop of COM1: not granted"),
        ("uart", "reset", "broke the protocol: effect Reset of COM1: not granted"),
        ("i8042", "stop", "broke the protocol: effect Stop of i8042: not granted"),
        ("pit", "pin", "broke the protocol: effect IrqLine of PIT: not granted"),
        ("rtc", "output", "broke the protocol: effect HostOutput of RTC: not granted"),
        ("uart", "stranger", "broke the protocol: an effect of device 77"),
        ("uart", "error", "failed: \\x1b]0;owned\\x07\\x0d\\x0akvmbox: all is well"),
        ("uart", "raises", "failed: IndexError"),
        ("uart", "leave", "exited with status 7"),
        ("uart", "opens", "it called openat("),
        ("rtc", "kills", "it called kill(0x1, 0x9, "),
        ("pit", "writes", "it called write(0x2, "),
    ],
)
def test_hostile_device_process_gives_8_and_is_named(
    images: Images, device_type: str, entry: str, words: str
) -> None:
    status, output, messages = run_with_liar(images, device_type, entry)
    assert (status, output) == (8, b"before\n")
    (line,) = error_lines(messages)
    assert f"device process '{device_type}'" in line
    assert words in line
    assert all(character.isprintable() for character in line)


def read_often(port: int, times: int) -> bytes:
    """mov cx,times; mov dx,port; again: in al,dx; dec cx; jnz again."""
    return (
        b"\xb9"
        + times.to_bytes(2, "little")
        + b"\xba"
        + port.to_bytes(2, "little")
        + bytes.fromhex("ec4975fc")
    )


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("opens", "it called openat("),
        ("never", "is hung: no reply within 500 ms"),
        ("sequence", "broke the protocol: reply 43981 to request"),
        ("leave", "exited with status 7"),
    ],
)
def test_guest_does_not_go_on_behind_a_write_that_the_main_thread_has_failed_to_deliver(
    images: Images, entry: str, words: str
) -> None:
    """The write does not exit. The guest reads from another device until the main thread has flushed it."""
    busy = read_often(layout.I8042_COMMAND_PORT, 1)  # the first read of its kind drains the ring
    code = say(b"before\n", DEBUGCON) + busy + FIRST_WRITE["rtc"]
    code += read_often(layout.I8042_COMMAND_PORT, 4_000) + say(b"after", DEBUGCON) + SHUTDOWN + IDLE
    command = (sys.executable, PROGRAM, "rtc", entry, "1000")
    status, output, messages = run_to_end(images.run(code, command=command))
    assert (status, output) == (8, b"before\n")
    (line,) = error_lines(messages)
    assert "device process 'rtc'" in line
    assert words in line


@pytest.mark.parametrize("entry", ["opens", "kills", "writes"])
def test_forbidden_call_is_named_with_its_signal(images: Images, entry: str) -> None:
    _, _, messages = run_with_liar(images, "uart", entry)
    assert "SIGKILL" in messages
    assert "seccomp" in messages


def test_effect_in_the_reply_to_hello_gives_8_before_the_guest_runs(images: Images) -> None:
    status, output, messages = run_with_liar(images, "uart", "greets")
    assert (status, output) == (8, b"")
    (line,) = error_lines(messages)
    assert "'uart' broke the protocol: an effect in the reply to hello, which has none" in line


def test_stop_needs_a_write_to_the_device_that_stops(images: Images) -> None:
    # The guest writes to the POST port; the process of all debug devices says that debug-exit was written.
    command = (sys.executable, PROGRAM, "debug", "stop_of_another", "1000")
    status, output, messages = run_to_end(
        images.run(say(b"before") + out(layout.POST_PORT, 3) + IDLE, command=command)
    )
    assert (status, output) == (8, b"before")
    assert "broke the protocol: effect Stop of debug-exit: not granted" in messages


def test_clean_stop_needs_the_write_that_asks_for_it(images: Images) -> None:
    # The guest enables no event; the process of power management says that it was switched off.
    command = (sys.executable, PROGRAM, "pm", "stop", "1000")
    status, output, messages = run_to_end(
        images.run(say(b"before") + out(layout.PM1_EVENT_PORT + 2, 0) + IDLE, command=command)
    )
    assert (status, output) == (8, b"before")
    assert "broke the protocol: effect Stop of PM: not granted" in messages


def test_hostile_device_process_cannot_fulfil_expectations(images: Images) -> None:
    arguments = ("--expect", "forged", "--success-status", "17", "--no-reboot")
    for entry in ("output", "stop", "reset"):
        assert run_with_liar(images, "rtc", entry, *arguments)[0] == 8


@pytest.mark.parametrize("device_type", ["pit", "rtc", "uart"])
def test_deadline_that_is_over_neither_ends_nor_stalls_the_run(images: Images, device_type: str) -> None:
    # A late host makes an honest process say the same: it is asked again, at a bounded rate.
    assert run_with_liar(images, device_type, "deadline") == (0, b"before\nafter", "")


def test_honest_until_the_first_write_the_run_is_an_ordinary_one(images: Images) -> None:
    # The control: without a write to the liar nothing is wrong.
    command = (sys.executable, PROGRAM, "pit", "sequence", "1000")
    assert run_to_end(images.run(say(b"fine") + SHUTDOWN, command=command)) == (0, b"fine", "")


# --- A host that lacks a layer of the sandbox -------------------------------------------------------------


@pytest.mark.parametrize("layer", ["landlock", "landlock-net", "landlock-scopes"])
def test_required_layer_that_is_missing_gives_4_and_is_named(images: Images, layer: str) -> None:
    command = (sys.executable, PROGRAM, "-", "-", "0")
    status, output, messages = run_to_end(
        images.run(say(b"ran") + SHUTDOWN, "--require", layer, command=command)
    )
    assert (status, output) == (4, b"")
    (line,) = error_lines(messages)
    assert layer in line


def test_missing_layer_that_is_not_required_is_reported_by_stats(images: Images) -> None:
    command = (sys.executable, PROGRAM, "-", "-", "0")
    status, output, messages = run_to_end(images.run(say(b"ran") + SHUTDOWN, "--stats", command=command))
    assert (status, output) == (0, b"ran")
    assert "sandbox layers missing   landlock, landlock-net, landlock-scopes" in messages
