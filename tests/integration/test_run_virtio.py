"""Virtio devices in runs of every design: the guest `virtio`, lost processes, recordings, snapshots, options.

What the guest proves is in guests/virtio.c.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.family import device_processes
from tests.support.selection import first_per_commit
from tests.support.waiting import PATIENCE_S

pytestmark = pytest.mark.kvm

KVMBOX = (sys.executable, "-m", "kvmbox")
SECTORS = 32
CONTENT = bytes((place * 7 + place // 256) & 0xFF for place in range(SECTORS * 512))
TOLD = b"""\
ok block: polled, serial a disk
ok block: a sector by interrupt
ok block: written, flushed and read back
ok block: 16 requests by one notification, three ways
ok block: a queue that is none, and a reset
"""
AFTER = (
    CONTENT[: 15 * 512] + bytes(byte ^ 0xFF for byte in CONTENT[15 * 512 : 16 * 512]) + CONTENT[16 * 512 :]
)
DESIGNS = [
    *(("--ipc", ipc) for ipc in ("shm", "pipe", "socketpair")),
    *(("--sandbox", sandbox) for sandbox in ("none", "thread", "per-device")),
    ("--seccomp", "strict"),
]


def disk(directory: Path) -> Path:
    path = directory / "disk.img"
    path.write_bytes(CONTENT)
    return path


def kvmbox(*arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*KVMBOX, *map(str, arguments)], capture_output=True, timeout=PATIENCE_S, check=False
    )


@pytest.mark.parametrize("design", first_per_commit(DESIGNS))
def test_disk_is_what_the_guest_has_made_of_it(tmp_path: Path, design: tuple[str, str]) -> None:
    path = disk(tmp_path)

    run = kvmbox("run", *design, "--disk", f"{path},write,on=virtio,serial=a disk", "virtio")
    assert (run.returncode, run.stdout) == (0, TOLD + b"virtio: 1 devices\n"), run.stderr
    assert path.read_bytes() == AFTER


def test_console_and_entropy_are_behind_the_disk(tmp_path: Path) -> None:
    console = tmp_path / "console.txt"

    run = kvmbox(
        *("run", "--rng", "--virtio-console", f"file:{console}"),
        *("--disk", f"{disk(tmp_path)},on=virtio,serial=a disk", "virtio"),
    )
    assert run.returncode == 0
    assert run.stdout.endswith(b"ok console: 4000 bytes\nvirtio: 3 devices\n")
    assert console.read_bytes() == b"a line of the virtio console, 40 bytes.\n" * 100


def test_lost_process_is_replaced_and_the_guest_cannot_tell(tmp_path: Path) -> None:
    path = disk(tmp_path)
    command = (
        *KVMBOX,
        "run",
        "--on-device-crash",
        "restart",
        "--disk",
        f"{path},write,on=virtio,serial=a disk",
    )
    pipe = subprocess.PIPE
    # Unbuffered: what `readline` takes is then a line, and `communicate` gets the rest.
    with subprocess.Popen((*command, "virtio"), bufsize=0, stdout=pipe, stderr=pipe) as run:
        assert run.stdout is not None
        first = run.stdout.readline()
        (process,) = [pid for pid, name in device_processes(run.pid).items() if name == "vblk"]
        os.kill(process, signal.SIGKILL)
        output, messages = run.communicate(timeout=PATIENCE_S)

    assert (run.returncode, first + output) == (0, TOLD + b"virtio: 1 devices\n"), messages
    assert b"'vblk'" in messages
    assert b": restarted, " in messages
    assert path.read_bytes() == AFTER


def test_recording_is_replayed_without_the_disk(tmp_path: Path) -> None:
    path, recording = disk(tmp_path), tmp_path / "run.rec"

    assert (
        kvmbox("run", "--record", recording, "--rng", "--disk", f"{path},on=virtio", "virtio").returncode == 0
    )
    path.unlink()
    replay = kvmbox("replay", recording)
    assert replay.returncode == 0, replay.stdout
    assert b"replies are identical" in replay.stdout


def test_snapshot_has_the_queues(tmp_path: Path) -> None:
    path, snapshot = disk(tmp_path), tmp_path / "snapshot"
    option = f"{path},on=virtio,serial=a disk"

    assert (
        kvmbox("run", "--snapshot-when", f"polled={snapshot}", "--rng", "--disk", option, "virtio").returncode
        == 0
    )
    again = kvmbox("run", "--from", snapshot)
    assert again.returncode == 0, again.stderr
    assert again.stdout.endswith(
        TOLD.partition(b"a disk\n")[2] + b"ok entropy: 64 bytes, and 64 others\nvirtio: 2 devices\n"
    )


def test_more_devices_than_there_is_room_for_are_refused(tmp_path: Path) -> None:
    option = ("--disk", f"{disk(tmp_path)},on=virtio,readonly")

    run = kvmbox("run", *option * 8, "--rng", "virtio")
    assert run.returncode == 2
    assert b"9 virtio devices, and there is room for 8" in run.stderr
    assert b"hint: " in run.stderr


def test_unknown_backend_of_the_console_is_refused() -> None:
    run = kvmbox("run", "--virtio-console", "stdin", "virtio")

    assert run.returncode == 2
    assert b"accepted: stdout, null, pty or file:PATH" in run.stderr
