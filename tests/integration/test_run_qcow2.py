"""A guest on a qcow2 image: what it finds, and what becomes of it without the process that reads the map."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Final

import pytest

from kvmbox.cli.main import run_command
from tests.support.disk_guest import STEP, guest, label
from tests.support.qcow2_images import ZERO_CLUSTER, qcow2
from tests.support.runs import DESIGNS, KVMBOX, Run, error_lines, run_to_end

pytestmark = pytest.mark.kvm

PROGRAM: Final = str(Path(__file__).parent / "run_payload" / "other_spawner.py")
SIZE: Final = 64 * 512
"""What the guest reads of a disk."""


@pytest.fixture
def disk(tmp_path: Path) -> bytes:
    """The disk's bytes; the image of it is in the folder, and beside it the file that it builds on."""
    chance = random.Random(8)
    backing = chance.randbytes(SIZE)
    clusters = {number: chance.randbytes(512) for number in range(0, 64, 3)} | {4: ZERO_CLUSTER}
    (tmp_path / "base.img").write_bytes(backing)
    (tmp_path / "disk.qcow2").write_bytes(qcow2(clusters, size=SIZE, backing=104))
    pieces = [backing[start : start + 512] for start in range(0, SIZE, 512)]
    for number, content in clusters.items():
        pieces[number] = content.ljust(512, b"\0")
    return b"".join(pieces)


DEAF: Final = (sys.executable, PROGRAM, "format", "deaf", "1000")
"""The process that reads the map leaves in the middle of a question."""


def run(
    folder: Path, name: str, *arguments: str, command: tuple[str, ...] = KVMBOX
) -> tuple[int, bytes, str]:
    return run_to_end(Run("--disk", f"{folder}/{name}", *arguments, "ata", command=command))


def expected(folder: Path, disk: bytes) -> bytes:
    """What the guest prints of a raw image of the same disk."""
    (folder / "disk.img").write_bytes(disk)
    status, output, _ = run(folder, "disk.img")
    assert status == 0
    return output


@pytest.mark.parametrize("design", DESIGNS, ids=" ".join)
def test_guest_finds_the_same_disk_as_on_a_raw_image(
    tmp_path: Path, disk: bytes, design: tuple[str, ...]
) -> None:
    before = (tmp_path / "disk.qcow2").read_bytes()

    status, output, messages = run(tmp_path, f"disk.qcow2,backing={tmp_path}/base.img", *design)

    assert (status, output) == (0, expected(tmp_path, disk)), messages
    assert "written to memory: the file is as it was" in messages
    assert (tmp_path / "disk.qcow2").read_bytes() == before


def test_lost_process_is_restarted_and_the_guest_finds_the_same(tmp_path: Path, disk: bytes) -> None:
    name = f"disk.qcow2,backing={tmp_path}/base.img"

    status, output, messages = run(tmp_path, name, "--on-device-crash", "restart", command=DEAF)

    assert (status, output) == (0, expected(tmp_path, disk)), messages
    assert "device process 'format' exited with status 9: restarted, " in messages


def test_lost_process_ends_the_run(tmp_path: Path, disk: bytes) -> None:
    status, _, messages = run(tmp_path, f"disk.qcow2,backing={tmp_path}/base.img", command=DEAF)

    assert status == 8
    (line,) = error_lines(messages)
    assert line.startswith("kvmbox: error: device process 'format' ")


# --- A process that hangs while a guest reads ------------------------------------------------------------

READS: Final = 40
STUCK: Final = (sys.executable, PROGRAM, "format", "stuck", "1000")
ALL_STUCK: Final = (sys.executable, PROGRAM, "format,standby", "stuck", "1000")
HUNG: Final = "device process 'format' is hung: no reply within 500 ms"
BY_THREAD: Final = ("--inject", "disk0:slow=1")
"""Reads are done by the transfer thread, and not by the vCPU's."""


def run_far(folder: Path, command: tuple[str, ...], *options: str) -> tuple[int, bytes, str]:
    """A guest that reads all over the disk, so that the map is asked for again and again."""
    (folder / "guest.img").write_bytes(guest(READS))
    clusters = {number * STEP: label(number) * 64 for number in range(READS)}
    (folder / "far.qcow2").write_bytes(qcow2(clusters, size=READS * STEP * 512))
    image = ("--boot", "real", str(folder / "guest.img"))
    return run_to_end(Run("--disk", f"{folder}/far.qcow2", *options, *image, command=command))


@pytest.mark.parametrize("how", [(), BY_THREAD], ids=["vcpu", "thread"])
def test_process_that_hangs_ends_the_run_and_is_named(tmp_path: Path, how: tuple[str, ...]) -> None:
    status, output, messages = run_far(tmp_path, STUCK, *how)

    assert (status, output) == (8, label(0))
    assert error_lines(messages) == [f"kvmbox: error: {HUNG}"]
    assert "ide" not in messages


@pytest.mark.parametrize("how", [(), BY_THREAD], ids=["vcpu", "thread"])
def test_process_that_hangs_is_restarted_and_no_other_one_is(tmp_path: Path, how: tuple[str, ...]) -> None:
    restart = ("--on-device-crash", "restart")
    status, output, messages = run_far(tmp_path, STUCK, *restart, *how)
    assert (status, output) == (0, b"".join(map(label, range(READS)))), messages
    assert messages.count(": restarted, ") == messages.count(f"{HUNG}: restarted, ") == 1

    status, output, messages = run_far(tmp_path, ALL_STUCK, *restart, *how)
    assert (status, output) == (8, label(0))
    (line,) = error_lines(messages)
    assert line.startswith(f"kvmbox: error: {HUNG}; the same request had broken the 2 processes before it")
    assert ": restarted, " not in messages


# --- Images that are refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (qcow2({}, size=SIZE, entries={0: 1 << 62}), "it has compressed clusters, at byte 0"),
        (qcow2({}, size=SIZE, backing=104), "it builds on another file"),
        (qcow2({}, size=SIZE, encryption=2), "it is encrypted"),
    ],
)
def test_image_that_is_refused_is_one_line_and_a_hint(tmp_path: Path, image: bytes, words: str) -> None:
    (tmp_path / "disk.qcow2").write_bytes(image)

    status, output, messages = run(tmp_path, "disk.qcow2")

    assert (status, output) == (4, b"")
    line, hint = messages.splitlines()
    assert line == f"kvmbox: error: cannot use disk '{tmp_path}/disk.qcow2': {words}"
    assert hint.startswith("hint: ")


def test_snapshot_goes_on_with_the_same_image_and_refuses_another_one(tmp_path: Path, disk: bytes) -> None:
    name, snapshot = f"disk.qcow2,backing={tmp_path}/base.img", tmp_path / "half.snap"
    status, output, _ = run(tmp_path, name, "--snapshot-when", f"sectors={snapshot}")
    assert status == 0

    restored = run_to_end(Run("--from", snapshot))
    (tmp_path / "base.img").write_bytes(bytes(SIZE))
    refused = run_to_end(Run("--from", snapshot))

    assert (restored[0], restored[1]) == (0, output.partition(b"sectors")[2]), restored[2]
    assert refused[0] == 4
    assert "is not what it was" in refused[2]


def test_recording_replays_without_the_image(
    tmp_path: Path, disk: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    recording = tmp_path / "run.rec"
    name = f"disk.qcow2,backing={tmp_path}/base.img"
    assert run(tmp_path, name, "--record", str(recording))[0] == 0
    (tmp_path / "disk.qcow2").unlink()

    assert run_command(["replay", str(recording)]) == 0

    assert "replies are identical" in "".join(capfd.readouterr())
