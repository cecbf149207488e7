"""The exit statuses of `kvmbox run`, each given by a guest of a few bytes on the real /dev/kvm.

Every run here also shows that what the guest printed before its end has arrived, whole, and that stderr
holds one line that says what happened where the status is an error of the guest's or of kvmbox's.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from kvmbox.base import layout
from tests.support.patience import far_enough, seconds
from tests.support.real_mode import (
    COM1,
    COM2,
    DEBUGCON,
    HALT_FOR_EVER,
    IDLE,
    POPCNT,
    RESET_92,
    RESET_8042,
    SHUTDOWN,
    SPIN,
    TRIPLE_FAULT,
    debug_exit,
    echo,
    out,
    say,
    say_much,
)
from tests.support.runs import Images, Run, error_lines, run_to_end

pytestmark = pytest.mark.kvm

HELLO = say(b"Hello\n")


# --- 0 and odd: the guest's own end -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("end", "arguments"),
    [
        (SHUTDOWN, ()),
        (say(b"ShutShutdown", 0x8900), ()),
        (RESET_8042, ("--no-reboot",)),
        (RESET_92, ("--no-reboot",)),
        (out(0xCF9, 0x02) + out(0xCF9, 0x06) + IDLE, ("--no-reboot",)),
        (out(0xCF9, 0x0E) + IDLE, ("--no-reboot",)),
        (out(0x505, 0x04), ()),
        (out(0x501, 41, 4), ("--success-status", "83")),
        (IDLE, ("--expect", "Hello\n")),
        (IDLE, ("--expect", "lo\n", "--expect", "Hell")),
        (debug_exit(16), ("--success-status", "33")),
        (debug_exit(16), ("--expect", "Hello\n", "--success-status", "33")),
    ],
    ids=[
        "shutdown",
        "shutdown after a false start",
        "8042 reset",
        "port 92 reset",
        "port cf9 reset",
        "port cf9 full reset",
        "pvpanic shutdown",
        "success of Solo5, Unikraft and Nanos",
        "expect",
        "two expects",
        "success status",
        "expect before another status",
    ],
)
def test_clean_end_gives_0_and_all_output(images: Images, end: bytes, arguments: tuple[str, ...]) -> None:
    status, output, messages = run_to_end(images.run(HELLO + end, *arguments))
    assert (status, output, messages) == (0, b"Hello\n", "")


@pytest.mark.parametrize(
    ("value", "size", "status"),
    [
        (0x00, 1, 0x01),
        (0x01, 1, 0x03),
        (0x10, 1, 0x21),
        (0x7F, 1, 0xFF),
        (0x80, 1, 0x01),
        (0xFF, 1, 0xFF),
        (0x0000, 2, 0x01),
        (0x0115, 2, 0x2B),
        (0xFFFF, 2, 0xFF),
        (0x1234_5678, 4, 0xF1),
        (0x8000_0000, 4, 0x01),
        (0xFFFF_FFFF, 4, 0xFF),
    ],
)
def test_debug_exit_gives_odd_status_and_all_output(
    images: Images, value: int, size: int, status: int
) -> None:
    assert run_to_end(images.run(HELLO + debug_exit(value, size))) == (status, b"Hello\n", "")


@pytest.mark.parametrize(("value", "size", "status"), [(41, 1, 83), (0, 2, 1), (0x10, 4, 33)])
def test_debug_exit_is_at_0x501_too(images: Images, value: int, size: int, status: int) -> None:
    assert run_to_end(images.run(HELLO + out(0x501, value, size))) == (status, b"Hello\n", "")


def test_debug_exit_elsewhere_moves_the_first_port_and_keeps_the_second(images: Images) -> None:
    code = debug_exit(1) + out(0x700, 2)
    assert run_to_end(images.run(code, "--debug-exit", "0x700"))[0] == 5
    assert run_to_end(images.run(debug_exit(1) + out(0x501, 2), "--debug-exit", "0x700"))[0] == 5


def test_debug_exit_elsewhere_obeys_the_new_port_only(images: Images) -> None:
    code = debug_exit(1) + out(0x501, 2)
    assert run_to_end(images.run(code, "--debug-exit", "0x501"))[0] == 5


def test_looking_for_pci_resets_nothing(images: Images) -> None:
    code = out(0xCF8, 0x8000_0600, 4) + out(0xCF8, 0x0606, 2) + out(0xCFB, 0x06) + debug_exit(7)
    assert run_to_end(images.run(code, "--no-reboot"))[0] == 15


@pytest.mark.parametrize("value", [0x01, 0x03, 0xFF])
def test_pvpanic_gives_6_and_says_so(images: Images, value: int) -> None:
    status, output, messages = run_to_end(images.run(HELLO + out(0x505, value) + debug_exit(0)))
    assert (status, output) == (6, b"Hello\n")
    assert error_lines(messages) == ["kvmbox: error: the guest reported a panic (pvpanic)"]


def test_pvpanic_of_a_guest_with_a_crash_kernel_is_said_once_and_the_run_goes_on(images: Images) -> None:
    status, output, messages = run_to_end(images.run(out(0x505, 0x02) * 3 + HELLO + debug_exit(4)))
    assert (status, output) == (9, b"Hello\n")
    assert messages == "kvmbox: the guest reported a panic, and boots its crash kernel (pvpanic)\n"


def test_debug_exit_none_leaves_no_port(images: Images) -> None:
    code = debug_exit(1) + debug_exit(2, 4) + out(0x501, 3, 4) + SHUTDOWN
    assert run_to_end(images.run(code, "--debug-exit", "none"))[0] == 0


def test_output_of_the_debug_console_keeps_its_place(images: Images) -> None:
    code = say(b"one ") + say(b"two ", DEBUGCON) + say(b"three ") + say(b"four", 0x402) + SHUTDOWN
    assert run_to_end(images.run(code)) == (0, b"one two three four", "")


# --- 2: usage that only a guest brings to light -----------------------------------------------------------


@pytest.mark.parametrize("address", ["0xa0000", "0x100000", "0xffffffffffffffffff"])
def test_load_address_beyond_real_mode_memory_gives_2(images: Images, address: str) -> None:
    status, output, messages = run_to_end(images.run(SHUTDOWN, "--load-address", address))
    assert (status, output) == (2, b"")
    assert len(error_lines(messages)) == 1
    assert "load address" in messages


@pytest.mark.parametrize("address", ["0x500", "0x8000", "0x12340", "0x90000"])
def test_load_address_is_where_the_guest_runs(images: Images, address: str) -> None:
    # call next; next: pop ax; sub ax,3; mov dx,0xe9; out dx,al; mov al,ah; out dx,al; then CS the same way.
    offset = bytes.fromhex("e80000 58 2d0300 bae900 ee 88e0 ee")
    segment = bytes.fromhex("8cc8 ee 88e0 ee")
    status, output, _ = run_to_end(images.run(offset + segment + SHUTDOWN, "--load-address", address))
    assert status == 0
    low, high = int.from_bytes(output[:2], "little"), int.from_bytes(output[2:], "little")
    assert (high << 4) + low == int(address, 0)


# --- 6: the guest crashed ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("end", "words"),
    [(TRIPLE_FAULT, "triple fault"), (HALT_FOR_EVER, "halted for ever")],
    ids=["triple fault", "cli; hlt"],
)
@pytest.mark.parametrize(
    "arguments",
    [(), ("--expect", "never printed"), ("--success-status", "33"), ("--no-reboot", "--timeout", "60")],
    ids=["plain", "expect", "success status", "no reboot"],
)
def test_crash_gives_6_and_a_report(
    images: Images, end: bytes, words: str, arguments: tuple[str, ...]
) -> None:
    status, output, messages = run_to_end(images.run(HELLO + end, *arguments))
    assert (status, output) == (6, b"Hello\n")
    (line,) = error_lines(messages)
    assert words in line
    assert ("RIP=" in messages) is (end is TRIPLE_FAULT)  # a guest that has halted itself is no crash
    assert messages.splitlines()[1].startswith("hint: ")


# --- 10: KVM gives up -------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [(), ("--success-status", "11")], ids=["plain", "success status"])
def test_instruction_that_kvm_does_not_know_gives_10(images: Images, arguments: tuple[str, ...]) -> None:
    # Where the processor itself runs real mode, it knows POPCNT, and the guest says so.
    status, output, messages = run_to_end(images.run(HELLO + POPCNT + debug_exit(5), *arguments))
    assert output == b"Hello\n"
    if status != 10:
        assert status == (0 if arguments else 11)
        return
    (line,) = error_lines(messages)
    assert "internal error" in line
    assert "does not know popcnt: a limit of this host's KVM backend, not of the guest" in line
    assert "f3 0f b8 c0" in line
    assert "hint: run it on a host with VT-x or AMD-V" in messages
    assert "RIP=" in messages


# --- A BIOS that is not there -----------------------------------------------------------------------------

# xor ax,ax; mov ss,ax; mov sp,0x7c00; mov ds,ax; mov bx,0x7e00; mov ax,0x201: the start of many a boot sector
BOOT_SECTOR = bytes.fromhex("31c0 8ed0 bc007c 8ed8 bb007e b80102")


@pytest.mark.parametrize("vector", [0x10, 0x13, 0x7E])
def test_guest_that_calls_a_bios_ends_there_and_is_told_what_is_missing(images: Images, vector: int) -> None:
    code = say(b"calls\n") + BOOT_SECTOR + bytes([0xCD, vector]) + SPIN
    place = 0x7C00 + len(code) - len(SPIN) - 2
    status, output, messages = run_to_end(images.run(code))
    assert (status, output) == (6, b"calls\n")
    (line,) = error_lines(messages)
    assert line == f"kvmbox: error: int {vector:#x} AH=0x02 is not provided, at {place:#x}"
    assert "hint: there is no BIOS here; --bios builtin provides one" in messages


def test_exception_that_nobody_handles_ends_the_run_with_its_name(images: Images) -> None:
    # xor dx,dx; xor cx,cx; div cx
    status, _, messages = run_to_end(images.run(BOOT_SECTOR + bytes.fromhex("31d2 31c9 f7f1") + SPIN))
    assert status == 6
    (line,) = error_lines(messages)
    place = 0x7C00 + len(BOOT_SECTOR) + 4
    assert line == f"kvmbox: error: interrupt 0x00 (divide error) is not handled, at {place:#x}"


def test_guest_with_a_vector_of_its_own_hears_nothing_of_a_bios(images: Images) -> None:
    # mov word [0x40], handler; mov word [0x42], 0; int 0x10; jmp $; handler: iret
    code = BOOT_SECTOR + bytes.fromhex("c7064000 217c c70642000000 cd10 ebfe cf")
    handler = 0x7C00 + len(code) - 1
    code = code.replace(bytes.fromhex("217c"), handler.to_bytes(2, "little"))
    status, _, messages = far_enough(
        lambda scale: run_to_end(images.run(code, "--timeout", seconds(scale))),
        lambda done: "hint: so far:" not in done[2],  # where the guest had not begun
    )
    assert status == 124
    assert "BIOS" not in messages
    assert "hint" not in messages


# --- 12: not what was wanted ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("end", "arguments", "words"),
    [
        (IDLE, ("--fail-on", "ello\n"), r"'ello\n'"),
        (IDLE, ("--fail-on", "never", "--fail-on", "Hello\n"), "Hello"),
        (SHUTDOWN, ("--expect", "Hello", "--expect", "never printed"), "never printed"),
        (debug_exit(0), ("--expect", "hello"), "hello"),
        (RESET_8042, ("--no-reboot", "--expect", "hello"), "hello"),
        (SHUTDOWN, ("--success-status", "33"), "33"),
        (debug_exit(17), ("--success-status", "33"), "33"),
        (debug_exit(16), ("--success-status", "33", "--expect", "hello"), "hello"),
    ],
    ids=[
        "fail-on",
        "one of two fail-ons",
        "shutdown before expect",
        "debug exit before expect",
        "reset before expect",
        "clean is not the success status",
        "another status",
        "success status without expect",
    ],
)
def test_unwanted_end_gives_12_and_says_why(
    images: Images, end: bytes, arguments: tuple[str, ...], words: str
) -> None:
    status, output, messages = run_to_end(images.run(HELLO + end, *arguments))
    assert (status, output) == (12, b"Hello\n")
    (line,) = error_lines(messages)
    assert words in line


def test_serial_limit_passes_exactly_that_many_bytes(images: Images) -> None:
    status, output, messages = run_to_end(images.run(say(b"0123456789" * 5) + IDLE, "--serial-limit", "37"))
    assert (status, output) == (12, (b"0123456789" * 5)[:37])
    (line,) = error_lines(messages)
    assert "--serial-limit" in line


def test_serial_limit_that_is_just_reached_ends_nothing(images: Images) -> None:
    assert run_to_end(images.run(HELLO + SHUTDOWN, "--serial-limit", "6")) == (0, b"Hello\n", "")


# --- 124 --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("guest", "arguments"),
    [(SPIN, ()), (IDLE, ()), (echo(), ()), (IDLE, ("--expect", "never", "--success-status", "33"))],
    ids=["spins", "halts", "polls", "expected something"],
)
def test_timeout_gives_124(images: Images, guest: bytes, arguments: tuple[str, ...]) -> None:
    def ended_after(scale: int) -> tuple[int, bytes, str, str]:
        limit = seconds(scale)
        return *run_to_end(images.run(HELLO + guest, "--timeout", limit, *arguments)), limit

    status, output, messages, limit = far_enough(ended_after, lambda result: result[1])
    assert (status, output) == (124, b"Hello\n")
    (line,) = error_lines(messages)
    assert f"--timeout {limit} s" in line


# --- The first decisive event wins ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("guest", "arguments", "status", "output"),
    [
        (say(b"OK") + debug_exit(8), ("--expect", "OK"), 0, b"OK"),
        (say(b"OK") + TRIPLE_FAULT, ("--expect", "OK"), 0, b"OK"),
        (say(b"OK") + HALT_FOR_EVER, ("--expect", "OK"), 0, b"OK"),
        (say(b"BAD") + SHUTDOWN, ("--fail-on", "BAD"), 12, b"BAD"),
        (say(b"BAD OK"), ("--expect", "OK", "--fail-on", "BAD"), 12, b"BAD"),
        (say(b"OK BAD"), ("--expect", "OK", "--fail-on", "BAD"), 0, b"OK"),
        (debug_exit(8) + say(b"OK"), ("--expect", "OK"), 12, b""),
        (debug_exit(8) + say(b"late"), (), 17, b""),
        (debug_exit(8) + debug_exit(9), (), 17, b""),
        (debug_exit(8) + SHUTDOWN, (), 17, b""),
        (SHUTDOWN + debug_exit(8), (), 0, b""),
        (SHUTDOWN + TRIPLE_FAULT, (), 0, b""),
        (debug_exit(8) + RESET_8042, (), 17, b""),
        (out(0x64, 0xFE) + debug_exit(8), ("--no-reboot",), 0, b""),
        (say(b"O") + say(b"K", DEBUGCON) + debug_exit(8), ("--expect", "OK"), 0, b"OK"),
    ],
    ids=[
        "expect, debug exit",
        "expect, triple fault",
        "expect, halt",
        "fail-on, shutdown",
        "fail-on, expect",
        "expect, fail-on",
        "debug exit, expect",
        "debug exit, output",
        "debug exit, debug exit",
        "debug exit, shutdown",
        "shutdown, debug exit",
        "shutdown, triple fault",
        "debug exit, reset",
        "reset, debug exit",
        "expect over both consoles",
    ],
)
def test_first_decisive_event_wins(
    images: Images, guest: bytes, arguments: tuple[str, ...], status: int, output: bytes
) -> None:
    result = run_to_end(images.run(guest + IDLE, *arguments))
    assert result[:2] == (status, output)
    assert len(error_lines(result[2])) == (status == 12)


@pytest.mark.parametrize(
    ("arguments", "status", "output"),
    [
        (("--fail-on", "mode!\n"), 12, b"Hello from 64-bit long mode!\n"),
        (("--serial-limit", "28"), 12, b"Hello from 64-bit long mode!"),
        (("--expect", "mode!\n"), 0, b"Hello from 64-bit long mode!\n"),
        (("--expect", "mode!\n", "--success-status", "43"), 12, b"Hello from 64-bit long mode!\n"),
    ],
    ids=["fail-on", "limit", "expect", "expect and a status of others"],
)
def test_text_that_a_paced_uart_held_at_the_end_is_judged(
    arguments: tuple[str, ...], status: int, output: bytes
) -> None:
    assert run_to_end(Run("hello64", "--uart-pace", *arguments))[:2] == (status, output)


@pytest.mark.parametrize("port", [COM1, DEBUGCON])
def test_string_of_one_instruction_is_judged_byte_by_byte(images: Images, port: int) -> None:
    code = say_much(b"one OK BAD and much more", port) + SHUTDOWN + IDLE
    assert run_to_end(images.run(code, "--expect", "OK", "--fail-on", "BAD"))[:2] == (0, b"one OK")
    assert run_to_end(images.run(code, "--fail-on", "BAD", "--serial-limit", "9"))[:2] == (12, b"one OK BA")
    assert run_to_end(images.run(code, "--fail-on", "BAD", "--serial-limit", "10"))[:2] == (12, b"one OK BAD")


@pytest.mark.parametrize("port", [COM1, DEBUGCON])
def test_guest_that_sleeps_behind_the_text_of_a_snapshot_is_stopped_there(
    images: Images, port: int, tmp_path: Path
) -> None:
    # S3 by the PM1a control register, and nothing that could wake the guest: that is status 6.
    sleep = out(layout.PM1_CONTROL_PORT, 1 << 13 | 1 << 10, 2)
    path = tmp_path / "a.snap"
    arguments = ("--snapshot-when", f"OK={path}", "--snapshot-stop")
    status, output, _ = run_to_end(images.run(say(b"OK", port) + sleep + IDLE, *arguments))
    assert (status, output, path.exists()) == (0, b"OK", True)


def test_expect_looks_at_the_console_only(images: Images) -> None:
    # COM2 is not what a person sees as the console, unless it is on stdio.
    code = say(b"OK", COM2) + debug_exit(1)
    assert run_to_end(images.run(code, "--serial", "COM2=null", "--expect", "OK"))[0] == 12
    status, output, _ = run_to_end(images.run(code, "--serial", "COM2=stdio", "--expect", "OK"))
    assert (status, output) == (0, b"OK")


def test_expect_is_found_where_the_console_is_not_shown(images: Images) -> None:
    status, output, _ = run_to_end(images.run(HELLO + IDLE, "--serial", "COM1=null", "--expect", "Hello"))
    assert (status, output) == (0, b"")
