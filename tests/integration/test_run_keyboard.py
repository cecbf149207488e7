"""The keyboard of a run: keys from the console and from a program, and whatever may happen to them."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest

from kvmbox import Capture, Machine, UsageError
from tests.support.family import device_processes
from tests.support.patience import patience
from tests.support.real_mode import RESET_8042, SHUTDOWN, debug_exit, say, wait_input
from tests.support.runs import Images, Run, error_lines, run_to_end
from tests.support.selection import first_per_commit

pytestmark = pytest.mark.kvm

PATIENCE_S: Final = patience(30.0)
HELLO: Final = b"keyboard: type something; Ctrl-D leaves\n"
BYE: Final = b"\nkeyboard: bye\n"

WAIT_KEY: Final = bytes.fromhex("e464 a801 74fa")  # wait: in al,0x64; test al,1; jz wait
SEND_KEY: Final = WAIT_KEY + bytes.fromhex("e460 baf803 ee")  # in al,0x60; mov dx,COM1; out dx,al
A: Final = b"\x1e\x9e"
"""What the key A gives in scan code set 1."""

FULL: Final = WAIT_KEY + say(b"full\n")
"""Says that a byte of the keyboard is there, and leaves it."""

HOLD: Final = FULL + wait_input() + SEND_KEY * 2 + debug_exit(1)
"""The same, and reads two bytes when something comes over COM1."""

DESIGNS: Final[tuple[dict[str, Any], ...]] = (
    {},
    {"sandbox": "none"},
    {"sandbox": "thread"},
    {"sandbox": "per-device"},
    {"seccomp": "strict"},
    {"ipc": "pipe"},
    {"ipc": "socketpair"},
)


def real(images: Images, *code: bytes, **options: Any) -> Machine:
    return Machine(images.write(*code), boot="real", timeout=PATIENCE_S, **options)


@pytest.mark.parametrize("design", first_per_commit(DESIGNS), ids=str)
def test_keys_of_a_program_reach_the_driver_in_every_design(design: dict[str, Any]) -> None:
    with Machine("keyboard", timeout=PATIENCE_S, **design) as vm:
        vm.type("Early ")
        vm.expect("leaves\nEarly ", PATIENCE_S)
        for word in ("one", "Two!\n", "x" * 20):
            vm.type(word)
            vm.expect(word, PATIENCE_S)
        vm.press("shift-f1")
        vm.expect("<3b>", PATIENCE_S)
        vm.press("left")
        vm.press("ctrl-d")
        result = vm.wait(PATIENCE_S)
    assert result.status == 0
    assert result.output == HELLO + b"Early oneTwo!\n" + b"x" * 20 + b"<3b><4b>" + BYE


def test_keys_wait_for_a_machine_that_has_not_started() -> None:
    vm = Machine("keyboard", timeout=PATIENCE_S)
    vm.type("before\x04")
    with vm:
        assert vm.wait(PATIENCE_S).output == HELLO + b"before" + BYE


def test_program_that_cannot_be_typed_is_told_at_once() -> None:
    vm = Machine("keyboard")
    with pytest.raises(UsageError, match="no key for"):
        vm.type("é")
    with pytest.raises(UsageError, match="no key 'f13'"):
        vm.press("f13")
    with pytest.raises(UsageError, match="--keyboard 'usb' is none of none, console"):
        Machine("keyboard", keyboard="usb")  # type: ignore[arg-type]


def test_what_is_sent_to_the_console_goes_to_the_keyboard_alone_if_it_is_the_consoles() -> None:
    with Machine("keyboard", timeout=PATIENCE_S, keyboard="console") as vm:
        vm.send("over the console\n")
        vm.expect("console\n", PATIENCE_S)
        vm.type("typed\x04")
        result = vm.wait(PATIENCE_S)
    assert result.output == HELLO + b"over the console\ntyped" + BYE
    assert list(result.statistics.bytes_in) == ["keyboard"]


def test_without_a_key_the_keyboard_has_no_process() -> None:
    with Machine("hello32", timeout=PATIENCE_S, keyboard="console") as vm:
        statistics = vm.wait(PATIENCE_S).statistics
    assert statistics.on_demand["i8042"] is None
    assert statistics.bytes_in == {}


def test_stdin_goes_to_the_keyboard_and_not_to_com1(images: Images) -> None:
    # The guest reads a key, and then shows the line status of COM1: nothing has been received.
    show_status = bytes.fromhex("bafd03 ec 2401 baf803 ee")  # in al,LSR; and al,1; out RBR,al
    with images.run(
        SEND_KEY * 2 + show_status + SHUTDOWN, "--keyboard", "console", stdin=subprocess.PIPE
    ) as run:
        run.send(b"ab")
        assert run.status() == 0
        assert run.output == A + b"\0"


def test_typed_character_without_a_key_is_dropped_and_said_once(images: Images) -> None:
    with images.run(SEND_KEY * 2 + SHUTDOWN, "--keyboard", "console", stdin=subprocess.PIPE) as run:
        run.send("éüa".encode())
        assert run.status() == 0
        assert run.output == A
        assert run.messages.count("the keyboard has no key for some of what is typed") == 1


def test_keys_of_a_guest_that_never_reads_wait_in_the_hosts_pipe(images: Images) -> None:
    source, typed = os.pipe()
    os.write(typed, b"a" * 60_000)
    os.close(typed)
    with images.run(FULL + b"\xeb\xfe", "--keyboard", "console", stdin=source) as run:
        run.stdout.until(b"full\n")
        run.signal(signal.SIGTERM)
        assert run.status() == 130
    left = 0
    while piece := os.read(source, 1 << 16):
        left += len(piece)
    assert left >= 60_000 - 3 * 4096
    os.close(source)


def test_other_value_of_the_option_is_a_usage_error() -> None:
    status, _, messages = run_to_end(Run("--keyboard", "usb", "hello32"))
    assert status == 2
    assert len(error_lines(messages)) == 1


def test_key_before_the_guest_initializes_its_8259_is_not_lost(images: Images) -> None:
    # Wait for a byte; ICW1 to ICW4, base 0x20; mask 0xfd; vector 0x21; sti, hlt. The handler sends the byte
    # to COM1, and writes to debug-exit at the release of Escape. It reads nothing without an interrupt.
    code = bytes.fromhex(
        "31c08ed88ed0bc0070e464a80174fab011e620b020e621b004e621b001e6"
        "21b0fde621b8327ca384008cc8a38600fbf4ebfce460baf803ee3c817506"
        "baf400b001eeb020e620cf"
    )
    with real(images, code) as vm:
        vm.type("a\x1b")
        result = vm.wait(PATIENCE_S)
    assert (result.status, result.output) == (3, A + b"\x01\x81")


def test_handler_sees_each_key_held_and_some_time_before_the_next_one(images: Images) -> None:
    # Many drivers clear at a release what a press has set, for a loop that looks now and then.
    # ICW1 to ICW4, base 0x20; mask 0xfd; vector 0x21; sti, hlt. The handler reads the PM timer, then the
    # byte, and says "+" at a release 60 ms or more after the press, and at a press 20 ms or more after the
    # release; "-" where it is less. In this order a busy host can only make the times longer: they count from
    # the read of the byte before. The first press says nothing. The release of Escape writes to debug-exit.
    code = bytes.fromhex(
        "31c08ed88ed0bc0070b011e620b020e621b004e621b001e621b0fde621c7"
        "068400347c8c0e860066c706000600000000fbf4ebfd6660ba080666ed66"
        "89c6e46088c16689f0668b1e000666a300066629d86625ffffff006685db"
        "741e66bbf3460300f6c180750666bba51701006639d8b02d7202b02bbaf8"
        "03eeb020e62080f9817504baf400ee6661cf"
    )
    with real(images, code) as vm:
        vm.type("all\x1b")
        result = vm.wait(PATIENCE_S)
    assert (result.status, result.output) == (0x41, b"+++++++")


def test_bios_reads_keys_of_the_keyboard(images: Images) -> None:
    # int 0x16 AH=0, until q; int 0x10 AH=0x0e
    code = bytes.fromhex("b400 cd16 3c71 7406 b40e cd10 ebf2") + SHUTDOWN
    sector = images.write(code.ljust(510, b"\0") + b"\x55\xaa")
    with Machine(sector, timeout=PATIENCE_S) as vm:
        vm.type("Hi there!q")
        result = vm.wait(PATIENCE_S)
    assert (result.status, result.output) == (0, b"Hi there!")


def test_reset_forgets_the_keys_that_the_keyboard_has(images: Images) -> None:
    # An "r" over COM1 resets the machine; anything else lets it read.
    choose = wait_input() + bytes.fromhex("3c72 75") + bytes([len(RESET_8042)]) + RESET_8042
    with real(images, say(b"boot\n"), FULL, choose, SEND_KEY * 2, debug_exit(1)) as vm:
        vm.type("b")
        vm.expect("boot\nfull\n", PATIENCE_S)
        vm.send("r")
        vm.expect("boot\n", PATIENCE_S)
        vm.type("a")
        vm.expect("full\n", PATIENCE_S)
        vm.send("x")
        result = vm.wait(PATIENCE_S)
    assert result.output == b"boot\nfull\nboot\nfull\n" + A


def test_snapshot_has_the_keys_that_the_keyboard_has(images: Images, tmp_path: Path) -> None:
    path = tmp_path / "typed.snap"
    with real(images, HOLD, snapshot_when=[f"full={path}"], snapshot_stop=True) as vm:
        vm.type("a")
        assert vm.wait(PATIENCE_S).status == 0
    for _ in range(2):
        com1 = Capture()
        with Machine.from_snapshot(path, timeout=PATIENCE_S, serial={"COM1": com1}) as vm:
            com1.send("x")
            assert vm.wait(PATIENCE_S).status == 3
        assert com1.output == b"\n" + A


def test_restart_of_the_process_keeps_the_keys(images: Images) -> None:
    with real(images, HOLD, on_device_crash="restart") as vm:
        vm.type("a")
        vm.expect("full\n", PATIENCE_S)
        (victim,) = [pid for pid, name in device_processes(os.getpid()).items() if name == "i8042"]
        os.kill(victim, signal.SIGKILL)
        vm.send("x")
        result = vm.wait(PATIENCE_S)
    assert (result.status, result.output) == (3, b"full\n" + A)
    assert any("'i8042'" in line and "restarted" in line for line in vm.messages)
