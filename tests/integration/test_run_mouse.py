"""The mouse of a run: what a program and a dialogue do with it, and whatever may happen to it."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any, Final

import pytest

from kvmbox import Machine, UsageError
from kvmbox.host.console.mouse_events import acted, sequences
from tests.support.family import device_processes
from tests.support.patience import patience
from tests.support.selection import first_per_commit

pytestmark = pytest.mark.kvm

PATIENCE_S: Final = patience(30.0)
HELLO: Final = b"mouse: move it; the middle button leaves\n"

DESIGNS: Final[tuple[dict[str, Any], ...]] = (
    {},
    {"sandbox": "none"},
    {"sandbox": "thread"},
    {"sandbox": "per-device"},
    {"seccomp": "strict"},
    {"ipc": "pipe"},
    {"ipc": "socketpair"},
    {"cpus": 2},
)


@pytest.mark.parametrize("design", first_per_commit(DESIGNS), ids=str)
def test_driver_follows_the_pointer_in_every_design(design: dict[str, Any]) -> None:
    with Machine("mouse", timeout=PATIENCE_S, **design) as vm:
        vm.mouse.move(300, -2)  # before the driver is there
        vm.expect("at 255 -2 wheel 0 -----\nat 300 -2 wheel 0 -----\n", PATIENCE_S)
        vm.mouse.click()
        vm.mouse.wheel(-2)
        vm.mouse.press("forward")
        vm.mouse.move(-310, 30)
        vm.mouse.click("middle")
        result = vm.wait(PATIENCE_S)
    assert result.status == 0
    assert result.output.splitlines()[3:] == [
        b"at 300 -2 wheel 0 l----",
        b"at 300 -2 wheel 0 -----",
        b"at 300 -2 wheel 2 -----",
        b"at 300 -2 wheel 2 ----f",
        b"at 45 28 wheel 2 ----f",
        b"at -10 28 wheel 2 ----f",
        b"at -10 28 wheel 2 --m-f",
        b"mouse: bye",
    ]
    assert result.statistics.bytes_in["keyboard"] == 7 * 10


def test_mouse_that_nobody_moves_has_no_process() -> None:
    with Machine("hello32", timeout=PATIENCE_S) as vm:
        assert vm.mouse is not None
        assert vm.wait(PATIENCE_S).statistics.on_demand["i8042"] is None


def test_program_that_does_what_no_mouse_does_is_told_at_once() -> None:
    vm = Machine("mouse")
    with pytest.raises(UsageError, match="no button 'fire'"):
        vm.mouse.press("fire")
    with pytest.raises(UsageError, match="'jump' is nothing that a mouse does"):
        vm.mouse.act("jump")
    with pytest.raises(UsageError, match="32767 counts at most"):
        vm.mouse.move(0, 40_000)


def test_keys_and_the_mouse_share_the_console_of_the_keyboard() -> None:
    with Machine("mouse", timeout=PATIENCE_S, keyboard="console") as vm:
        vm.send(sequences(acted("move 1 1")))
        vm.expect("at 1 1 ", PATIENCE_S)
        vm.mouse.act("move 1 1, click middle")
        assert vm.wait(PATIENCE_S).output.endswith(b"at 2 2 wheel 0 --m--\nmouse: bye\n")


def test_snapshot_has_the_mouse_and_its_held_button(tmp_path: Path) -> None:
    path = tmp_path / "mouse.snap"
    with Machine("mouse", timeout=PATIENCE_S) as vm:
        vm.mouse.act("move 7 0, press left")
        vm.expect("at 7 0 wheel 0 l----", PATIENCE_S)
        vm.snapshot(path)
    with Machine.from_snapshot(path, timeout=PATIENCE_S) as vm:
        vm.mouse.act("move 1 0, press middle")
        result = vm.wait(PATIENCE_S)
    assert result.output.endswith(b"at 8 0 wheel 0 l----\nat 8 0 wheel 0 l-m--\nmouse: bye\n")


def test_restart_of_the_process_loses_no_movement() -> None:
    with Machine("mouse", timeout=PATIENCE_S, on_device_crash="restart") as vm:
        vm.mouse.move(1, 0)
        vm.expect("at 1 0 ", PATIENCE_S)
        (victim,) = [pid for pid, name in device_processes(os.getpid()).items() if name == "i8042"]
        for _ in range(20):
            vm.mouse.move(1, 1)
        os.kill(victim, signal.SIGKILL)
        vm.mouse.click("middle")
        result = vm.wait(PATIENCE_S)
    assert result.output.endswith(b"at 21 20 wheel 0 -----\nat 21 20 wheel 0 --m--\nmouse: bye\n")
    assert any("'i8042'" in line and "restarted" in line for line in vm.messages)
