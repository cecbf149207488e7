"""Snapshot files, read and written."""

from __future__ import annotations

import binascii
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Self

from kvmbox.base.errors import SnapshotFileError
from kvmbox.base.layout import PAGE_SIZE
from kvmbox.base.memory import GuestMemory
from kvmbox.base.regular_file import open_regular_file
from kvmbox.host.disk.transfers import FileStore
from kvmbox.host.files.sparse_memory import BLOCK, put
from kvmbox.parts.snapshot import file_layout, ram
from kvmbox.parts.snapshot.description import RUNS, Description, decode, encode
from kvmbox.parts.snapshot.frame_buffer_section import give_video, take_video


def write_snapshot(
    descriptor: int, description: Description, sections: Mapping[str, bytes], memory: GuestMemory
) -> int:
    """Write a snapshot to an empty file; returns how many bytes of guest memory it has that are not zero.

    The header comes last: what was not written to its end is no snapshot. Nothing waits for the disk. Raises
    OSError.
    """
    if sum(map(len, sections.values())) > file_layout.MAX_SECTION_BYTES // 2:
        raise OSError(0, "the files that the machine was booted from are too long")
    os.ftruncate(descriptor, 0)
    put(descriptor, PAGE_SIZE - 1, b"\0")
    runs = ram.write(memory, lambda place, data: put(descriptor, place, data))
    place = PAGE_SIZE + memory.size
    table: dict[str, file_layout.Section] = {}
    blobs = {RUNS: b"".join(file_layout.RUN.pack(run.first, run.count, run.checksum) for run in runs)}
    blobs |= take_video(memory) | dict(sections)
    for name, data in blobs.items():
        put(descriptor, place, data)
        table[name] = file_layout.Section(place, len(data), binascii.crc32(data))
        place += len(data)
    text = encode(description, table)
    if len(text) > file_layout.MAX_DESCRIPTION:
        raise OSError(0, f"its description would have {len(text)} bytes")
    put(descriptor, place, text)
    header = file_layout.Header(place + len(text), memory.size, place, len(text), binascii.crc32(text))
    put(descriptor, 0, header.encode(binascii.crc32(header.fields())))
    return sum(run.count for run in runs) * BLOCK


class SnapshotFile:
    """An open snapshot, whose header and description are good. A context manager.

    All methods raise SnapshotFileError, which names the file.
    """

    def __init__(self, path: str) -> None:
        """Open it, and check everything but the sections and guest memory."""
        self.path = path
        self.descriptor = -1
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        with self._named():
            self.descriptor = open_regular_file(self.path)
            data = self._read(0, file_layout.HEADER_SIZE)
            size = os.fstat(self.descriptor).st_size
            checksum = binascii.crc32(data[: file_layout.HEADER_SIZE - file_layout.CHECKSUM_SIZE])
            self.header = file_layout.decode_header(data, size, checksum)
            text = self._read(self.header.description_at, self.header.description_size)
            if binascii.crc32(text) != self.header.description_checksum:
                raise file_layout.damaged("the checksum of its description is wrong")
            self.description, self._sections = decode(text, self.header)

    @property
    def sections(self) -> tuple[str, ...]:
        """The names of all sections."""
        return tuple(self._sections)

    def section(self, name: str) -> bytes:
        """The bytes of a section that the description refers to."""
        section = self._sections[name]
        with self._named():
            data = self._read(section.offset, section.size)
            if binascii.crc32(data) != section.checksum:
                raise file_layout.damaged(f"the checksum of section '{name}' is wrong")
            return data

    def memory(self) -> GuestMemory:
        """Guest memory as it was written. It is the caller's: nothing of the file is used any more."""
        runs = self.section(RUNS)
        memory = GuestMemory(self.header.memory_size)
        try:
            with self._named():
                ram.read(memory, file_layout.decode_runs(runs, memory.size), self.descriptor)
                give_video(self.sections, self.section, memory)
        except BaseException:
            memory.close()
            raise
        return memory

    def refuse(self, why: str, hint: str | None = None) -> SnapshotFileError:
        """The error of this file, for the caller to raise."""
        shown = "".join(letter if letter.isprintable() else "?" for letter in self.path)
        return SnapshotFileError(f"cannot use snapshot '{shown}': {why}", hint=hint)

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Errors of the file's content, and of reading it, become those of this file."""
        try:
            yield
        except SnapshotFileError as error:
            raise self.refuse(str(error), error.hint) from error
        except OSError as error:
            raise self.refuse(error.strerror or str(error)) from error
        except ValueError as error:  # a NUL in the path; nothing else here raises it
            raise self.refuse("its path holds a NUL or cannot be encoded") from error

    def _read(self, place: int, size: int) -> bytes:
        """What the file has at `place`: `size` bytes, or fewer at its end."""
        return FileStore(self.descriptor).read(place, size)

    def close(self) -> None:
        """Close the file. Idempotent."""
        if self.descriptor >= 0:
            descriptor, self.descriptor = self.descriptor, -1
            os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()
