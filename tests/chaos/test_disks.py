"""Processes of disks under fire, while a guest reads and writes: it cannot tell, and neither can the disk.

KVMBOX_CHAOS_FAULTS and KVMBOX_CHAOS_SEED as in `test_chaos`; `make chaos` hits these processes as often as
those of the PC.
"""

from __future__ import annotations

import os
import random
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from tests.chaos.harness import Chaos, Guest, undisturbed
from tests.support import disk_guest
from tests.support.disk_guest import STEP, label
from tests.support.qcow2_images import qcow2

pytestmark = [pytest.mark.kvm, pytest.mark.thorough]

FAULTS: Final = int(os.environ.get("KVMBOX_CHAOS_FAULTS", "30"))
SEED: Final = int(os.environ.get("KVMBOX_CHAOS_SEED", random.randrange(1 << 30)))
SECTORS: Final = 400
"""How many sectors, far from one another, a guest moves."""
PATIENCE: Final = 10
"""How many runs in a row may end before the first fault comes."""

Made = tuple[Guest, Path, bytes]
"""A guest, its disk, and what that has at first."""


def ide(folder: Path) -> Made:
    """Sectors are read, written elsewhere and flushed."""
    (folder / "guest.img").write_bytes(disk_guest.guest(SECTORS, writes=True))
    disk = folder / "disk.img"
    arguments = ("--boot", "real", "--disk", f"{disk},write")
    return Guest(str(folder / "guest.img"), arguments, weights={"ide": 1}), disk, disk_guest.content(SECTORS)


def virtio(folder: Path) -> Made:
    """Requests one by one and many at a time, a sector that is written and flushed, and resets."""
    disk = folder / "disk.img"
    content = random.Random(5).randbytes(32 * 512)
    return Guest("virtio", ("--disk", f"{disk},write,on=virtio"), weights={"vblk": 1}), disk, content


def mapped(folder: Path) -> Made:
    """Each read asks for another part of the map of an image."""
    (folder / "guest.img").write_bytes(disk_guest.guest(SECTORS))
    disk = folder / "disk.qcow2"
    clusters = {number * STEP: label(number) * 64 for number in range(SECTORS)}
    guest = Guest(
        str(folder / "guest.img"),
        ("--boot", "real", "--disk", str(disk)),
        weights={"format": 3, "ide": 1},
    )
    return guest, disk, qcow2(clusters, size=SECTORS * STEP * 512)


CAMPAIGNS: Final[list[tuple[Callable[[Path], Made], str, str]]] = [
    (ide, "shm", "filter"),
    (virtio, "pipe", "filter"),
    (mapped, "shm", "filter"),
    (ide, "pipe", "strict"),
    (virtio, "shm", "filter"),
    (mapped, "socketpair", "filter"),
]


@pytest.mark.parametrize("number", range(len(CAMPAIGNS)))
def test_neither_guest_nor_disk_can_tell_that_processes_are_hit(
    number: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, ipc, seccomp = CAMPAIGNS[number]
    guest, disk, content = make(tmp_path)
    options = ("--ipc", ipc, "--seccomp", seccomp)
    disk.write_bytes(content)
    wanted = undisturbed(guest, options, tmp_path)
    left = disk.read_bytes()
    assert wanted.status == 0
    assert (left != content) == ("write" in guest.arguments[-1])
    faults = runs = without = 0
    durations: list[int] = []
    while faults < FAULTS // len(CAMPAIGNS):
        runs += 1
        disk.write_bytes(content)
        limit = FAULTS // len(CAMPAIGNS) - faults
        result = Chaos(guest, options, tmp_path, seed=SEED + 1000 * number + runs, limit=limit).run()
        told = f"seed {SEED}, run {runs}: status {result.status}, {result.faults}\n{result.messages}"
        assert (result.status, result.output) == (wanted.status, wanted.output), told
        assert disk.read_bytes() == left, told
        assert result.restarts >= len(result.faults) - 2, told
        without = 0 if result.faults else without + 1
        assert without < PATIENCE, told
        faults += len(result.faults)
        durations += result.numbers["restarts"]["durations"]
    with capsys.disabled():
        sys.stdout.write(
            f"\n  {make.__name__} {ipc} {seccomp}, seed {SEED}: {faults} faults in {runs} runs, "
            f"restarts took {statistics.median(durations or [0]) / 1e6:.1f} ms (median)\n"
        )
