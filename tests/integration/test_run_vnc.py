"""--vnc with a client: what it is shown, and what its keys and its pointer do."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Final

import pytest

from kvmbox import Machine
from tests.support.family import device_processes
from tests.support.patience import patience
from tests.support.real_mode import IDLE, say, show, wait_input
from tests.support.rfb_client import RfbClient
from tests.support.runs import Images, Run, error_lines

pytestmark = pytest.mark.kvm

PATIENCE_S: Final = patience(30.0)
ENTER: Final = 0xFF0D
CTRL: Final = 0xFFE3
SHIFT: Final = 0xFFE1


def at(path: Path) -> str:
    return f"unix:{path}"


def test_client_types_and_its_keys_are_held_as_it_holds_them(tmp_path: Path) -> None:
    path = tmp_path / "vnc"
    with Machine("keyboard", timeout=PATIENCE_S, vnc=at(path)) as vm:
        vm.expect("leaves\n", PATIENCE_S)
        assert path.stat().st_mode & 0o777 == 0o600
        with RfbClient(path) as client:
            assert (client.greeting, client.name) == (b"RFB 003.008\n", b"kvmbox")
            for keysym in (ord("h"), ord("i"), ENTER):
                client.key(keysym, down=True)
                client.key(keysym, down=False)
            vm.expect("hi\n", PATIENCE_S)
            client.key(CTRL, down=True)
            client.key(ord("d"), down=True)
            assert vm.wait(PATIENCE_S).status == 0
    assert not path.exists()


def test_keys_of_a_client_that_leaves_are_released(tmp_path: Path) -> None:
    path = tmp_path / "vnc"
    with Machine("keyboard", timeout=PATIENCE_S, vnc=at(path)) as vm:
        vm.expect("leaves\n", PATIENCE_S)
        with RfbClient(path) as client:
            client.key(SHIFT, down=True)
            client.key(ord("A"), down=True)
            vm.expect("A", PATIENCE_S)
        with RfbClient(path) as client:  # the first one has gone by then
            client.key(ord("b"), down=True)
            vm.expect("b", PATIENCE_S)


def test_client_points_and_the_mouse_follows(tmp_path: Path) -> None:
    path = tmp_path / "vnc"
    with Machine("mouse", timeout=PATIENCE_S, vnc=at(path)) as vm:
        vm.expect("leaves\n", PATIENCE_S)
        with RfbClient(path) as client:
            client.point(0, 100, 100)  # the first one says where it is
            client.point(0, 400, 90)
            vm.expect("at 300 -10 wheel 0 -----", PATIENCE_S)
            client.point(1, 401, 90)
            vm.expect("at 301 -10 wheel 0 l----", PATIENCE_S)
            client.point(0x10, 401, 90)
            vm.expect("at 301 -10 wheel 1 -----", PATIENCE_S)
            client.point(2, 401, 90)
            assert vm.wait(PATIENCE_S).status == 0


def test_client_sees_text_and_then_what_has_changed(images: Images, tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    path = tmp_path / "vnc"
    code = show(b"first") + say(b"1\n") + wait_input() + show(b"second", 20) + say(b"2\n") + IDLE
    with Machine(images.write(code), boot="real", timeout=PATIENCE_S, vnc=at(path)) as vm:
        vm.expect("1\n", PATIENCE_S)
        with RfbClient(path) as client:
            whole = client.update()
            assert whole == client.width * client.height
            height = client.height // 25
            assert any(any(row) for row in client.rows[:height])
            assert not any(any(row) for row in client.rows[20 * height : 21 * height])
            vm.send(b"x")
            vm.expect("2\n", PATIENCE_S)
            assert 0 < client.update(incremental=True) <= 4 * client.width * height
            assert any(any(row) for row in client.rows[20 * height : 21 * height])


def test_next_client_may_come_when_one_has_left_or_speaks_nonsense(images: Images, tmp_path: Path) -> None:
    path = tmp_path / "vnc"
    with Machine(images.write(say(b"up\n"), IDLE), boot="real", timeout=PATIENCE_S, vnc=at(path)) as vm:
        vm.expect("up\n", PATIENCE_S)
        for nonsense in (b"\xff", b"\0" * 20, b"\x02\0\xff\xff" + bytes(8000)):
            with RfbClient(path) as client:
                client.send(nonsense)
                assert client.is_turned_away
        with RfbClient(path, resizes=False) as client:
            client.send(
                b"\x06\0\0\0" + (1 << 20).to_bytes(4, "big") + bytes(1 << 20)
            )  # a text, which is skipped
            assert client.update() == client.width * client.height
    assert sum("breaks the protocol" in line for line in vm.messages) == 3


def test_restart_of_the_process_keeps_the_client(images: Images, tmp_path: Path) -> None:
    path = tmp_path / "vnc"
    options = {"timeout": PATIENCE_S, "vnc": at(path), "on_device_crash": "restart"}
    with Machine(images.write(say(b"up\n"), IDLE), boot="real", **options) as vm:  # type: ignore[arg-type]
        vm.expect("up\n", PATIENCE_S)
        with RfbClient(path) as client:
            client.update()
            (victim,) = [pid for pid, name in device_processes(os.getpid()).items() if name == "vnc"]
            os.kill(victim, signal.SIGKILL)
            assert client.update() == client.width * client.height


@pytest.mark.parametrize("place", ["0.0.0.0:5900", "192.0.2.1:5900", "-", ":5900,nowait", "nowhere"])
def test_other_hosts_are_refused(place: str) -> None:
    with Run("--vnc", place, "hello32") as run:
        assert run.status() == 2
        assert len(error_lines(run.messages)) == 1


@pytest.mark.thorough
def test_vncdotool_types(tmp_path: Path) -> None:
    """A client that others wrote: pip install vncdotool."""
    program = shutil.which("vncdo")
    if program is None:
        pytest.skip("no vncdo: pip install vncdotool")
    path = tmp_path / "vnc"
    with Machine("keyboard", timeout=PATIENCE_S, vnc=at(path)) as vm:
        vm.expect("leaves\n", PATIENCE_S)
        subprocess.run([program, "-s", str(path), "type", "hello", "key", "ctrl-d"], check=True)
        assert vm.wait(PATIENCE_S).output.endswith(b"hello\nkeyboard: bye\n")
