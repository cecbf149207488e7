"""What a run tells about itself (--stats, --json), its interrupts, its reboots, and that runs repeat."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from kvmbox.base import layout
from kvmbox.boot import bundled
from tests.support.family import DEVICE_TYPES
from tests.support.real_mode import HALT_FOR_EVER, SHUTDOWN, TRIPLE_FAULT, debug_exit, out, say
from tests.support.recordings import ticks_of_the_pit
from tests.support.runs import Images, Run, error_lines, run_to_end

pytestmark = pytest.mark.kvm

PIT_MODE, PIT_COUNT = layout.PIT_PORT + 3, layout.PIT_PORT
STOP_PIT = out(PIT_MODE, 0x30)  # channel 0, mode 0, and no count: it waits for one
# The RTC's second, polled until it changes: in al,0x71; mov bl,al; again: in al,0x71; cmp al,bl; je again.
NEXT_SECOND = bytes.fromhex("e471 88c3 e471 38d8 74fa")


def start_pit(divisor: int) -> bytes:
    """Channel 0 in mode 2 with this count."""
    return out(PIT_MODE, 0x34) + out(PIT_COUNT, divisor & 0xFF) + out(PIT_COUNT, divisor >> 8)


def run_with_json(images: Images, code: bytes, *arguments: str) -> dict[str, Any]:
    path = images.directory / "result.json"
    status, output, messages = run_to_end(images.run(code, "--json", str(path), *arguments))
    result: dict[str, Any] = json.loads(path.read_text())
    assert result["status"] == status
    result |= {"output": output, "messages": messages}
    return result


def line(result: dict[str, Any], number: int) -> dict[str, int]:
    return next(entry for entry in result["interrupts"] if entry["line"] == number)


# --- Interrupts -------------------------------------------------------------------------------------------


def ticks(images: Images, divisor: int) -> tuple[dict[str, Any], dict[str, int], float]:
    """The result of a run whose PIT ticks from about one second of the RTC to the next, the ticks that the
    result has, and those that there were in the guest's time: a busy host shows the guest a second late.
    """
    measure = NEXT_SECOND + start_pit(divisor) + NEXT_SECOND + STOP_PIT
    recording = images.directory / "recording"
    code = STOP_PIT + out(layout.RTC_INDEX_PORT, 0) + measure + SHUTDOWN
    result = run_with_json(images, code, "--stats", "--record", str(recording))
    assert result["status"] == 0
    return result, line(result, layout.PIT_IRQ), ticks_of_the_pit(recording, divisor)


def test_ticks_of_a_guest_second_at_1_khz_are_raised_or_coalesced(images: Images) -> None:
    result, told, there_were = ticks(images, 1193)
    expected = rf"^IRQ 0 +{told['raised']} raised, {told['coalesced']} coalesced$"
    assert re.search(expected, result["messages"], re.MULTILINE)
    # One more edge is OUT going high when mode 2 is set (8254 datasheet: "OUT will initially be high").
    assert told["raised"] + told["coalesced"] - 1 == pytest.approx(there_were, abs=1)


def test_ticks_of_a_pit_faster_than_the_host_are_counted_all_the_same(images: Images) -> None:
    _, told, there_were = ticks(images, 12)
    # About 100 kHz, told at most 10,000 times a second (and when the guest touches the PIT).
    assert told["coalesced"] > told["raised"]
    assert told["raised"] + told["coalesced"] - 1 == pytest.approx(there_were, abs=1)


# --- --stats and --json -----------------------------------------------------------------------------------


def test_json_holds_exact_numbers(images: Images) -> None:
    code = (
        say(b"twelve bytes")
        + say(b"five!", layout.DEBUGCON_PORTS[0])
        + out(0x1234, 0)  # nobody's
        + out(0x1234, 0, 4)
        + bytes.fromhex("ba3412 ec ed")  # in al,dx; in ax,dx
        + bytes.fromhex("bafd03 ec ec ec")  # LSR, three times
        + debug_exit(0x21, 2)
    )
    result = run_with_json(images, code)
    assert result["output"] == b"twelve bytesfive!"
    assert result["messages"] == ""
    assert result["status"] == 0x43
    assert "0x21" in result["reason"]
    assert result["format"] == "real"
    assert result["boots"] == 1
    assert result["bytes_out"]["COM1"] == 12
    assert result["bytes_out"]["debugcon"] == 5
    accesses = result["device_accesses"]
    assert accesses["COM1"] == {"reads": 3, "writes": 12}
    assert accesses["debugcon"] == {"reads": 0, "writes": 5}
    assert accesses["debug-exit"] == {"reads": 0, "writes": 1}
    assert accesses["PIT"] == {"reads": 0, "writes": 0}
    assert result["unclaimed"] == {
        "port reads": 1 + 2,
        "port writes": 1 + 4,
        "memory reads": 0,
        "memory writes": 0,
    }
    ports = {(entry["port"], entry["direction"], entry["size"]): entry["count"] for entry in result["ports"]}
    assert ports == {
        (0x3F8, "out", 1): 12,
        (0x3FD, "in", 1): 3,
        (0xF4, "out", 2): 1,
    }
    # The debug console's writes are coalesced: they reach the device, and are no exits.
    assert result["exits"] >= 12 + 3 + 1 + 4
    assert sorted(result["sandbox"]) == ["debug", *DEVICE_TYPES]
    assert all("seccomp" in layers for layers in result["sandbox"].values())
    assert 0 < result["first_console_byte"] <= result["wall_time"]
    assert 0 < result["guest_time"] <= result["wall_time"]
    times = list(result["stages"].values())
    assert times == sorted(times)


@pytest.mark.parametrize(("end", "status"), [(SHUTDOWN, 0), (HALT_FOR_EVER, 6)], ids=["shutdown", "crash"])
def test_stats_go_to_stderr_and_leave_stdout_to_the_guest(images: Images, end: bytes, status: int) -> None:
    result = run_to_end(images.run(say(b"guest only\n") + end, "--stats"))
    assert result[:2] == (status, b"guest only\n")
    for words in (
        "wall time",
        "guest time",
        "first console byte",
        "exits",
        "COM1 output              11 bytes",
    ):
        assert words in result[2]
    assert f"(status {status})" in result[2]


def test_json_of_a_crash_holds_the_report(images: Images) -> None:
    result = run_with_json(images, TRIPLE_FAULT)
    assert result["status"] == 6
    assert "RIP=" in result["report"]
    assert "triple fault" in result["reason"]


def test_guest_that_halts_itself_gets_a_short_statement(images: Images) -> None:
    status, _, messages = run_to_end(images.run(say(b"done") + HALT_FOR_EVER))
    assert status == 6
    lines = messages.splitlines()
    assert lines[0] == "kvmbox: error: the guest is halted for ever: hlt with interrupts off"
    assert lines[1].startswith("hint: ")
    assert "debug-exit port (0xf4)" in lines[1]
    assert lines[2].startswith("at 0x7c")
    assert lines[3:] == ["Last line of COM1: done"]


def test_json_of_a_judged_run_holds_the_final_status(images: Images) -> None:
    result = run_with_json(images, debug_exit(16), "--success-status", "33")
    assert result["status"] == 0
    assert run_with_json(images, debug_exit(16), "--expect", "no")["status"] == 12


def test_json_that_cannot_be_written_is_told_before_the_guest_runs(images: Images) -> None:
    target = images.directory / "none" / "result.json"
    status, output, messages = run_to_end(images.run(say(b"ran") + SHUTDOWN, "--json", str(target)))
    assert (status, output) == (4, b"")
    (text,) = error_lines(messages)
    assert "result.json" in text


# --- Reboots ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reset", [out(0x64, 0xFE), out(0x92, 0x01)], ids=["i8042", "port 92"])
def test_reset_boots_the_image_anew_and_keeps_cmos_ram(images: Images, reset: bytes) -> None:
    # CMOS byte 0x50 counts boots: below three, one more is written and the machine is reset. Before that
    # the guest overwrites its own first instruction, which a reboot has to repair, and a byte outside of the
    # image, which has to be 0 again: mov al,[0x2000]; test al,al; jz over; ... mov byte [0x2000],1.
    fresh = bytes.fromhex("a00020 84c0 74") + bytes((len(debug_exit(1)),)) + debug_exit(1)
    fresh += bytes.fromhex("c606002001")
    count = bytes.fromhex("b050 e670 e471 fec0 88c3 b050 e670 88d8 e671")  # bl = ++cmos[0x50]
    spoil = bytes.fromhex("c606007c f4")  # mov byte [0x7c00],0xf4: hlt
    done = debug_exit(0x15)
    leave = bytes.fromhex("80fb03 72") + bytes((len(done),)) + done  # cmp bl,3; jb over
    code = say(b"boot\n") + fresh + count + spoil + leave + reset + bytes.fromhex("f4 ebfd")
    result = run_with_json(images, code)
    assert result["status"] == 0x2B
    assert result["output"] == b"boot\n" * 3
    assert result["boots"] == 3


def test_text_expected_may_come_from_two_boots(images: Images) -> None:
    code = say(b"boot.") + out(0x64, 0xFE) + bytes.fromhex("f4 ebfd")
    assert run_to_end(images.run(code, "--expect", "boot.boot.bo")) == (0, b"boot.boot.bo", "")


# --- The same again ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "guests",
    [("hello32", "hello64"), ("irq64", "real16"), ("mmio64", "reboot")],
    ids=" and ".join,
)
def test_two_runs_in_a_row_are_identical(guests: tuple[str, str]) -> None:
    # Two guests at a time: they spend their seconds waiting for the RTC.
    if not all(map(bundled.find, guests)):
        pytest.skip("the guests are not built: make guests")
    first, second = ([run_to_end(run) for run in [Run(guest) for guest in guests]] for _ in range(2))
    assert first == second
    for status, output, _ in first:
        assert status == 0
        assert output


def test_rtc_starts_where_it_is_told(images: Images, tmp_path: Path) -> None:
    # The registers century, year, month, day and hour, in BCD, to the debug console.
    code = b"".join(bytes.fromhex(f"b0{index:02x} e670 e471 bae900 ee") for index in (0x32, 9, 8, 7, 4))
    for base, expected in (
        ("2000-02-29T23:00:00", "2000022923"),
        ("1999-12-31", "1999123100"),
        ("2099-01-02T03:04:05+14:00", "2099010203"),
    ):
        status, output, _ = run_to_end(images.run(code + SHUTDOWN, "--rtc-base", base))
        assert (status, output.hex()) == (0, expected)
