"""Disks whose sectors are somewhere in a file: what is read, what is asked, and whom nobody believes."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from kvmbox.base.errors import StartError
from kvmbox.devices.qcow2.model import DATA, MAP, MAPPED, RANGE, REFUSED, UNALLOCATED, WANT, WANT_FRAME, ZEROS
from kvmbox.host.disk.image_file import DiskFile
from kvmbox.host.disk.mapped_image import MappedFile
from kvmbox.host.disk.stores import OVERLAY, READ_ONLY, WRITE, DiskRequest, DiskStore, open_disk
from tests.support.patience import patience
from tests.support.qcow2_images import ZERO_CLUSTER, Asked, connect, qcow2

CLUSTER = 512
SIZE = 300 * CLUSTER
CONTENT = {0: b"a" * 512, 1: b"b" * 512, 3: ZERO_CLUSTER, 64: b"c" * 512, 299: b"z" * 512}


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.qcow2"
    path.write_bytes(qcow2(CONTENT, size=SIZE))
    return path


def opened(image: Path, mode: str = OVERLAY, *, backing: str = "", ask: Asked | None = None) -> DiskStore:
    disk = open_disk(DiskRequest(str(image), mode, "qcow2", backing=backing), overlay_bytes=1 << 20)
    assert disk.mapped is not None
    connect(disk.mapped, ask or Asked())
    return disk


def expected() -> bytes:
    return b"".join(CONTENT.get(number, b"").ljust(CLUSTER, b"\0") for number in range(300))


@pytest.mark.parametrize(
    ("offset", "size"), [(0, 512), (0, SIZE), (100, 3), (500, 600), (63 * 512, 1024), (SIZE - 1, 1)]
)
def test_sectors_are_those_of_the_clusters(image: Path, offset: int, size: int) -> None:
    disk = opened(image)
    assert disk.size == SIZE
    assert disk.read(offset, size) == expected()[offset : offset + size]
    assert disk.read_now(offset, size) in (None, expected()[offset : offset + size])
    disk.close()


def test_format_is_guessed_from_the_magic_number(image: Path) -> None:
    disk = open_disk(DiskRequest(str(image)), overlay_bytes=0)
    assert disk.mapped is not None
    disk.close()


def test_writes_go_to_the_overlay(image: Path) -> None:
    before = image.read_bytes()
    disk = opened(image)
    disk.write(512, b"n" * 512)
    assert disk.read(0, 1536) == b"a" * 512 + b"n" * 512 + bytes(512)
    disk.close()
    assert image.read_bytes() == before


def test_process_never_sees_a_sector(image: Path) -> None:
    asked = Asked()
    disk = opened(image, ask=asked)
    disk.read(0, SIZE)
    seen = b"".join(frame for frame in asked.frames if frame[0] == DATA)
    assert not any(content[:8] in seen for content in CONTENT.values() if content)
    disk.close()


def test_cluster_is_asked_for_once(image: Path) -> None:
    asked = Asked()
    disk = opened(image, ask=asked)
    disk.read(0, SIZE)
    asked.frames.clear()
    disk.read(0, SIZE)
    assert asked.frames == []
    disk.close()


def test_what_the_image_does_not_have_is_in_the_backing_file(tmp_path: Path) -> None:
    image, backing = tmp_path / "disk.qcow2", tmp_path / "base.img"
    image.write_bytes(qcow2({1: b"b" * 512, 2: ZERO_CLUSTER}, size=SIZE, backing=104))
    backing.write_bytes(b"1" * 512 + b"2" * 512 + b"3" * 512 + b"4" * 200)
    disk = opened(image, backing=str(backing))
    assert disk.read(0, 2560) == b"1" * 512 + b"b" * 512 + bytes(512) + b"4" * 200 + bytes(824)
    disk.close()


def test_backing_file_that_is_not_given_is_not_opened(image: Path) -> None:
    image.write_bytes(qcow2({}, size=SIZE, backing=104))
    with pytest.raises(StartError, match="builds on another file") as caught:
        opened(image)
    assert "backing=FILE" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (qcow2({}, size=SIZE, encryption=1), "it is encrypted"),
        (qcow2({}, size=SIZE, entries={0: 1 << 62}), "it has compressed clusters, at byte 0"),
        (qcow2({}, size=SIZE, features=4), "external file"),
    ],
)
def test_image_that_is_refused_is_one_line_and_a_hint(image: Path, data: bytes, words: str) -> None:
    image.write_bytes(data)
    with pytest.raises(StartError, match=words) as caught:
        opened(image)
    assert "qemu-img convert" in str(caught.value.hint)


def test_damaged_cluster_is_an_error_of_the_disk_and_is_told(image: Path) -> None:
    image.write_bytes(qcow2({0: b"a" * 512}, size=SIZE, entries={2: 1 << 63 | 1 << 40}))
    disk = opened(image)
    assert disk.read(0, 512) == b"a" * 512
    with pytest.raises(OSError, match="damaged") as caught:
        disk.read(512, 1024)
    assert caught.value.errno == errno.EIO
    assert "its L2 table is damaged" in disk.summary()
    disk.close()


# --- The modes and formats -------------------------------------------------------------------------------


@pytest.mark.parametrize("format_", ["", "qcow2"])
def test_qcow2_image_is_not_written_to(image: Path, format_: str) -> None:
    with pytest.raises(StartError, match="cannot be written to") as caught:
        open_disk(DiskRequest(str(image), WRITE, format_), overlay_bytes=0)
    assert "qemu-img convert" in str(caught.value.hint)


@pytest.mark.parametrize("size", [0, 513, 1 << 60])
def test_size_that_no_disk_has_is_refused_before_there_is_a_process(image: Path, size: int) -> None:
    data = bytearray(image.read_bytes())
    data[24:32] = size.to_bytes(8, "big")
    image.write_bytes(data)
    with pytest.raises(StartError, match=f"its disk has {size} bytes"):
        open_disk(DiskRequest(str(image)), overlay_bytes=0)


def test_raw_image_is_no_qcow2_image_and_has_no_backing_file(tmp_path: Path) -> None:
    (tmp_path / "raw").write_bytes(bytes(4096))
    with pytest.raises(StartError, match="it is no qcow2 image"):
        open_disk(DiskRequest(str(tmp_path / "raw"), format="qcow2"), overlay_bytes=0)
    with pytest.raises(StartError, match="has no backing file"):
        open_disk(DiskRequest(str(tmp_path / "raw"), backing="x"), overlay_bytes=0)


def test_backing_file_that_is_a_qcow2_image_itself_is_refused(image: Path) -> None:
    before = os.listdir("/proc/self/fd")
    with pytest.raises(StartError, match="can only be a raw image"):
        opened(image, backing=str(image))
    assert os.listdir("/proc/self/fd") == before


# --- A process that lies ---------------------------------------------------------------------------------


def lying(image: Path, lie: Callable[[bytes], bytes | None]) -> DiskStore:
    """A disk whose process says `lie` of a question instead of its answer, unless that is None."""
    honest = Asked()
    started = False

    def ask(frame: bytes) -> bytes:
        answer = honest(frame)
        told = lie(frame) if started else None
        return answer if told is None else told

    disk = open_disk(DiskRequest(str(image), READ_ONLY), overlay_bytes=0)
    assert disk.mapped is not None
    connect(disk.mapped, ask)
    started = True
    return disk


def mapped(*ranges: tuple[int, int]) -> bytes:
    return bytes((MAPPED,)) + b"".join(RANGE.pack(*one) for one in ranges)


WANTED = 128 * CLUSTER


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\0",
        bytes((MAPPED,)),
        bytes((MAPPED, 1)),
        mapped((0, 0)),
        mapped((0, WANTED + 512)),
        mapped((0, 512), (0, WANTED)),
        mapped((0, 100)),
        mapped((0, (1 << 64) - 1)),
        mapped((0, 512), (0, 0)),
        WANT_FRAME.pack(WANT, 0, 1025),
        WANT_FRAME.pack(WANT, 0, 8),
        bytes((WANT,)),
        bytes((REFUSED,)) + b"\x1b[2J\n" * 1000,
    ],
)
def test_answer_that_is_none_is_an_error_of_the_disk(image: Path, answer: bytes) -> None:
    disk = lying(image, lambda frame: answer)
    with pytest.raises(OSError, match=r".") as caught:
        disk.read(128 * CLUSTER, 512)
    assert caught.value.errno == errno.EIO
    line = disk.mapped.oddity if disk.mapped else ""
    assert line.isprintable()
    assert 0 < len(line) <= 200
    disk.close()


@pytest.mark.parametrize("place", [1 << 40, 1 << 63, UNALLOCATED - 1, UNALLOCATED, ZEROS])
def test_place_outside_of_the_file_reads_as_zeros(image: Path, place: int) -> None:
    disk = lying(image, lambda frame: mapped((place, 512)) if frame[0] == MAP else None)
    assert disk.read(130 * CLUSTER, 512) == bytes(512)
    disk.close()


def test_process_is_shown_no_more_than_it_may_want(image: Path) -> None:
    shown = []

    def lie(frame: bytes) -> bytes | None:
        if frame[0] == MAP:
            return WANT_FRAME.pack(WANT, 0, 1025)
        shown.append(frame)
        return mapped((0, 512))

    disk = lying(image, lie)
    with pytest.raises(OSError, match="no answer"):
        disk.read(200 * CLUSTER, 512)
    assert shown == []
    disk.close()


def test_place_that_is_wanted_outside_of_the_file_shows_zeros(image: Path) -> None:
    shown = []

    def lie(frame: bytes) -> bytes | None:
        if frame[0] == MAP:
            return WANT_FRAME.pack(WANT, (1 << 64) - 1024, 1024)
        shown.append(frame)
        return mapped((0, 512))

    disk = lying(image, lie)
    disk.read(200 * CLUSTER, 512)
    assert shown == [bytes((DATA,)) + bytes(1024)]
    disk.close()


# --- Who may wait ----------------------------------------------------------------------------------------


class Cold:
    """A file of which the host has nothing in memory, until it was read."""

    def __init__(self, path: Path) -> None:
        self.file = DiskFile(str(path), write=False)
        self.path = str(path)
        self.size = self.file.size
        self.oddity = ""
        self.close = self.file.close
        self.warm: set[int] = set()

    def read(self, offset: int, size: int) -> bytes:
        self.warm.add(offset)
        return self.file.read(offset, size)

    def read_now(self, offset: int, size: int) -> bytes | None:
        return self.file.read(offset, size) if offset in self.warm else None


def test_metadata_that_is_not_in_memory_is_not_waited_for(image: Path) -> None:
    source = MappedFile(Cold(image))  # type: ignore[arg-type]  # as far as it is used
    connect(source, Asked())
    assert source.read_now(200 * CLUSTER, 512) is None
    assert source.read(200 * CLUSTER, 512) == bytes(512)
    assert source.read_now(200 * CLUSTER, 512) == bytes(512)
    source.close()


def test_who_may_not_wait_does_not_wait_for_who_asks(image: Path) -> None:
    asked = Asked()
    asking, may_answer = threading.Event(), threading.Event()

    def slow(frame: bytes) -> bytes:
        if frame[0] == MAP and may_wait:
            asking.set()
            assert may_answer.wait(patience(10))
        return asked(frame)

    may_wait = False
    source = MappedFile(DiskFile(str(image), write=False))
    connect(source, slow)
    may_wait = True
    reader = threading.Thread(target=source.read, args=(200 * CLUSTER, 512))
    reader.start()
    assert asking.wait(patience(10))
    assert source.read_now(299 * CLUSTER, 512) is None
    may_answer.set()
    reader.join()
    assert source.read(299 * CLUSTER, 512) == b"z" * 512
    source.close()
