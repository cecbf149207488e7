"""The disks of a guest as stores of the host: what `--disk` and `--cdrom` ask for, opened.

The mode says where the guest's writes go: to the file (`write`), to an overlay in memory, which ends with the
run and leaves the file as it is (`overlay`), or nowhere (`readonly`). Only a file can be flushed.
"""

from __future__ import annotations

import errno
import os
from typing import Final, Protocol

from kvmbox.errors import StartError
from kvmbox.host.disk_file import DiskFile, cannot_use
from kvmbox.host.disk_overlay import Overlay
from kvmbox.lean import Value

WRITE: Final = "write"
OVERLAY: Final = "overlay"
READ_ONLY: Final = "readonly"

RAW: Final = "raw"
QCOW2: Final = "qcow2"
VHD: Final = "vhd"

SECTOR: Final = 512
CD_SECTOR: Final = 2048

_PIECE: Final = 1 << 20
_QCOW2_MAGIC: Final = b"QFI\xfb"


class DiskRequest(Value):
    """A disk that is asked for.

    `mode` is WRITE, OVERLAY or READ_ONLY. `format` is RAW, QCOW2, VHD, or empty for a guess. `on`
    is "ide" or "virtio". kvmbox chooses a serial number if `serial` is empty. `backing` is the file that a
    qcow2 image builds on. A CD has sectors of 2048 bytes, and is read-only.
    """

    path: str
    mode: str = OVERLAY
    format: str = ""
    on: str = "ide"
    serial: str = ""
    backing: str = ""
    is_cd: bool = False


