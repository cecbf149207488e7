"""PCI in runs of every design: the guest `pci`, lost processes, recordings, snapshots, options.

What the guest proves is in guests/pci.c.
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
PROOFS = (
    "interrupts by pin",
    "interrupts by another line",
    "interrupts by message",
    "moved",
    "put over nothing",
    "legacy",
)
TOLD = "".join(f"ok {proof}\n" for proof in PROOFS).encode() + b"pci: 4 functions\n"
DESIGNS = [
    *(("--ipc", ipc) for ipc in ("shm", "pipe", "socketpair")),
    *(("--sandbox", sandbox) for sandbox in ("none", "thread", "per-device")),
    ("--seccomp", "strict"),
]


def kvmbox(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*KVMBOX, *map(str, arguments)],
        capture_output=True,
        timeout=PATIENCE_S,
        check=False,
        env=os.environ | environment,
    )


@pytest.mark.parametrize("design", first_per_commit(DESIGNS))
def test_functions_work_wherever_their_registers_are(design: tuple[str, str]) -> None:
    run = kvmbox("run", *design, "--pci", "on", "--rng", "pci")
    assert (run.returncode, run.stdout[-len(TOLD) :]) == (0, TOLD), run.stderr


def test_functions_work_without_compiled_code() -> None:
    run = kvmbox("run", "--pci", "on", "--rng", "pci", KVMBOX_PURE="1")
    assert (run.returncode, run.stdout[-len(TOLD) :]) == (0, TOLD), run.stderr


def test_register_that_decodes_nowhere_is_told_once() -> None:
    run = kvmbox("run", "--pci", "on", "--rng", "pci")
    told = [line for line in run.stderr.decode().splitlines() if "decodes nowhere" in line]
    assert [line.partition(": something")[0] for line in told] == [
        "kvmbox: virtio-rng, base address 4 decodes nowhere",
        "kvmbox: virtio-rng, base address 0 decodes nowhere",
    ]


@pytest.mark.parametrize("lost", ["pci", "vrng"])
def test_lost_process_is_replaced_and_the_guest_cannot_tell(lost: str) -> None:
    command = (*KVMBOX, "run", "--on-device-crash", "restart", "--pci", "on", "--rng", "pci")
    pipe = subprocess.PIPE
    # Unbuffered: what `readline` takes is then a line, and `communicate` gets the rest.
    with subprocess.Popen(command, bufsize=0, stdout=pipe, stderr=pipe) as run:
        assert run.stdout is not None
        first = b""
        while b"by pin" not in first:
            line = run.stdout.readline()
            assert line
            first += line
        (process,) = [pid for pid, name in device_processes(run.pid).items() if name == lost]
        os.kill(process, signal.SIGKILL)
        output, messages = run.communicate(timeout=PATIENCE_S)

    assert (run.returncode, (first + output)[-len(TOLD) :]) == (0, TOLD), messages
    assert f"'{lost}'".encode() in messages


def test_recording_is_replayed(tmp_path: Path) -> None:
    recording = tmp_path / "run.rec"
    assert kvmbox("run", "--record", recording, "--pci", "on", "--rng", "pci").returncode == 0
    replay = kvmbox("replay", recording)
    assert replay.returncode == 0, replay.stdout
    assert b"replies are identical" in replay.stdout


@pytest.mark.parametrize("proof", PROOFS[:4])
def test_snapshot_has_the_bus(tmp_path: Path, proof: str) -> None:
    snapshot = tmp_path / "snapshot"
    first = kvmbox("run", "--snapshot-when", f"ok {proof}={snapshot}", "--pci", "on", "--rng", "pci")
    assert first.returncode == 0, first.stderr
    again = kvmbox("run", "--from", snapshot)
    assert again.returncode == 0, again.stderr
    assert again.stdout == TOLD.partition(proof.encode())[2]


def test_disks_are_functions_too(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(4096))
    run = kvmbox(
        "run", "--pci", "on", "--disk", f"{path},on=virtio", "--disk", path, "--virtio-console", "null", "pci"
    )
    assert run.returncode == 0, run.stderr
    lines = [line for line in run.stdout.decode().splitlines() if line.startswith("00:")]
    assert lines == [
        "00:00.0 0600: 8086:1237 (rev 02)",
        "00:01.0 0601: 8086:7000",
        "00:01.1 0101: 8086:7010",
        "00:02.0 0300: 1234:1111 (rev 02)",
        "00:03.0 0100: 1af4:1001",
        "00:04.0 0780: 1af4:1003",
    ]


def test_bus_that_is_off_has_no_devices_and_none_is_there_unasked() -> None:
    for option in ((), ("--pci", "auto"), ("--pci", "off")):
        run = kvmbox("run", *option, "--rng", "pci")
        assert (run.returncode, run.stdout) == (0, b"no PCI\n"), run.stderr


def test_device_that_needs_the_bus_that_is_off_is_refused() -> None:
    run = kvmbox("run", "--pci", "off", "--net", "none,on=e1000", "pci")
    assert run.returncode == 2
    assert run.stderr.endswith(b"which is on PCI\nhint: drop '--pci off'\n")


def test_more_functions_than_there_is_room_for_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(4096))
    run = kvmbox("run", "--pci", "on", *("--disk", f"{path},on=virtio,readonly") * 12, "pci")
    assert run.returncode == 2
    assert b"12 devices on PCI, and there is room for 11" in run.stderr
