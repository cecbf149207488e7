"""Disks of a guest: what it reads and writes, where that goes, and that it cannot tell how it came there."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from kvmbox.base.compiled import VARIABLE, why_not_built
from tests.support.family import device_processes
from tests.support.runs import DESIGNS, ENTRY, Run, run_to_end
from tests.support.selection import first_per_commit

pytestmark = pytest.mark.kvm

SECTOR: Final = 512
SECTORS: Final = 20  # the guest reads 16 of them, and writes the last one of these
CONTENT: Final = bytes((place * 7 + place // 251) & 0xFF for place in range(SECTORS * SECTOR))
INVERTED: Final = (
    CONTENT[: 15 * SECTOR] + bytes(byte ^ 0xFF for byte in CONTENT[15 * SECTOR : 16 * SECTOR])
) + CONTENT[16 * SECTOR :]

HALVES: Final = [
    pytest.param({}, id="compiled", marks=pytest.mark.skipif(bool(why_not_built()), reason="not compiled")),
    pytest.param({VARIABLE: "1"}, id="pure"),
]


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """An image of 20 sectors."""
    path = tmp_path / "disk.img"
    path.write_bytes(CONTENT)
    return path


def printed(rounds: int) -> bytes:
    """What the guest `ata` prints."""
    total = 0
    for start in range(0, 16 * SECTOR, 4):
        total = (total * 33 + int.from_bytes(CONTENT[start : start + 4], "little")) & 0xFFFF_FFFF
    serial = b"kvmbox-disk0".ljust(20)
    return b"serial %s\nsectors 20, sum 0x%08x\n%s\nata: done\n" % (serial, total, b"." * rounds)


def run(disk: Path, *arguments: str | Path, rounds: int = 1, **options: Any) -> tuple[int, bytes, str]:
    return run_to_end(Run("ata", "--append", str(rounds), "--disk", disk, *arguments, **options))


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("design", first_per_commit(DESIGNS), ids=" ".join)
def test_guest_reads_and_writes_and_the_file_is_as_it_was(
    disk: Path, design: tuple[str, ...], half: dict[str, str]
) -> None:
    status, output, messages = run(disk, *design, env={**os.environ, **half})
    assert (status, output) == (0, printed(1))
    assert "disk.img: 64 sectors read, 1 written to memory: the file is as it was\n" in messages
    assert disk.read_bytes() == CONTENT


def test_written_disk_has_what_the_guest_wrote(disk: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    status, output, messages = run(Path(f"{disk},write"), "--json", report)
    assert (status, output) == (0, printed(1))
    summary = "disk.img: 64 sectors read, 1 written to the file"
    assert messages == f"kvmbox: {summary}\n"
    assert disk.read_bytes() == INVERTED
    (facts,) = json.loads(report.read_bytes())["disks"]
    assert facts == {
        "name": "disk0",
        "path": str(disk),
        "kind": "disk",
        "mode": "write",
        "size": len(CONTENT),
        "summary": summary,
    }


def test_disk_that_is_read_only_refuses_the_guest_s_writes(disk: Path) -> None:
    status, output, _ = run(Path(f"{disk},readonly"))
    assert status == 3
    assert output.endswith(b"not ok the disk reports an error\n")
    assert disk.read_bytes() == CONTENT


def test_overlay_is_bounded(disk: Path) -> None:
    status, output, messages = run(disk, "--disk-overlay", "1")
    assert (status, output.splitlines()[-1]) == (3, b"not ok the disk reports an error")
    assert "1 write failed (--disk-overlay is full)" in messages


@pytest.mark.parametrize("ipc", first_per_commit(["shm", "pipe", "socketpair"]))
def test_guest_cannot_tell_that_the_process_of_its_disk_was_killed(disk: Path, ipc: str) -> None:
    rounds = 8
    options = ("--on-device-crash", "restart", "--restart-budget", "100", "--ipc", ipc)
    arguments = ("ata", "--append", str(rounds), "--disk", f"{disk},write", *options)
    killed: set[int] = set()
    with Run(*arguments) as machine:
        for number in range(rounds):
            machine.stdout.until(b"." if number else b"sectors")
            for pid, name in device_processes(machine.pid).items():
                if name in ("ide", "standby"):  # a replacement keeps its name
                    os.kill(pid, signal.SIGKILL)
                    killed.add(pid)
        assert machine.status() == 0
        assert machine.output == printed(rounds)
        assert " requests replayed in " in machine.messages
    assert len(killed) > 2
    assert disk.read_bytes() == CONTENT


def test_recording_replays_without_the_disk(disk: Path, tmp_path: Path) -> None:
    recording = tmp_path / "run.rec"
    status, _, _ = run(disk, "--record", recording)
    assert status == 0
    disk.unlink()
    replay = [sys.executable, "-c", ENTRY, "replay", str(recording), "--device", "ide0"]
    found = subprocess.run(replay, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert "replies are identical" in found.stdout
    dump = subprocess.run([*replay, "--dump"], capture_output=True, check=True).stdout
    assert b"lets the guest read 512 bytes of medium 0 at byte 0" in dump
    assert CONTENT[:8].hex().encode() not in dump


@pytest.mark.parametrize(
    ("size", "found"), [(2 * SECTOR, b"sweet"), (1440 << 10, CONTENT[SECTOR : SECTOR + 5])]
)
def test_boot_sector_is_the_first_disk_unless_it_is_of_a_diskette(
    disk: Path, tmp_path: Path, size: int, found: bytes
) -> None:
    """It reads the second sector of the first disk by ATA, and prints what is there."""
    code = (
        b"\xba\xf6\x01\xb0\xe0\xee"  # device: LBA
        b"\xba\xf2\x01\xb0\x01\xee"  # one sector
        b"\xba\xf3\x01\xb0\x01\xee"  # the second one
        b"\xba\xf4\x01\x30\xc0\xee"
        b"\xba\xf5\x01\x30\xc0\xee"
        b"\xba\xf7\x01\xb0\x20\xee"  # READ SECTORS
        b"\xec\xa8\x08\x74\xfb"  # until DRQ
        b"\x31\xc0\x8e\xc0\xbf\x00\x80\xb9\x00\x01\xba\xf0\x01\xfc\xf3\x6d"  # rep insw to 0:8000
        b"\xbe\x00\x80\xb9\x05\x00\xba\xe9\x00\x8e\xd8\xf3\x6e"  # rep outsb to the debug console
        b"\xba\x00\x89\xbe\x70\x7c\xb9\x08\x00\xf3\x6e\xfa\xf4"  # "Shutdown"
    )
    sector = code.ljust(0x70, b"\0") + b"Shutdown"
    image = tmp_path / "boot.img"
    image.write_bytes((sector.ljust(510, b"\0") + b"\x55\xaa" + b"sweet").ljust(size, b"\0"))
    status, output, _ = run_to_end(Run(image, "--disk", disk))
    assert (status, output) == (0, found)


# --- Snapshots ---------------------------------------------------------------------------------------------


@pytest.fixture
def snapshot(disk: Path, tmp_path: Path) -> Path:
    """A machine that stands in the middle of a sector."""
    path = tmp_path / "machine.snap"
    assert run(disk, "--snapshot-when", f"port:0x5f0={path}", "--snapshot-stop", rounds=3)[0] == 0
    return path


def test_machine_goes_on_in_the_middle_of_a_sector(snapshot: Path, disk: Path) -> None:
    status, output, messages = run_to_end(Run("--from", snapshot))
    assert (status, output) == (0, b"...\nata: done\n")
    assert "3 written to memory: the file is as it was" in messages
    assert disk.read_bytes() == CONTENT


def test_machine_has_what_its_overlay_had(disk: Path, tmp_path: Path) -> None:
    path = tmp_path / "machine.snap"
    assert run(disk, "--snapshot-when", f".={path}", "--snapshot-stop", rounds=3)[0] == 0
    status, output, messages = run_to_end(Run("--from", path))
    assert (status, output) == (0, b"..\nata: done\n")  # it has found what it wrote
    assert "2 written to memory" in messages


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda data: data[:700] + b"?" + data[701:], "is not what it was"),
        (lambda data: data + bytes(SECTOR), "device boot-disk is another one than in the snapshot"),
    ],
)
def test_snapshot_refuses_another_disk(snapshot: Path, disk: Path, change: Any, problem: str) -> None:
    disk.write_bytes(change(CONTENT))
    status, output, messages = run_to_end(Run("--from", snapshot))
    assert (status, output) == (4, b"")
    assert problem in messages


def test_snapshot_of_a_disk_that_is_written_is_refused_at_once(disk: Path, tmp_path: Path) -> None:
    path = tmp_path / "machine.snap"
    status, output, messages = run(Path(f"{disk},write"), "--snapshot-when", f".={path}")
    assert (status, output) == (2, b"")
    assert messages.startswith("kvmbox: error: --snapshot-when contradicts --disk FILE,write\n")
    assert not path.exists()


# --- Block devices -----------------------------------------------------------------------------------------


@pytest.fixture
def block_device(disk: Path) -> Iterator[Path]:
    """The image as a block device of the host."""
    found = subprocess.run(
        ["losetup", "--find", "--show", str(disk)], capture_output=True, text=True, check=False
    )
    if found.returncode:
        pytest.skip(f"no loop device: {found.stderr.strip()}")
    yield Path(found.stdout.strip())
    subprocess.run(["losetup", "--detach", found.stdout.strip()], check=True)


@pytest.mark.skipif(shutil.which("losetup") is None, reason="losetup not found")
@pytest.mark.parametrize(("mode", "left"), [("", CONTENT), (",write", INVERTED)])
def test_disk_can_be_a_block_device(block_device: Path, mode: str, left: bytes) -> None:
    status, output, messages = run(Path(f"{block_device}{mode}"))
    assert (status, output) == (0, printed(1)), messages
    assert block_device.read_bytes() == left


# --- Faults ------------------------------------------------------------------------------------------------


def injected(report: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(report.read_bytes())["injected"]
    return found


def test_guest_sees_the_error_of_a_read_that_fails(disk: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    status, output, messages = run(disk, "--inject", "disk:eio=20", "--json", report)
    assert (status, output.splitlines()[-1]) == (3, b"not ok the disk reports an error")
    assert "kvmbox: --inject: disk0: 1 of 20 reads and writes failed\n" in messages
    assert injected(report) == [{"device": "disk0", "fault": "eio", "events": 20, "injected": 1}]


@pytest.mark.parametrize("place", ["", ",on=virtio"])
def test_torn_write_is_half_of_it_and_an_error(disk: Path, tmp_path: Path, place: str) -> None:
    if place:
        disk.write_bytes(CONTENT[: 16 * SECTOR])
    report, guest = tmp_path / "report.json", "virtio" if place else "ata"
    arguments = ("--inject", "disk:torn-write=1", "--json", str(report), guest)
    status, _, _ = run_to_end(Run("--disk", f"{disk},write{place}", *arguments))
    assert status == 3
    half = 15 * SECTOR + SECTOR // 2
    assert disk.read_bytes()[: 16 * SECTOR] == INVERTED[:half] + CONTENT[half : 16 * SECTOR]
    assert injected(report) == [{"device": "disk0", "fault": "torn-write", "events": 1, "injected": 1}]


@pytest.mark.parametrize(
    ("guest", "place", "moved"), [("ata", "", 51), ("virtio", ",on=virtio,serial=a disk", 68)]
)
def test_slow_disk_gives_what_a_fast_one_does(
    disk: Path, tmp_path: Path, guest: str, place: str, moved: int
) -> None:
    report = tmp_path / "report.json"
    fast = run_to_end(Run("--disk", f"{disk}{place}", guest))
    slow = run_to_end(
        Run("--disk", f"{disk}{place}", "--inject", "disk0:slow=1", "--json", str(report), guest)
    )
    assert fast[0] == 0
    assert slow[:2] == fast[:2]
    assert injected(report) == [{"device": "disk0", "fault": "slow", "events": moved, "injected": moved}]


def test_error_at_virtio_is_the_status_of_the_request(disk: Path) -> None:
    status, output, _ = run_to_end(
        Run("--disk", f"{disk},on=virtio", "--inject", "disk:eio=1,after=5", "virtio")
    )
    assert (status, output) == (3, b"not ok a request fails\n")


def test_boot_disk_has_faults_behind_the_bios_too(tmp_path: Path) -> None:
    read = b"\xb8\x01\x02\xb9\x02\x00\xb6\x00\xbb\x00\x80\xcd\x13"  # one sector, to 0:8000
    show = b"\x0f\x92\xc0\x04\x30\xe6\xe9"  # setc al; add al, '0'; out 0xe9, al
    down = b"\xba\x00\x89\xbe\x70\x7c\xb9\x08\x00\xf3\x6e\xfa\xf4"  # "Shutdown"
    sector = (b"\x31\xc0\x8e\xd8\x8e\xc0\xfc" + read + show + down).ljust(0x70, b"\0") + b"Shutdown"
    image = tmp_path / "boot.img"
    image.write_bytes(sector.ljust(510, b"\0") + b"\x55\xaa" + bytes(SECTOR))
    assert run_to_end(Run(image))[:2] == (0, b"0")
    status, output, messages = run_to_end(Run(image, "--inject", "disk0:eio=1,after=1"))
    assert (status, output) == (0, b"1")
    assert "disk0: " in messages


# --- Death of kvmbox ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("guest", "place", "told"),
    [("ata", "", b"."), ("virtio", ",on=virtio,serial=a disk", b"flushed and read back\n")],
)
def test_what_was_flushed_survives_the_death_of_kvmbox(
    disk: Path, guest: str, place: str, told: bytes
) -> None:
    if place:
        disk.write_bytes(CONTENT[: 16 * SECTOR])
    with Run("--disk", f"{disk},write{place}", guest) as machine:
        machine.stdout.until(told)  # the guest has seen that the flush is done
        os.kill(machine.pid, signal.SIGKILL)
        machine.status()
    assert disk.read_bytes()[: 16 * SECTOR] == INVERTED[: 16 * SECTOR]