class DiskSource(Protocol):
    """Where the bytes of a disk come from, before anything is written. `size` is in bytes.

    `oddity` says in words what is odd about it, or is empty. See `DiskFile`.
    """

    size: int
    oddity: str

    def read(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset`. Waits for them. Raises OSError."""
        ...

    def read_now(self, offset: int, size: int) -> bytes | None:
        """The same if nothing has to be waited for, or else None. Raises OSError."""
        ...

    def write(self, offset: int, data: bytes) -> None:
        """Store bytes from `offset`. Raises OSError."""
        ...

    def flush(self) -> None:
        """Have the host store what was written where a loss of power leaves it. Raises OSError."""
        ...

    def close(self) -> None:
        """Close it. Idempotent."""
        ...


class DiskStore:
    """An open disk: a `Store` of `host.transfers`, and more.

    `size` is in bytes, a multiple of a sector. `writable` says whether the guest may write, and `writes_now`
    that `write` never waits.
    """

    def __init__(self, source: DiskSource, request: DiskRequest, *, overlay_bytes: int) -> None:
        """An overlay holds at most `overlay_bytes`."""
        self.size = source.size
        self.writable = request.mode != READ_ONLY
        self.writes_now = request.mode != WRITE
        self._source = source
        self._overlay = Overlay(overlay_bytes if request.mode == OVERLAY else 0)
        self._name = os.path.basename(request.path)
        self._sector = CD_SECTOR if request.is_cd else SECTOR
        self._read = 0
        self._written = 0
        self._refused = 0

    def read(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset`. Waits for them. Raises OSError."""
        self._check(offset, size)
        pieces = self._overlay.pieces(offset, size)
        data = _joined(pieces, size) or _merged(self._source.read(offset, size), pieces)
        self._read += size
        return data

    def read_now(self, offset: int, size: int) -> bytes | None:
        """The same if nothing has to be waited for, or else None. Raises OSError."""
        self._check(offset, size)
        pieces = self._overlay.pieces(offset, size)
        data = _joined(pieces, size)
        if data is None:
            below = self._source.read_now(offset, size)
            if below is None:
                return None
            data = _merged(below, pieces)
        self._read += size
        return data

    def write(self, offset: int, data: bytes) -> None:
        """Store bytes from `offset`. OSError: with ENOSPC where the overlay or the host has no more room."""
        self._check(offset, len(data))
        if not self.writable:
            raise OSError(errno.EROFS, "the disk is read-only")
        try:
            if self.writes_now:
                self._overlay.write(offset, data)
            else:
                self._source.write(offset, data)
        except OSError:
            self._refused += 1
            raise
        self._written += len(data)

    def flush(self) -> None:
        """Have the host store what was written where a loss of power leaves it. Raises OSError."""
        if not self.writes_now:
            self._source.flush()

    @property
    def changed(self) -> bool:
        """Whether the guest has written to it, or has tried to."""
        return bool(self._written or self._refused)

    def checksum(self) -> str:
        """The SHA-256 of the disk without its overlay. Reads all of it. Raises OSError."""
        import hashlib

        found = hashlib.sha256()
        for offset in range(0, self.size, _PIECE):
            found.update(self._source.read(offset, min(_PIECE, self.size - offset)))
        return found.hexdigest()

    def overlay(self) -> bytes:
        """What was written to the overlay, for `restore_overlay`."""
        return self._overlay.state()

    def restore_overlay(self, state: bytes) -> None:
        """Go on with what an overlay of this disk had. ValueError for anything else."""
        self._overlay.restore(state, self.size)

    def summary(self) -> str:
        """What the run did to the file, in one line without its end; empty if it did nothing."""
        if not self._read and not self._written and not self._refused:
            return ""
        words = [f"{self._name}: {_sectors(self._read, self._sector)} read"]
        if self._written:
            words.append(
                f"{self._written // self._sector} written to {'memory' if self.writes_now else 'the file'}"
            )
        if self._refused:
            words.append(f"{self._refused} write{'s' * (self._refused != 1)} failed")
        line = ", ".join(words)
        if self._written and self.writes_now:
            line += ": the file is as it was"
        return f"{line} ({self._source.oddity})" if self._source.oddity else line

    def close(self) -> None:
        """Close the file, which unlocks it. Idempotent."""
        self._source.close()

    def _check(self, offset: int, size: int) -> None:
        if offset < 0 or size < 0 or offset + size > self.size:
            raise OSError(errno.EINVAL, "there are no such bytes on the disk")


class RunDisk(Protocol):
    """A disk of the guest, as a snapshot has it."""

    @property
    def name(self) -> str:
        """Its name among the resources of the host."""
        ...

    @property
    def request(self) -> DiskRequest:
        """What was asked for."""
        ...

    @property
    def store(self) -> DiskStore:
        """Its bytes."""
        ...

    @property
    def is_image(self) -> bool:
        """Whether it is what the guest was booted from."""
        ...

    @property
    def is_in_memory(self) -> bool:
        """Whether all of its bytes are in the VMM, and in a snapshot."""
        ...


def open_disk(request: DiskRequest, *, overlay_bytes: int) -> DiskStore:
    """Open and lock a disk. Its overlay holds at most `overlay_bytes`. Raises StartError."""
    file = DiskFile(request.path, write=request.mode == WRITE, sector=CD_SECTOR if request.is_cd else SECTOR)
    try:
        _check_format(request, file)
    except BaseException:
        file.close()
        raise
    return DiskStore(file, request, overlay_bytes=overlay_bytes)


def _check_format(request: DiskRequest, file: DiskFile) -> None:
    """StartError for a format whose sectors are not those of the file."""
    try:
        looks_like_qcow2 = file.read(0, len(_QCOW2_MAGIC)) == _QCOW2_MAGIC
    except OSError as error:
        raise _unreadable(request.path, error) from error
    if request.format == RAW or not (request.format or looks_like_qcow2):
        return
    kind = request.format or QCOW2
    raise cannot_use(
        request.path,
        f"kvmbox has no disks of format {kind}" if request.format else "it is a qcow2 image",
        f"convert it: qemu-img convert -O raw {request.path} disk.img",
    )


def _unreadable(path: str, error: OSError) -> StartError:
    return cannot_use(path, error.strerror or str(error), "look whether the host can read the file")


def _joined(pieces: list[tuple[int, bytes]], size: int) -> bytes | None:
    """All bytes of a range, if all of it was written."""
    if sum(len(piece) for _, piece in pieces) < size or not size:
        return None
    return b"".join(piece for _, piece in pieces)


def _merged(below: bytes, pieces: list[tuple[int, bytes]]) -> bytes:
    """The bytes of the file with what was written over them."""
    if not pieces:
        return below
    data = bytearray(below)
    for position, piece in pieces:
        data[position : position + len(piece)] = piece
    return bytes(data)


def _sectors(size: int, sector: int) -> str:
    count = size // sector
    return f"{count} sector{'s' * (count != 1)}"
