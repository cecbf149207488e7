"""Disks as stores: where writes go, what is told of them, and which formats are refused."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from kvmbox.base.errors import StartError
from kvmbox.host.disk.stores import OVERLAY, READ_ONLY, WRITE, DiskRequest, DiskStore, open_disk

DATA = bytes(range(256)) * 16
NEW = b"n" * 512


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(DATA)
    return path


def opened(image: Path, mode: str, *, overlay_bytes: int = 1 << 20, is_cd: bool = False) -> DiskStore:
    return open_disk(DiskRequest(str(image), mode, is_cd=is_cd), overlay_bytes=overlay_bytes)


def test_overlay_takes_writes_and_leaves_the_file(image: Path) -> None:
    disk = opened(image, OVERLAY)
    assert (disk.writable, disk.writes_now, disk.size) == (True, True, len(DATA))
    disk.write(512, NEW)
    disk.flush()
    assert disk.read(0, 1536) == DATA[:512] + NEW + DATA[1024:1536]
    assert disk.read_now(512, 512) == NEW
    disk.close()
    assert image.read_bytes() == DATA


def test_read_of_written_sectors_and_of_others_merges_both_without_waiting(image: Path) -> None:
    disk = opened(image, OVERLAY)
    disk.write(1024, NEW)
    expected = disk.read(512, 1536)
    assert expected == DATA[512:1024] + NEW + DATA[1536:2048]
    assert disk.read_now(512, 1536) in (None, expected)
    disk.close()


def test_sectors_that_were_written_are_read_though_the_file_is_gone(image: Path) -> None:
    disk = opened(image, OVERLAY)
    disk.write(0, NEW)
    disk.close()
    assert disk.read(0, 512) == disk.read_now(0, 512) == NEW


def test_write_mode_writes_to_the_file(image: Path) -> None:
    disk = opened(image, WRITE)
    assert (disk.writable, disk.writes_now) == (True, False)
    disk.write(512, NEW)
    disk.flush()
    assert disk.read(512, 512) == NEW
    assert image.read_bytes()[512:1024] == NEW
    disk.close()


def test_flush_of_a_file_waits_for_the_host(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[int] = []
    monkeypatch.setattr(os, "fdatasync", flushed.append)
    for mode in (OVERLAY, READ_ONLY, WRITE):
        disk = opened(image, mode)
        disk.flush()
        disk.close()
    assert len(flushed) == 1


def test_read_only_disk_refuses_writes(image: Path) -> None:
    disk = opened(image, READ_ONLY)
    assert (disk.writable, disk.writes_now) == (False, True)
    with pytest.raises(OSError, match="read-only") as caught:
        disk.write(0, NEW)
    assert caught.value.errno == errno.EROFS
    disk.close()


@pytest.mark.parametrize("mode", [OVERLAY, WRITE])
@pytest.mark.parametrize("offset", [len(DATA), len(DATA) - 256, -512, 1 << 64])
def test_no_byte_beyond_the_disk_is_read_or_written(image: Path, mode: str, offset: int) -> None:
    disk = opened(image, mode)
    attempts: list[Callable[[], object]] = [
        lambda: disk.read(offset, 512),
        lambda: disk.read_now(offset, 512),
        lambda: disk.write(offset, NEW),
    ]
    for attempt in attempts:
        with pytest.raises(OSError, match="no such bytes"):
            attempt()
    disk.close()
    assert image.read_bytes() == DATA


def test_full_overlay_is_no_space(image: Path) -> None:
    os.truncate(image, 16384)
    disk = opened(image, OVERLAY, overlay_bytes=4096)
    disk.write(0, NEW)
    for _ in range(2):
        with pytest.raises(OSError, match="full") as caught:
            disk.write(8192, NEW)
        assert caught.value.errno == errno.ENOSPC
    assert disk.summary() == (
        "disk.img: 0 sectors read, 1 written to memory, 2 writes failed (--disk-overlay is full): "
        "the file is as it was"
    )
    disk.close()


# --- What is told ------------------------------------------------------------------------------------------


def test_summary_of_a_disk_that_nobody_used_is_empty(image: Path) -> None:
    disk = opened(image, OVERLAY)
    assert disk.summary() == ""
    disk.close()


@pytest.mark.parametrize(
    ("mode", "line"),
    [
        (OVERLAY, "disk.img: 3 sectors read, 1 written to memory: the file is as it was"),
        (WRITE, "disk.img: 3 sectors read, 1 written to the file"),
    ],
)
def test_summary_counts_sectors_and_says_where_writes_went(image: Path, mode: str, line: str) -> None:
    disk = opened(image, mode)
    disk.read(0, 1536)
    disk.write(0, NEW)
    assert disk.summary() == line
    disk.close()


def test_summary_of_a_cd_counts_its_larger_sectors(image: Path) -> None:
    disk = opened(image, READ_ONLY, is_cd=True)
    disk.read(2048, 2048)
    assert disk.summary() == "disk.img: 1 sector read"
    disk.close()


def test_summary_says_what_is_odd_about_the_file(image: Path) -> None:
    os.truncate(image, 700)
    disk = opened(image, READ_ONLY)
    disk.read(0, 512)
    assert disk.summary() == "disk.img: 1 sector read (its last sector has 188 bytes)"
    disk.close()


# --- Formats -----------------------------------------------------------------------------------------------


def vhd(size: int, *, kind: int = 2, cookie: bytes = b"conectix") -> bytes:
    footer = struct.pack(">8s40xQ4xI", cookie, size, kind)
    return DATA + footer.ljust(512, b"\0")


def test_fixed_vhd_is_a_disk_without_its_footer(image: Path) -> None:
    image.write_bytes(vhd(len(DATA)))
    disk = open_disk(DiskRequest(str(image), format="vhd"), overlay_bytes=0)
    assert disk.size == len(DATA)
    assert disk.read(0, len(DATA)) == DATA
    disk.close()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (vhd(4096, cookie=b"conectiy"), "it is no VHD image"),
        (b"x", "it is no VHD image"),
        (vhd(4096, kind=3), "of another kind than fixed"),
        (vhd(0), "its disk has 0 bytes"),
        (vhd(4608), "its disk has 4608 bytes, and has 4096"),
        (vhd(4095), "its disk has 4095 bytes"),
        (vhd((1 << 64) - 1), "its disk has 18446744073709551615 bytes"),
    ],
)
def test_vhd_that_is_none_is_refused(image: Path, data: bytes, words: str) -> None:
    image.write_bytes(data)
    with pytest.raises(StartError, match=words) as caught:
        open_disk(DiskRequest(str(image), format="vhd"), overlay_bytes=0)
    assert caught.value.hint


def test_vhd_is_not_written_to(image: Path) -> None:
    image.write_bytes(vhd(len(DATA)))
    with pytest.raises(StartError, match="cannot be written to"):
        open_disk(DiskRequest(str(image), WRITE, "vhd"), overlay_bytes=0)


def test_format_raw_takes_anything(image: Path) -> None:
    image.write_bytes(b"QFI\xfb" + DATA[4:])
    disk = open_disk(DiskRequest(str(image), format="raw"), overlay_bytes=0)
    assert disk.read(0, 4) == b"QFI\xfb"
    disk.close()
