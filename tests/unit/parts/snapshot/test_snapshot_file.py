"""Snapshot files: what is written is read, and nothing else is."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from kvmbox.base import layout
from kvmbox.base.errors import SnapshotFileError
from kvmbox.base.memory import GuestMemory
from kvmbox.host.files.sparse_memory import BLOCK
from kvmbox.parts.snapshot import ram
from kvmbox.parts.snapshot.description import RUNS
from kvmbox.parts.snapshot.file import SnapshotFile
from kvmbox.parts.snapshot.file_layout import HEADER_SIZE, RUN, decode_runs
from tests.support.machine_files import DESCRIPTION, MEMORY_SIZE, SECTIONS, use, write

MUTATIONS = 1500


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(tmp_path / "a.snap")


def test_file_has_what_was_written(path: Path) -> None:
    with SnapshotFile(str(path)) as file:
        assert file.description == DESCRIPTION
        assert {name: file.section(name) for name in SECTIONS} == SECTIONS
        memory = file.memory()
        assert memory.read(0x1000, 5) == b"hello"
        assert memory.read(MEMORY_SIZE - 5, 5) == b"world"
        assert memory.read(0x2000, 0x1000) == bytes(0x1000)
        memory.close()


def test_memory_of_a_machine_is_its_own(path: Path) -> None:
    with SnapshotFile(str(path)) as file:
        one, other = file.memory(), file.memory()
        one.write(0x1000, b"changed")
        assert other.read(0x1000, 5) == b"hello"
        one.clear()
        assert one.read(0x1000, 5) == bytes(5)
        assert one.read(MEMORY_SIZE - 5, 5) == bytes(5)
        one.close()
        other.close()
    use(path)


def test_memory_that_came_from_a_file_is_written_again(path: Path, tmp_path: Path) -> None:
    with SnapshotFile(str(path)) as file:
        memory = file.memory()
        memory.write(0x20_0000, b"new")
        other = write(tmp_path / "b.snap", memory=memory)
        memory.close()
    with SnapshotFile(str(other)) as file:
        found = file.memory()
        assert found.read(0x1000, 5) == b"hello"
        assert found.read(0x20_0000, 3) == b"new"
        assert found.read(MEMORY_SIZE - 5, 5) == b"world"
        found.close()


def test_file_that_becomes_shorter_before_it_is_read_is_refused(path: Path) -> None:
    with SnapshotFile(str(path)) as file:
        runs = file.section(RUNS)
        first, count, _ = RUN.unpack(runs[-RUN.size :])
        os.truncate(path, layout.PAGE_SIZE + (first + count) * BLOCK - 1)
        memory = GuestMemory(MEMORY_SIZE)
        with pytest.raises(SnapshotFileError, match="it has become shorter"):
            ram.read(memory, decode_runs(runs, MEMORY_SIZE), file.descriptor)
        memory.close()


def test_zeros_take_no_room(path: Path) -> None:
    found = os.stat(path)
    assert found.st_size > MEMORY_SIZE
    assert found.st_blocks * 512 < MEMORY_SIZE // 4


def test_copy_without_holes_is_good(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.write_bytes(path.read_bytes())
    use(copy)


def test_data_in_a_hole_is_refused(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(layout.PAGE_SIZE + 16 * BLOCK + 7)
        file.write(b"x")
    with pytest.raises(SnapshotFileError, match="not zero where it should be"):
        use(path)


def test_changed_memory_is_refused(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(layout.PAGE_SIZE + 0x1000)
        file.write(b"j")
    with pytest.raises(SnapshotFileError, match="checksum of guest memory at 0x0 is wrong"):
        use(path)


@pytest.mark.parametrize("name", sorted(SECTIONS))
def test_changed_section_is_refused(path: Path, name: str) -> None:
    if not SECTIONS[name]:
        return
    data = path.read_bytes()
    place = data.index(SECTIONS[name], layout.PAGE_SIZE + MEMORY_SIZE)
    with path.open("r+b") as file:
        file.seek(place)
        file.write(b"!")
    with pytest.raises(SnapshotFileError, match=f"checksum of section '{name}' is wrong"):
        use(path)


def test_every_length_that_is_too_short_is_refused(path: Path, tmp_path: Path) -> None:
    data = path.read_bytes()
    lengths = [*range(HEADER_SIZE + 1), layout.PAGE_SIZE, MEMORY_SIZE, len(data) - 1]
    for length in lengths:
        short = tmp_path / "short"
        short.write_bytes(data[:length])
        with pytest.raises(SnapshotFileError):
            use(short)


def test_longer_file_is_refused(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"\0")
    with pytest.raises(SnapshotFileError, match="it says that it has"):
        use(path)


def test_changed_bytes_raise_the_one_error(path: Path) -> None:
    """Header, sections and description, byte by byte and in bursts; memory has its own tests."""
    whole = path.read_bytes()
    start = layout.PAGE_SIZE + MEMORY_SIZE
    numbers = random.Random(39)
    refused = 0
    with path.open("r+b", buffering=0) as file:
        for _ in range(MUTATIONS):
            changed: dict[int, int] = {}
            for _ in range(numbers.choice((1, 1, 2, 8))):
                place = numbers.choice((numbers.randrange(HEADER_SIZE), numbers.randrange(start, len(whole))))
                flipped = whole[place] ^ 1 << numbers.randrange(8)
                changed[place] = numbers.choice((0, 0xFF, flipped, 0x22, 0x7B))
            if all(whole[place] == byte for place, byte in changed.items()):
                continue
            for place, byte in changed.items():
                os.pwrite(file.fileno(), bytes((byte,)), place)
            with pytest.raises(SnapshotFileError, match=r"\Acannot use snapshot [^\n]*\Z"):
                use(path)
            refused += 1
            for place in changed:
                os.pwrite(file.fileno(), whole[place : place + 1], place)
    assert refused > MUTATIONS * 9 // 10
    use(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "it is no snapshot"), (b"\x7fELF" * 100, "it is no snapshot"), (b"kvmbox\x1aS", "a header of 8")],
)
def test_other_files_are_named_for_what_they_are(tmp_path: Path, content: bytes, words: str) -> None:
    other = tmp_path / "other"
    other.write_bytes(content)
    with pytest.raises(SnapshotFileError, match=words) as caught:
        use(other)
    assert caught.value.hint is not None


def test_no_file_and_no_regular_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SnapshotFileError, match="No such file"):
        use(tmp_path / "none")
    with pytest.raises(SnapshotFileError, match="a directory"):
        use(tmp_path)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(SnapshotFileError, match="FIFO"):
        use(tmp_path / "fifo")
    with pytest.raises(SnapshotFileError, match="NUL"):
        SnapshotFile("a\0b")


def test_refused_file_is_closed(tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd")
    other = tmp_path / "other"
    other.write_bytes(b"kvmbox\x1aS" + bytes(100))
    with pytest.raises(SnapshotFileError):
        SnapshotFile(str(other))
    assert os.listdir("/proc/self/fd") == before


def test_full_memory_is_runs_of_bounded_length(tmp_path: Path) -> None:
    memory = GuestMemory(32 * layout.MIB)
    memory.fill(0, memory.size, 0xA5)
    path = write(tmp_path / "full.snap", memory=memory)
    memory.close()
    with SnapshotFile(str(path)) as file:
        assert [RUN.unpack(file.section(RUNS)[at : at + 12])[:2] for at in (0, 12)] == [
            (0, 1024),
            (1024, 1024),
        ]
        found = file.memory()
        assert found.read(0, 32 * layout.MIB) == b"\xa5" * (32 * layout.MIB)
        found.close()
