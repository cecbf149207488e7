"""The file behind a disk: what may be one, what is read of it, and who else may use it."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvmbox.base.errors import StartError
from kvmbox.host.disk.image_file import DiskFile

SECTOR = 512
DATA = bytes(range(256)) * 16


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(DATA)
    return path


@pytest.fixture
def file(image: Path) -> Iterator[DiskFile]:
    opened = DiskFile(str(image), write=False)
    yield opened
    opened.close()


def refusal(path: Path | str, *, write: bool = False) -> tuple[str, str]:
    """What opening it says: the line behind the name, and the hint."""
    with pytest.raises(StartError) as caught:
        DiskFile(str(path), write=write)
    line, hint = str(caught.value), caught.value.hint
    assert hint
    assert "\n" not in line + hint
    return line.removeprefix(f"cannot use disk '{path}': "), hint


# --- What is no disk ---------------------------------------------------------------------------------------


def test_missing_file_is_refused_with_the_way_to_make_one(tmp_path: Path) -> None:
    line, hint = refusal(tmp_path / "disk.img")
    assert line == "no such file"
    assert "truncate -s" in hint


def test_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "disk.img").touch()
    assert refusal(tmp_path / "disk.img")[0] == "it is empty"


def test_missing_or_empty_cd_is_not_to_be_made_by_truncate(tmp_path: Path) -> None:
    (tmp_path / "empty.iso").touch()
    for name in ("empty.iso", "missing.iso"):
        with pytest.raises(StartError) as caught:
            DiskFile(str(tmp_path / name), write=False, sector=2048)
        assert caught.value.hint == "name an ISO image"


def test_file_without_a_size_is_refused() -> None:
    assert refusal("/proc/self/mem")[0] == "it has no size"


def test_name_that_has_lines_is_refused_in_one(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"disk 'a\\x0ab': no such file") as caught:
        DiskFile("a\nb", write=False)
    assert "\n" not in (caught.value.hint or "")


@pytest.mark.parametrize("write", [False, True])
def test_directory_is_refused(tmp_path: Path, write: bool) -> None:
    assert refusal(tmp_path, write=write)[0] == "it is a directory"


@pytest.mark.parametrize("write", [False, True])
def test_fifo_is_refused_without_waiting_for_its_other_end(tmp_path: Path, write: bool) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert refusal(tmp_path / "fifo", write=write)[0] == "it is a FIFO, which has no sectors"


def test_socket_is_refused(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        assert refusal(tmp_path / "socket")[0] == "it is a socket, which has no sectors"


def test_character_device_is_refused() -> None:
    assert refusal("/dev/zero")[0] == "it is a character device, which has no sectors"


def test_pipe_that_is_named_by_its_descriptor_is_refused() -> None:
    reading, writing = os.pipe()
    try:
        assert refusal(f"/dev/fd/{reading}")[0] == "it is a FIFO, which has no sectors"
    finally:
        os.close(reading)
        os.close(writing)


def test_path_with_a_nul_is_refused() -> None:
    assert refusal("disk\0.img")[0] == "cannot use disk 'disk\\x00.img': it is no path"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")
@pytest.mark.parametrize(
    ("mode", "write", "hint"), [(0o000, False, "make the file readable"), (0o400, True, "leave out 'write'")]
)
def test_file_without_permission_is_refused(image: Path, mode: int, write: bool, hint: str) -> None:
    image.chmod(mode)
    line, told = refusal(image, write=write)
    assert line == "permission denied"
    assert told.startswith(hint)


def test_failed_opening_leaves_no_descriptor(tmp_path: Path) -> None:
    (tmp_path / "disk.img").touch()
    before = os.listdir("/proc/self/fd")
    refusal(tmp_path / "disk.img")
    assert os.listdir("/proc/self/fd") == before


# --- What is read ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("offset", "size"), [(0, 512), (512, 1024), (4095, 1), (0, 4096), (100, 3)])
def test_bytes_are_those_of_the_file(file: DiskFile, offset: int, size: int) -> None:
    assert file.read(offset, size) == DATA[offset : offset + size]


def test_bytes_that_were_just_read_are_read_without_waiting(file: DiskFile) -> None:
    expected = file.read(512, 512)
    found = file.read_now(512, 512)
    if found is None:
        pytest.skip("this file system cannot say what it has in memory")
    assert found == expected


@pytest.mark.parametrize("link", [True, False], ids=["link", "descriptor"])
def test_file_may_be_named_by_a_link_or_a_descriptor(image: Path, link: bool) -> None:
    descriptor = os.open(image, os.O_RDONLY)
    path = str(image.parent / "link") if link else f"/dev/fd/{descriptor}"
    if link:
        os.symlink(image, path)
    file = DiskFile(path, write=False)
    os.close(descriptor)
    assert file.read(0, 512) == DATA[:512]
    file.close()


@pytest.mark.parametrize(("sector", "size"), [(512, 1024), (2048, 2048)])
def test_partial_last_sector_has_zeros_behind_it_and_is_told(image: Path, sector: int, size: int) -> None:
    os.truncate(image, 700)
    file = DiskFile(str(image), write=False, sector=sector)
    assert file.size == size
    assert file.read(512, 512) == DATA[512:700] + bytes(324)
    assert file.read_now(512, 512) in (None, DATA[512:700] + bytes(324))
    assert file.oddity == f"its last sector has {700 % sector} bytes"
    file.close()


def test_whole_sectors_are_nothing_odd(file: DiskFile) -> None:
    assert file.oddity == ""


def test_write_to_a_partial_last_sector_completes_it(image: Path) -> None:
    os.truncate(image, 700)
    file = DiskFile(str(image), write=True)
    file.write(512, b"x" * 512)
    assert file.read(512, 512) == b"x" * 512
    file.close()
    assert image.read_bytes() == DATA[:512] + b"x" * 512


def test_file_that_grows_has_no_more_bytes_for_the_guest(image: Path) -> None:
    os.truncate(image, 700)
    file = DiskFile(str(image), write=False)
    with image.open("ab") as other:
        other.write(b"new" * 1000)
    assert file.size == 1024
    assert file.read(512, 512) == DATA[512:700] + bytes(324)
    file.close()


def test_file_that_shrinks_reads_as_zeros_and_is_told(file: DiskFile, image: Path) -> None:
    os.truncate(image, 600)
    assert file.read_now(512, 1024) is None
    assert file.read(512, 1024) == DATA[512:600] + bytes(936)
    assert file.oddity == "it became shorter during the run, and zeros were read instead"
    assert file.size == len(DATA)


def test_hole_of_a_sparse_file_of_10_tb_reads_as_zeros(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    path.touch()
    size = 10 * 10**12 // 512 * 512
    try:
        os.truncate(path, size)
    except OSError as error:
        pytest.skip(f"this file system has no files of 10 TB: {error}")
    file = DiskFile(str(path), write=True)
    assert file.size == size
    file.write(size - 512, b"z" * 512)
    assert file.read(size - 1024, 1024) == bytes(512) + b"z" * 512
    file.flush()
    file.close()
    assert path.stat().st_blocks * 512 < 1 << 20


def test_write_and_flush_reach_the_file(image: Path) -> None:
    file = DiskFile(str(image), write=True)
    file.write(1024, b"y" * 512)
    file.flush()
    assert image.read_bytes() == DATA[:1024] + b"y" * 512 + DATA[1536:]
    file.close()
    file.close()


# --- Who else uses it --------------------------------------------------------------------------------------


def test_readers_share_a_file(file: DiskFile, image: Path) -> None:
    DiskFile(str(image), write=False).close()


def test_second_writer_is_refused(image: Path) -> None:
    first = DiskFile(str(image), write=True)
    assert "writes to it" in refusal(image, write=True)[0]
    first.close()
    DiskFile(str(image), write=True).close()


def test_reader_of_what_somebody_writes_is_refused(image: Path) -> None:
    first = DiskFile(str(image), write=True)
    assert "writes to it" in refusal(image)[0]
    first.close()


def test_writer_of_what_somebody_reads_is_refused(file: DiskFile, image: Path) -> None:
    assert "relies on it not to change" in refusal(image, write=True)[0]


def test_file_that_another_program_has_locked_as_a_whole_is_refused(image: Path) -> None:
    with image.open("r+b") as other:
        lock = struct.pack("@hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0)
        fcntl.fcntl(other, fcntl.F_OFD_SETLK, lock)
        assert refusal(image)[0] == "another program has locked it"


@pytest.mark.parametrize(("write", "bytes_locked"), [(True, {100, 101, 201, 203}), (False, {100, 201, 203})])
def test_locks_are_on_the_bytes_that_qemu_looks_at(image: Path, write: bool, bytes_locked: set[int]) -> None:
    file = DiskFile(str(image), write=write)
    found = set()
    with image.open("r+b") as other:
        for byte in range(300):
            asked = struct.pack("@hhqqi4x", fcntl.F_WRLCK, 0, byte, 1, 0)
            if struct.unpack("@hhqqi4x", fcntl.fcntl(other, fcntl.F_OFD_GETLK, asked))[0] != fcntl.F_UNLCK:
                found.add(byte)
    file.close()
    assert found == bytes_locked
