"""The disks of a guest as stores of the host: what `--disk` and `--cdrom` ask for, opened.

The mode says where the guest's writes go: to the file (`write`), to an overlay in memory, which ends with the
run and leaves the file as it is (`overlay`), or nowhere (`readonly`). Only a file can be flushed.
"""

from __future__ import annotations

import errno
import os
import struct
from typing import Final, Protocol

from kvmbox.base.value_classes import Value
from kvmbox.host.disk.image_file import DiskFile, cannot_use
from kvmbox.host.disk.mapped_image import MappedFile
from kvmbox.host.disk.overlay import Overlay

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
_MOST_BYTES: Final = 1 << 56
# Virtual Hard Disk Image Format Specification 1.0, "Hard Disk Footer Format": cookie, current size, type.
_VHD_FOOTER: Final = struct.Struct(">8s40xQ4xI448x")
_VHD_COOKIE: Final = b"conectix"
_VHD_FIXED: Final = 2


class DiskRequest(Value):
    """A disk that is asked for.

    `mode` is WRITE, OVERLAY or READ_ONLY. `format` is RAW, QCOW2, VHD, or empty for a guess. `on`
    is "ide" or "virtio". kvmbox chooses a serial number if `serial` is empty. `backing` is the file
    that a qcow2 image builds on. A CD has sectors of 2048 bytes, and is read-only. The guest boots from a
    disk that `boots`, or from such a CD.
    """

    path: str
    mode: str = OVERLAY
    format: str = ""
    on: str = "ide"
    serial: str = ""
    backing: str = ""
    is_cd: bool = False
    boots: bool = False


class DiskSource(Protocol):
    """Where the bytes of a disk come from, before anything is written."""

    @property
    def size(self) -> int:
        """Bytes of the disk."""
        ...

    @property
    def oddity(self) -> str:
        """What is odd about it, in words, or empty."""
        ...

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
    """An open disk: a `Store` of `host.disk.transfers`, and more.

    `size` is in bytes, a multiple of a sector. `writable` says whether the guest may write, and `writes_now`
    that `write` never waits. `mapped` is an image of which a process has to read the map. That process is to
    be connected before the first read.
    """

    def __init__(self, source: DiskSource, request: DiskRequest, *, overlay_bytes: int) -> None:
        """An overlay holds at most `overlay_bytes`."""
        self.size = source.size
        self.writable = request.mode != READ_ONLY
        self.writes_now = request.mode != WRITE
        self.mapped = source if isinstance(source, MappedFile) else None
        self._source = source
        self._overlay = Overlay(overlay_bytes if request.mode == OVERLAY else 0)
        self._name = os.path.basename(request.path)
        self._sector = CD_SECTOR if request.is_cd else SECTOR
        self._read = 0
        self._written = 0
        self._refused = dict[str, int]()  # how many writes failed, and why

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

    def file_now(self, offset: int, size: int) -> int:
        """The descriptor of the file that has these bytes of the disk, at the same offset, or -1 if they are
        not all there. Who reads them, with RWF_NOWAIT, tells so by `was_read`.
        """
        if not isinstance(self._source, DiskFile) or self._overlay.has_any(offset, size):
            return -1
        return self._source.descriptor_now(offset + size)

    def was_read(self, size: int) -> None:
        """So many bytes were read from the file."""
        self._read += size

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
        except OSError as error:
            why = str(error.strerror)
            self._refused[why] = self._refused.get(why, 0) + 1
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
        """The SHA-256 of the disk without its overlay, or of the files of its image. Reads all of it. Raises
        OSError.
        """
        import hashlib

        found = hashlib.sha256()
        for source in (self._source,) if self.mapped is None else self.mapped.files:
            for offset in range(0, source.size, _PIECE):
                found.update(source.read(offset, min(_PIECE, source.size - offset)))
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
        words += [f"{n} write{'s' * (n != 1)} failed ({why})" for why, n in self._refused.items()]
        line = ", ".join(words)
        if self._written and self.writes_now:
            line += ": the file is as it was"
        return f"{line} ({self._source.oddity})" if self._source.oddity else line

    def hear(self, data: bytes) -> None:
        """What the process has put out that reads the map of the image."""
        if self.mapped is not None:
            self.mapped.hear(data)

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
    sector = CD_SECTOR if request.is_cd else SECTOR
    file = DiskFile(request.path, write=request.mode == WRITE, sector=sector)
    try:
        return DiskStore(_source_of(request, file), request, overlay_bytes=overlay_bytes)
    except OSError as error:
        file.close()
        hint = "look whether the host can read the file"
        raise cannot_use(request.path, error.strerror or str(error), hint) from error
    except BaseException:
        file.close()
        raise


def _source_of(request: DiskRequest, file: DiskFile) -> DiskSource:
    """The sectors of the image in a file. Raises StartError and OSError."""
    is_qcow2 = file.read(0, len(_QCOW2_MAGIC)) == _QCOW2_MAGIC
    kind = request.format or (QCOW2 if is_qcow2 else RAW)
    path = request.path
    if request.backing and kind != QCOW2:
        raise cannot_use(path, "it is no qcow2 image, and has no backing file", "leave out backing=")
    if kind == RAW:
        return file
    if request.mode == WRITE:
        raise cannot_use(
            path,
            f"an image of format {kind} cannot be written to",
            f"leave out 'write', or convert it: qemu-img convert -O raw {path} disk.img",
        )
    if kind == VHD:
        file.size = _vhd_size(path, file)
        return file
    if not is_qcow2:
        raise cannot_use(path, "it is no qcow2 image", "leave out format=qcow2")
    return _mapped(request, file)


def _mapped(request: DiskRequest, file: DiskFile) -> MappedFile:
    backing = DiskFile(request.backing, write=False) if request.backing else None
    try:
        if backing is not None and backing.read(0, len(_QCOW2_MAGIC)) == _QCOW2_MAGIC:
            raise cannot_use(
                request.backing,
                "a backing file can only be a raw image, and it is a qcow2 image",
                f"convert it: qemu-img convert -O raw {request.backing} disk.img",
            )
        found = MappedFile(file, backing)
        if not 0 < found.size <= _MOST_BYTES or found.size % SECTOR:
            hint = "look at it: qemu-img check"
            raise cannot_use(request.path, f"it says that its disk has {found.size} bytes", hint)
    except BaseException:
        if backing is not None:
            backing.close()
        raise
    return found


def _vhd_size(path: str, file: DiskFile) -> int:
    """Bytes of the disk in front of the footer. Raises StartError and OSError."""
    end = file.size - SECTOR
    size: int
    cookie, size, kind = _VHD_FOOTER.unpack(file.read(end, SECTOR))
    hint = f"convert it: qemu-img convert -O raw {path} disk.img"
    if cookie != _VHD_COOKIE:
        raise cannot_use(path, "it is no VHD image", "leave out format=vhd")
    if kind != _VHD_FIXED:
        raise cannot_use(path, "it is a VHD image of another kind than fixed", hint)
    if not 0 < size <= end or size % SECTOR:
        raise cannot_use(path, f"it says that its disk has {size} bytes, and has {end}", hint)
    return size


def _joined(pieces: list[tuple[int, bytes]], size: int) -> bytes | None:
    """All bytes of a range, if all of it was written."""
    if not pieces or sum(len(piece) for _, piece in pieces) < size:
        return None
    return b"".join([piece for _, piece in pieces])


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
