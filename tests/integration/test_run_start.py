"""A run that cannot start: status 4, one line that says why, nothing on stdout."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

import kvmbox
from kvmbox.boot import bundled
from tests.support.patience import LATE, far_enough, seconds
from tests.support.real_mode import SHUTDOWN, say
from tests.support.runs import KVMBOX, Images, Run, error_lines, run_to_end

pytestmark = pytest.mark.kvm

PROGRAM = str(Path(__file__).parent / "run_payload" / "other_spawner.py")
HELLO = say(b"Hello") + SHUTDOWN


def assert_refused(run: Run, *words: str) -> None:
    status, output, messages = run_to_end(run)
    assert (status, output) == (4, b"")
    (line,) = error_lines(messages)
    for word in words:
        assert word in line
    assert "Traceback" not in messages


@pytest.mark.parametrize("mebibytes", [100, 156, 160, 164, 172, 299])
@pytest.mark.parametrize("arguments", [(), ("--record", "recording"), ("--sandbox", "thread")])
def test_limit_of_address_space_is_an_error_of_one_line_or_none(
    images: Images, tmp_path: Path, mebibytes: int, arguments: tuple[str, ...]
) -> None:
    limit = resource.RLIMIT_AS, (mebibytes << 20, mebibytes << 20)
    status, output, messages = run_to_end(
        images.run(HELLO, *arguments, cwd=tmp_path, preexec_fn=lambda: resource.setrlimit(*limit))
    )
    if status == 0:
        assert output == b"Hello"
        return
    assert status in (4, 14)
    (line,) = error_lines(messages)
    assert "internal error" not in messages
    assert "Traceback" not in messages
    assert "memory" in line or "thread" in line
    assert "--memory" in messages


def test_limit_of_file_size_damages_no_bytecode(tmp_path: Path) -> None:
    """Python itself keeps a file of bytecode that is cut short, and fails on it from then on."""
    ignored = shutil.ignore_patterns("__pycache__", "bytecode.*.bin")
    shutil.copytree(Path(kvmbox.__file__).parent, tmp_path / "kvmbox", ignore=ignored)
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for soft in (8 << 10, hard):
        limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (soft, hard))
        done = subprocess.run(
            [sys.executable, "-m", "kvmbox", "run", "hello32"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": ""},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            preexec_fn=limit,
        )
        assert (done.returncode, done.stderr) == (0, b"")


# --- The image --------------------------------------------------------------------------------------------


def test_missing_file_gives_4(tmp_path: Path) -> None:
    assert_refused(Run(tmp_path / "none.elf"), "none.elf", "no such file")


def test_unknown_name_gives_4() -> None:
    assert_refused(Run("no-such-guest"), "no-such-guest")


def test_directory_gives_4(tmp_path: Path) -> None:
    assert_refused(Run(tmp_path), "a directory")


def test_device_gives_4() -> None:
    assert_refused(Run("/dev/zero"), "a character device")


def test_empty_file_gives_4(images: Images) -> None:
    assert_refused(Run(images.write()), "empty")
    assert_refused(images.run(b""), "empty")


def test_flat_image_without_real_mode_gives_4_and_the_hint(images: Images) -> None:
    status, _, messages = run_to_end(Run(images.write(HELLO)))
    assert status == 4
    assert "--boot real" in messages


def test_flat_image_too_large_gives_4(images: Images) -> None:
    assert_refused(images.run(HELLO + bytes(640 << 10)), "reach beyond 0xa0000")


def test_missing_module_gives_4(tmp_path: Path) -> None:
    assert_refused(Run("--module", tmp_path / "none.mod", "hello32"), "none.mod", "no such file")


def bundled_image(name: str) -> bytes:
    path = bundled.find(name)
    if path is None:
        pytest.skip("the guests are not built: make guests")
    return Path(path).read_bytes()


@pytest.mark.parametrize(
    ("guest", "size"),
    [("hello64", size) for size in (1, 3, 4, 16, 63, 64, 119, 120, 4095, 4096, -700, -64, -1)]
    + [(guest, size) for guest in ("hello32", "elf32") for size in (51, 52, 84, -1)],
)
def test_cut_image_gives_4(images: Images, guest: str, size: int) -> None:
    whole = bundled_image(guest)
    assert len(whole) > 4096
    assert_refused(Run(images.write(whole[:size])), "cannot boot", "cut short" if size >= 4 else "")


@pytest.mark.parametrize("guest", ["hello32", "elf32", "hello64"])
def test_whole_image_boots_under_any_name(images: Images, guest: str) -> None:
    # The control of the test above.
    status, output, _ = run_to_end(Run(images.write(bundled_image(guest))))
    assert status == 0
    assert output.startswith(b"Hello")


# --- The host ---------------------------------------------------------------------------------------------


def in_mount_namespace(setup: str) -> tuple[str, ...]:
    """A command that runs kvmbox where `setup` has changed the mounts."""
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("no unshare on this host")
    command = (unshare, "--mount", "--propagation", "private", "sh", "-ec", f'{setup}; exec "$@"', "sh")
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this host allows no mount namespace")
    return (*command, *KVMBOX)


@pytest.mark.root
@pytest.mark.parametrize(
    ("setup", "words"),
    [
        (
            "mount -t tmpfs none /dev && mknod /dev/null c 1 3 && mknod /dev/urandom c 1 9",
            "cannot open /dev/kvm: No such file or directory",
        ),
        ("mount --bind /dev/null /dev/kvm", "/dev/kvm is not a KVM device"),
    ],
    ids=["missing", "another device"],
)
def test_no_kvm_gives_4_and_a_hint(images: Images, setup: str, words: str) -> None:
    run = images.run(HELLO, command=in_mount_namespace(setup))
    with run:
        assert run.status() == 4
        assert run.output == b""
        (line,) = error_lines(run.messages)
        assert words in line
        assert "hint: " in run.messages


# --- What the run would write to --------------------------------------------------------------------------


def test_serial_file_that_cannot_be_had_gives_4(images: Images, tmp_path: Path) -> None:
    target = tmp_path / "none" / "out.txt"
    assert_refused(images.run(HELLO, "--serial", f"COM2=file:{target}"), "out.txt", "No such file")


# --- A start that hangs -----------------------------------------------------------------------------------

HANGS = pytest.mark.parametrize(
    ("types", "entry"),
    [("uart", "still_heard_uart"), ("spawner", "-")],
    ids=["while a process is jailed", "before"],
)
"""Without an end from outside, 4 after five seconds."""


def hung_start(images: Images, types: str, entry: str, *arguments: str | Path) -> Run:
    return images.run(HELLO, *arguments, command=(sys.executable, PROGRAM, types, entry, "1000"))


@HANGS
@pytest.mark.parametrize("choice", ["fail", "restart", "all-ones"])
def test_timeout_ends_a_start_that_hangs_with_124(
    images: Images, tmp_path: Path, types: str, entry: str, choice: str
) -> None:
    report, reached = tmp_path / "report.json", "hint: so far: virtual machine built"

    def ended(scale: int) -> tuple[str, int, bytes, str]:
        limit = seconds(scale)
        arguments = ("--timeout", limit, "--json", report, "--on-device-crash", choice)
        return limit, *run_to_end(hung_start(images, types, entry, *arguments))

    limit, status, output, messages = far_enough(ended, lambda end: reached in end[3])
    assert (status, output) == (124, b"")
    assert error_lines(messages) == [f"kvmbox: error: --timeout {limit} s {LATE}"]
    assert reached in messages
    assert json.loads(report.read_bytes())["status"] == 124


@HANGS
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_signal_ends_a_start_that_hangs_with_130(
    images: Images, types: str, entry: str, number: signal.Signals
) -> None:
    with hung_start(images, types, entry, "--serial", "COM2=pty") as run:
        run.stderr.until(b"COM2 is /dev/pts/")  # next is the wait
        run.signal(number)
        assert run.status() == 130
        assert error_lines(run.messages) == []


def test_layer_that_is_missing_is_no_loss_to_be_replaced(images: Images) -> None:
    command = (sys.executable, PROGRAM, "-", "-", "0")
    arguments = ("--require", "landlock", "--on-device-crash", "restart")
    assert_refused(images.run(HELLO, *arguments, command=command), "landlock")
