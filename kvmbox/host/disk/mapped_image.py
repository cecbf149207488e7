"""A disk whose sectors are somewhere in a file: an image of a format that has a map (qcow2).

A process of its own reads the map (`devices.qcow2.model`). It is asked where sectors are, and is shown the
metadata that it wants to see. The sectors are read here, so that process never sees one. It can name nothing
but places in this file, and which of them the guest sees is for the image to say anyway.

The places of clusters are kept, as nobody changes the file: it is locked. `read_now` drops a question that
needs metadata which the host does not have in memory. `read` asks it again.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from typing import Final

from kvmbox.base.errors import StartError
from kvmbox.devices.qcow2 import model as qcow2
from kvmbox.host.disk.image_file import DiskFile, cannot_use

Send = Callable[[bytes], None]
"""Gives host input to the process. What it puts out is heard meanwhile. Raises DeviceProcessError."""

_Read = Callable[[int, int], bytes | None]

_SIZE_AT: Final = 24
_MOST_KEPT: Final = 16384
"""Of how many clusters the place is kept."""
_CLUSTERS_ASKED: Final = 128


class _Refused(Exception):
    """What the process has against the image, or against its part."""


class MappedFile:
    """A `DiskSource`. What the image does not have is what `backing` has there, or zeros."""

    def __init__(self, file: DiskFile, backing: DiskFile | None = None) -> None:
        """Both files are its to close. Raises OSError.

        The size of the disk is needed before there is a process. It is 8 bytes at a fixed place, and the
        process has to confirm it.
        """
        self.file = file
        self.backing = backing
        self.size = int.from_bytes(file.read(_SIZE_AT, 8), "big")
        """Bytes of the disk."""
        self._send: Send | None = None
        self._answer = b""
        self._dialogue = threading.Lock()
        self._cluster = 0
        self._kept: dict[int, int] = {}
        self._problem = ""

    @property
    def files(self) -> list[DiskFile]:
        """The files of the image."""
        return [self.file] if self.backing is None else [self.file, self.backing]

    @property
    def oddity(self) -> str:
        """What is odd about the image, in words."""
        return self._problem

    def hear(self, data: bytes) -> None:
        """Host output of the process. Only the end of it is an answer."""
        self._answer = data

    def connect(self, send: Send) -> None:
        """Have the process open the image: before the first read. Raises StartError, DeviceProcessError."""
        self._send = send
        path = self.file.path
        try:
            answer = self._question(qcow2.OPEN_FRAME.pack(qcow2.OPEN, self.file.size), self.file.read)
            if answer is None or answer[0] != qcow2.OPENED or len(answer) != qcow2.OPENED_FRAME.size:
                raise _wrong()
            _, size, bits, is_backed = qcow2.OPENED_FRAME.unpack(answer)
            if size != self.size or not qcow2.LEAST_BITS <= bits <= qcow2.MOST_BITS:
                raise _wrong()
            self._cluster = 1 << bits
            # An image that has compressed clusters has them from its beginning.
            self._place_of(0, self.file.read)
        except _Refused as refusal:
            hint = f"convert it: qemu-img convert -O raw {path} disk.img"
            raise cannot_use(path, str(refusal), hint) from refusal
        except OSError as error:
            raise _unreadable(path, error) from error
        if is_backed and self.backing is None:
            raise cannot_use(
                path,
                "it builds on another file",
                f"'qemu-img info {path}' names that file: add backing=FILE if it is the right one",
            )

    def read(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset`. Waits for them. Raises OSError."""
        data = self._read(offset, size, now=False)
        assert data is not None
        return data

    def read_now(self, offset: int, size: int) -> bytes | None:
        """The same if nothing has to be waited for, or else None. Raises OSError."""
        return self._read(offset, size, now=True)

    def write(self, offset: int, data: bytes) -> None:
        """Refused: the map is not changed."""
        raise OSError(errno.EROFS, "an image with a map is read-only")

    def flush(self) -> None:
        """Nothing was written."""

    def close(self) -> None:
        """Close the files. Idempotent."""
        for file in self.files:
            file.close()

    def _read(self, offset: int, size: int, *, now: bool) -> bytes | None:
        parts = []
        read: _Read = self.file.read_now if now else self.file.read
        while size:
            number, skip = divmod(offset, self._cluster)
            try:
                place = self._place_of(number, read)
            except _Refused as refusal:
                self._problem = self._problem or str(refusal)
                raise OSError(errno.EIO, str(refusal)) from refusal
            if place is None:
                return None
            length = min(self._cluster - skip, size)
            if place < qcow2.UNALLOCATED:
                part = read(place + skip, length)
            elif place == qcow2.UNALLOCATED and self.backing is not None:
                part = (self.backing.read_now if now else self.backing.read)(offset, length)
            else:
                part = bytes(length)
            if part is None:
                return None
            parts.append(part)
            offset += length
            size -= length
        return b"".join(parts)

    def _place_of(self, number: int, read: _Read) -> int | None:
        """Where cluster `number` is; None if `read` does not have what the process wants. Raises _Refused."""
        place = self._kept.get(number)
        if place is not None:
            return place
        # Who may not wait for metadata may not wait for somebody who does, either.
        if not self._dialogue.acquire(blocking=read == self.file.read):
            return None
        try:
            start = number * self._cluster
            wanted = min(_CLUSTERS_ASKED * self._cluster, self.size - start)
            answer = self._question(qcow2.MAP_FRAME.pack(qcow2.MAP, start, wanted), read)
            if answer is None:
                return None
            if len(self._kept) >= _MOST_KEPT:
                self._kept.clear()
            self._keep(number, wanted, answer)
            return self._kept[number]
        finally:
            self._dialogue.release()

    def _keep(self, number: int, wanted: int, answer: bytes) -> None:
        """Note the places of the clusters from `number` on. Raises _Refused for what is no answer."""
        ranges, rest = divmod(len(answer) - 1, qcow2.RANGE.size)
        if answer[0] != qcow2.MAPPED or rest or not ranges:
            raise _wrong()
        for first, size in qcow2.RANGE.iter_unpack(answer[1:]):
            # Only the end of the disk may be within a cluster.
            if not 0 < size <= wanted or (size % self._cluster and size != wanted):
                raise _wrong()
            wanted -= size
            for skip in range(0, size, self._cluster):
                self._kept[number] = first + skip if first < qcow2.UNALLOCATED else first
                number += 1

    def _ask(self, frame: bytes) -> bytes:
        assert self._send is not None
        self._answer = b""
        self._send(frame)
        return self._answer

    def _question(self, frame: bytes, read: _Read) -> bytes | None:
        """The answer; None if `read` does not have what the process wants to see. Raises _Refused."""
        answer = self._ask(frame)
        for _ in range(qcow2.MOST_WANTS):
            if answer[:1] != bytes((qcow2.WANT,)):
                break
            if len(answer) != qcow2.WANT_FRAME.size:
                raise _wrong()
            _, place, size = qcow2.WANT_FRAME.unpack(answer)
            if size > qcow2.MOST_WANTED:
                raise _wrong()
            data = read(place, size)
            if data is None:
                return None
            answer = self._ask(bytes((qcow2.DATA,)) + data)
        if not answer:
            raise _wrong()
        if answer[0] == qcow2.REFUSED:
            text = answer[1 : 1 + qcow2.MOST_WORDS].decode("ascii", "replace")
            raise _Refused("".join(one if one.isprintable() else "?" for one in text))
        return answer


def _wrong() -> _Refused:
    return _Refused("the process that reads its map gave no answer to what it was asked")


def _unreadable(path: str, error: OSError) -> StartError:
    return cannot_use(path, error.strerror or str(error), "look whether the host can read the file")
