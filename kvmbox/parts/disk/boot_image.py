"""The image that a guest boots from as a disk, or as a CD: of a large one, the file; of others, its bytes."""

from __future__ import annotations

import errno

from kvmbox.boot.image import GuestImage
from kvmbox.host.disk.stores import (
    CD_SECTOR,
    OVERLAY,
    RAW,
    READ_ONLY,
    SECTOR,
    DiskRequest,
    DiskStore,
    open_disk,
)


class ImageSource:
    """The bytes of an image, with zeros up to the end of the last sector. See
    `host.disk.stores.DiskSource`.
    """

    oddity = ""

    def __init__(self, data: bytes, sector: int) -> None:
        self.size = -(-len(data) // sector) * sector
        self._data = data

    def read(self, offset: int, size: int) -> bytes:
        """See DiskSource."""
        return self._data[offset : offset + size].ljust(size, b"\0")

    def read_now(self, offset: int, size: int) -> bytes | None:
        """See DiskSource."""
        return self.read(offset, size)

    def write(self, offset: int, data: bytes) -> None:
        """See DiskSource. What is written is in the overlay."""
        raise OSError(errno.EROFS, "the image is not written")

    def flush(self) -> None:
        """See DiskSource."""

    def close(self) -> None:
        """See DiskSource."""


class PaddedStore:
    """A disk as the BIOS shows it, which may be larger: loaders read a fixed number of sectors."""

    def __init__(self, store: DiskStore) -> None:
        self._store = store

    def read(self, offset: int, size: int) -> bytes:
        """See `host.disk.transfers.Store`. Behind the end there are zeros."""
        there = max(0, min(size, self._store.size - offset))
        data = self._store.read(offset, there) if there else b""
        return data.ljust(size, b"\0")

    def write(self, offset: int, data: bytes) -> None:
        """See Store. OSError behind the end."""
        self._store.write(offset, data)


def image_disk(image: GuestImage, *, is_cd: bool, overlay_bytes: int) -> tuple[DiskRequest, DiskStore]:
    """The image as a drive, and what would have asked for it. Raises StartError."""
    mode = READ_ONLY if is_cd else OVERLAY
    if image.file_size:
        request = DiskRequest(image.path, mode, RAW, is_cd=is_cd)
        return request, open_disk(request, overlay_bytes=overlay_bytes)
    request = DiskRequest(image.path, mode, is_cd=is_cd)
    source = ImageSource(image.data, CD_SECTOR if is_cd else SECTOR)
    return request, DiskStore(source, request, overlay_bytes=overlay_bytes)
