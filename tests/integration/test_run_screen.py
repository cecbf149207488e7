"""The text screen from outside: what is shown when, what is searched, and what hostile guests do with it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from kvmbox import ExpectError, Machine, UsageError
from kvmbox.base import layout
from kvmbox.parts.screen.mode import MOST_COLUMNS, MOST_ROWS
from kvmbox.parts.screen.screen import Cursor
from tests.support.patience import far_enough, patience, seconds
from tests.support.real_mode import (
    COM1,
    DEBUGCON,
    HALT_FOR_EVER,
    IDLE,
    RESET_8042,
    SCREEN_SEGMENT,
    SHUTDOWN,
    SPIN,
    TRIPLE_FAULT,
    debug_exit,
    out,
    say,
    show,
    wait_input,
)
from tests.support.runs import DESIGNS, ENTRY, KVMBOX, Images, Run, error_lines, run_to_end
from tests.support.selection import first_per_commit

pytestmark = pytest.mark.kvm

OTHER_SPAWNER = str(Path(__file__).parent / "run_payload" / "other_spawner.py")
PATIENCE_S = patience(30.0)
HELLO = """\
Hello from the text screen!

  ┌───┐ ☺ ←[31m
  └───┘
>
""".encode()
CRTC = layout.VGA_PORTS[1][0]


def move_cursor(place: int) -> bytes:
    """By four writes of a byte, as many kernels do for each character. They are coalesced."""
    index, data = layout.VGA_CRTC_PORTS
    high, low = divmod(place, 256)
    return out(index, 0x0E) + out(data, high) + out(index, 0x0F) + out(data, low)


def start_at(row: int) -> bytes:
    """The display begins at this row of memory."""
    place = 80 * row
    return out(CRTC, 0x0C | place & 0xFF00, 2) + out(CRTC, 0x0D | (place & 0xFF) << 8, 2)


# --- What is shown ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments", first_per_commit([*DESIGNS, ("--on-device-crash", "restart")]), ids=" ".join
)
def test_text_of_a_guest_that_only_prints_on_the_screen_is_shown(arguments: tuple[str, ...]) -> None:
    status, output, messages = run_to_end(Run("screen", *arguments))
    assert (status, output) == (6, HELLO)
    assert error_lines(messages) == ["kvmbox: error: the guest is halted for ever: hlt with interrupts off"]
    assert "Screen:" not in messages  # it was shown


@pytest.mark.parametrize(
    ("choice", "port", "shown"),
    [
        ("auto", COM1, b"serial"),
        ("auto", DEBUGCON, b"serial"),
        ("end", COM1, b"serial\nscreen\n"),
        ("never", COM1, b"serial"),
    ],
)
def test_screen_is_shown_behind_other_output_only_if_that_is_asked_for(
    images: Images, choice: str, port: int, shown: bytes
) -> None:
    code = show(b"screen") + say(b"serial", port) + SHUTDOWN
    assert run_to_end(images.run(code + IDLE, "--screen", choice)) == (0, shown, "")


def test_screen_is_not_shown_where_it_is_not_wanted(images: Images) -> None:
    assert run_to_end(images.run(show(b"screen") + SHUTDOWN + IDLE, "--screen", "never")) == (0, b"", "")


@pytest.mark.parametrize("choice", ["auto", "end"])
def test_blank_screen_shows_nothing(images: Images, choice: str) -> None:
    code = show(b"    ") + out(CRTC, 0x0F) + SHUTDOWN + IDLE
    assert run_to_end(images.run(code, "--screen", choice)) == (0, b"", "")


def test_screen_is_shown_on_stdout_also_where_the_ports_have_no_output(images: Images) -> None:
    arguments = ("--serial", "COM1=null", "--debugcon", "null")
    code = show(b"screen") + SHUTDOWN + IDLE
    assert run_to_end(images.run(code, *arguments)) == (0, b"screen\n", "")
    assert run_to_end(images.run(say(b"x") + code, *arguments)) == (0, b"", "")


def test_registers_say_what_of_memory_is_shown(images: Images) -> None:
    code = show(b"above") + show(b"first", 30) + show(b"last", 54) + show(b"below", 55) + start_at(30)
    status, output, _ = run_to_end(images.run(code + SHUTDOWN + IDLE))
    assert (status, output) == (0, b"first" + b"\n" * 24 + b"last\n")


def test_lost_process_that_is_replaced_keeps_the_registers(images: Images) -> None:
    code = show(b"above") + start_at(3) + show(b"here", 3) + out(CRTC, 0x0F) + SHUTDOWN + IDLE
    command = (sys.executable, OTHER_SPAWNER, "vga", "leave", "1000")
    status, output, messages = run_to_end(images.run(code, "--on-device-crash", "restart", command=command))
    assert (status, output) == (0, b"here\n")
    assert "kvmbox: device process 'vga' exited with status 7: restarted" in messages


def test_graphics_that_are_not_shown_are_told_in_one_line(images: Images) -> None:
    code = out(0x3CE, 0x06 | 0x05 << 8, 2) * 2 + SHUTDOWN + IDLE
    status, output, messages = run_to_end(images.run(code))
    assert (status, output) == (0, b"")
    assert messages.startswith("kvmbox: a picture of 640 x 400 pixels: '--screen live', '--vnc ")
    assert messages.count("\n") == 1


def test_text_that_the_bios_has_printed_is_not_shown_twice(images: Images) -> None:
    printed = b"".join(bytes((0xB8, byte, 0x0E, 0xCD, 0x10)) for byte in b"by BIOS\r\n")
    code = bytes.fromhex("31c0 8ed8 8ec0") + printed + SHUTDOWN
    for more, shown in ((b"", b""), (show(b"directly", 5), b"\ndirectly\n")):
        sector = (more + code + SPIN).ljust(510, b"\0") + b"\x55\xaa"
        assert run_to_end(Run(images.write(sector))) == (0, b"by BIOS\r\n" + shown, "")


@pytest.mark.parametrize(("end", "status"), [(HALT_FOR_EVER, 6), (SPIN, 124)], ids=["crash", "time-out"])
@pytest.mark.parametrize("choice", ["auto", "never"])
def test_report_of_a_bad_end_has_the_screen_that_was_not_shown(
    images: Images, end: bytes, status: int, choice: str
) -> None:
    guest = images.write(say(b"serial") + show(b"PANIC: no init", 2) + end)
    arguments = ("--boot", "real", guest, "--screen", choice, "--timeout")
    told, output, messages = far_enough(
        lambda scale: run_to_end(Run(*arguments, seconds(scale))), lambda result: result[1]
    )
    assert (told, output) == (status, b"serial")
    shown = messages.endswith("\nScreen:\n\n\n  PANIC: no init\n")
    assert shown == (choice == "auto") == ("Screen:" in messages)


def test_json_has_the_screen_as_data(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    status, _, _ = run_to_end(Run("screen", "--append", "21", "--json", path))
    screen = json.loads(path.read_text())["screen"]
    assert status == 43
    assert screen["columns"] == 80
    assert screen["rows"][:5] == HELLO.decode().splitlines()
    assert len(screen["rows"]) == len(screen["attributes"]) == 25
    assert screen["attributes"][2].startswith("1e" * 15 + "1f")
    assert (screen["cursor"], screen["graphics"]) == ({"row": 4, "column": 2}, False)

    run_to_end(Run("hello64", "--json", path))
    assert json.loads(path.read_text())["screen"] is None


def test_screen_that_nobody_takes_turns_success_into_14(images: Images) -> None:
    code = show(b"screen") + SHUTDOWN + IDLE
    with open("/dev/full", "wb") as full, images.run(code, stdout=full) as run:
        assert run.status() == 14
        assert "No space left on device" in error_lines(run.messages)[0]


def test_wrong_choice_is_a_usage_error() -> None:
    status, output, messages = run_to_end(Run("screen", "--screen", "sometimes"))
    assert (status, output) == (2, b"")
    assert "'sometimes' is not one of 'auto', 'end', 'live', 'live,as=blocks'" in messages


# --- --expect and --fail-on -------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [SPIN, IDLE], ids=["spins", "idles"])
def test_expected_text_on_the_screen_ends_the_run(images: Images, end: bytes) -> None:
    status, output, messages = run_to_end(images.run(show(b"login: ") + end, "--expect", "login:"))
    assert (status, output, messages) == (0, b"login:\n", "")


def test_expected_prompt_may_end_in_a_blank(images: Images) -> None:
    assert run_to_end(images.run(show(b"$ ") + SPIN, "--expect", "$ ")) == (0, b"$\n", "")


def test_blank_screen_has_no_expected_blank(images: Images) -> None:
    status, _, messages = run_to_end(images.run(SHUTDOWN + IDLE, "--expect", " "))
    assert status == 12
    assert "' '" in messages


def test_fatal_text_on_the_screen_ends_the_run(images: Images) -> None:
    status, output, messages = run_to_end(
        images.run(show(b"PANIC") + SPIN, "--fail-on", "PANIC", "--expect", "login:")
    )
    assert (status, output) == (12, b"PANIC\n")
    assert error_lines(messages) == ["kvmbox: error: the guest printed 'PANIC' (--fail-on)"]


def test_texts_may_be_on_the_screen_and_on_a_port(images: Images) -> None:
    code = show(b"one") + say(b"two")
    wanted = ("--expect", "one", "--expect", "two")
    assert run_to_end(images.run(code + SPIN, *wanted)) == (0, b"two", "")
    status, _, messages = run_to_end(images.run(code + SHUTDOWN + IDLE, *wanted, "--expect", "three"))
    assert status == 12
    assert "'three'" in messages
    assert "'one'" not in messages


@pytest.mark.parametrize("end", [HALT_FOR_EVER, debug_exit(3), SHUTDOWN], ids=["halts", "exits", "stops"])
def test_text_that_was_there_when_the_guest_ended_counts_as_seen_before(images: Images, end: bytes) -> None:
    code = show(b"done") + end + IDLE
    assert run_to_end(images.run(code, "--expect", "done")) == (0, b"done\n", "")
    status, output, _ = run_to_end(images.run(code, "--fail-on", "done"))
    assert (status, output) == (12, b"done\n")


def test_text_is_seen_before_a_reset_clears_it(images: Images) -> None:
    status, _, messages = run_to_end(images.run(show(b"once") + RESET_8042, "--expect", "once"))
    assert (status, messages) == (0, "")


def test_text_of_a_snapshot_is_not_news(images: Images, tmp_path: Path) -> None:
    path = tmp_path / "a.snap"
    code = show(b"old") + start_at(0) + out(0x5F0, 1, 2) + show(b"new", 1)
    guest = images.write(code + SHUTDOWN + IDLE)
    with Machine(guest, boot="real", timeout=PATIENCE_S, snapshot_when=[f"port:0x5f0={path}"]) as vm:
        assert vm.wait().output == b"old\nnew\n"
    status, output, messages = run_to_end(Run("--from", path, "--expect", "old"))
    assert (status, output) == (12, b"old\nnew\n")
    assert "had not printed 'old'" in messages
    assert run_to_end(Run("--from", path, "--expect", "new")) == (0, b"old\nnew\n", "")


def test_recording_of_a_run_that_was_looked_at_replays_identically(tmp_path: Path) -> None:
    path = tmp_path / "run.rec"
    status, output, _ = run_to_end(Run("screen", "--record", path, "--expect", "no such text"))
    assert (status, output) == (6, HELLO)
    command = [sys.executable, "-c", ENTRY, "replay", str(path)]
    assert subprocess.run(command, check=False, capture_output=True).returncode == 0


# --- Hostile guests and device processes ------------------------------------------------------------------


def test_no_byte_of_a_guest_is_a_control_character_on_the_terminal(images: Images, tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    code = show(bytes(range(1, 256))) + SHUTDOWN + IDLE
    status, output, _ = run_to_end(images.run(code, "--json", path))
    assert status == 0
    assert all(character.isprintable() for line in output.decode().split("\n") for character in line)
    assert output.decode().startswith("☺☻♥♦♣♠•◘○◙♂♀♪♫☼►◄↕‼¶§▬↨↑↓→←∟↔▲▼ !")
    rows = json.loads(path.read_text())["screen"]["rows"]
    assert all(row.isprintable() for row in rows)


def run_with_liar(images: Images, entry: str, *arguments: str) -> tuple[int, bytes, str]:
    code = show(b"screen") + out(CRTC, 0x0F) + SHUTDOWN
    command = (sys.executable, OTHER_SPAWNER, "vga", entry, "1000")
    return run_to_end(images.run(code + IDLE, *arguments, command=command))


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("shows_garbage", "device process 'vga' broke the protocol"),
        ("mute_about_state", "device process 'vga' is hung"),
    ],
)
def test_registers_that_are_none_are_not_used(images: Images, entry: str, words: str) -> None:
    status, output, messages = run_with_liar(images, entry)
    assert (status, output) == (0, b"screen\n")
    (line,) = messages.splitlines()
    assert line.startswith(f"kvmbox: the screen is that of a VGA at power-on: {words}")
    assert line.isprintable()


@pytest.mark.parametrize("entry", ["shows_garbage", "mute_about_state"])
def test_process_that_lies_while_it_is_looked_at_gives_8(images: Images, entry: str) -> None:
    code = show(b"screen") + out(CRTC, 0x0F) + IDLE
    command = (sys.executable, OTHER_SPAWNER, "vga", entry, "1000")
    status, output, messages = run_to_end(images.run(code, "--expect", "never", command=command))
    assert (status, output) == (8, b"screen\n")
    (line,) = messages.splitlines()
    assert line.startswith("kvmbox: error: device process 'vga' ")
    assert line.isprintable()


def test_registers_beyond_reason_show_a_bounded_screen(images: Images) -> None:
    path = images.directory / "result.json"
    status, output, messages = run_with_liar(images, "shows_all_ones", "--json", str(path))
    assert status == 0
    assert len(output) <= 4 * MOST_COLUMNS * MOST_ROWS
    assert messages.count("\n") == 1  # graphics
    screen: dict[str, Any] = json.loads(path.read_text())["screen"]
    assert screen["columns"] <= MOST_COLUMNS
    assert 1 <= len(screen["rows"]) <= MOST_ROWS


# --- In programs ------------------------------------------------------------------------------------------


def test_program_looks_at_the_screen_of_a_guest_that_runs(images: Images) -> None:
    # The guest shows what it is sent: wait for a byte, put it at the place of the first character.
    show_input = SCREEN_SEGMENT + wait_input() + bytes.fromhex("26a20000")  # mov es:[0],al
    guest = images.write(show_input + b"\xe9" + (-len(show_input) - 3).to_bytes(2, "little", signed=True))
    with Machine(guest, boot="real", timeout=PATIENCE_S) as vm:
        assert vm.screen.is_blank
        for text in ("a", "b"):
            vm.send(text)
            assert vm.expect_screen(f"^{text}").group() == text
            assert vm.screen.rows[0] == text
        with pytest.raises(ExpectError, match=r"'never' was not seen on the screen within 0 s; it shows 'b'"):
            vm.expect_screen("never", timeout=0)
    assert vm.screen.text == "b"
    assert vm.output == b"b\n"  # where nothing else was printed


def test_program_that_looks_when_the_guest_has_ended_gets_what_it_has_left(images: Images) -> None:
    vm = Machine(images.write(show(b"last words") + out(CRTC, 0x0F) + TRIPLE_FAULT), boot="real")
    with pytest.raises(UsageError, match="the machine was not started"):
        _ = vm.screen
    with vm:
        vm.expect_screen("last words", timeout=PATIENCE_S)
        result = vm.wait(PATIENCE_S)
        assert result.screen == vm.screen
        with pytest.raises(ExpectError, match="before the guest ended; it shows 'last words'"):
            vm.expect_screen("no such words")


CURSOR: Final = 80 + 5
HALT: Final = b"\xf4"
WAITS: Final = move_cursor(CURSOR) + show(b"$") + HALT + wait_input() + SHUTDOWN


@pytest.mark.parametrize("design", [{}, {"sandbox": "none"}], ids=str)
def test_look_at_the_screen_sees_coalesced_moves_of_the_cursor(
    images: Images, design: dict[str, Any]
) -> None:
    with Machine(images.write(WAITS), boot="real", timeout=PATIENCE_S, **design) as vm:
        vm.expect_screen(r"\$")
        assert vm.screen.cursor == Cursor(*divmod(CURSOR, 80))
        vm.stop()


def test_read_back_of_the_cursor_sees_its_coalesced_moves(images: Images) -> None:
    index, data = layout.VGA_CRTC_PORTS
    send_data = b"\xba" + data.to_bytes(2, "little") + bytes.fromhex("ec baf803 ee")  # in al,dx; out COM1,al
    moves = b"".join(move_cursor(place) for place in range(100))
    guest = images.write(moves + send_data + out(index, 0x0E) + send_data + move_cursor(0x123) + SHUTDOWN)
    with Machine(guest, boot="real", timeout=PATIENCE_S, on_device_crash="restart") as vm:
        result = vm.wait(PATIENCE_S)
    assert result.output == bytes([99, 0])
    assert result.statistics.exits < 40
    assert result.statistics.device_accesses["VGA"] == {"reads": 2, "writes": 4 * 101 + 1}


def test_snapshot_and_recording_have_the_coalesced_moves_of_the_cursor(
    images: Images, tmp_path: Path
) -> None:
    path, record = tmp_path / "a.snap", tmp_path / "a.rec"
    with Machine(images.write(WAITS), boot="real", timeout=PATIENCE_S) as vm:
        vm.expect_screen(r"\$")
        vm.snapshot(path)
        vm.stop()
    with Machine.from_snapshot(path, timeout=PATIENCE_S) as vm:
        assert vm.screen.cursor == Cursor(*divmod(CURSOR, 80))
        vm.stop()
    with images.run(move_cursor(CURSOR) + SHUTDOWN, "--record", str(record)) as run:
        assert run.status() == 0
    for option, wanted in (("--dump", "VGA (vga): write 2 times 2 bytes"), ("--sandbox=none", "identical")):
        replay = [*KVMBOX, "replay", option, str(record)]
        assert wanted in subprocess.run(replay, stdout=subprocess.PIPE, text=True, check=True).stdout


def test_screen_of_colours_without_text_is_not_blank(images: Images, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    field = show(b" ").replace(b"\xc7\x05 \x07", b"\xc7\x05 \x10")  # blue
    with images.run(field + SHUTDOWN, "--json", str(path)) as run:
        assert run.status() == 0
        assert (run.output, run.messages.count("the screen has colours and no text")) == (b"", 1)
    screen: dict[str, Any] = json.loads(path.read_text())["screen"]
    assert (screen["rows"][0], screen["attributes"][0][:4]) == ("", "1000")
    with images.run(say(b"x") + field + SHUTDOWN) as run:
        assert run.status() == 0
        assert (run.output, run.messages) == (b"x", "")


def test_screen_of_a_guest_that_shows_nothing_is_blank(images: Images) -> None:
    with Machine(images.write(IDLE), boot="real", screen="never", timeout=PATIENCE_S) as vm:
        assert vm.screen.text == ""
        vm.stop()
        assert vm.screen.is_blank
    assert vm.result is not None
    assert vm.result.screen is None
