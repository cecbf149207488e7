"""The files of a boot, from the host or from a snapshot of a machine that was booted from them.

Each file is read once and kept, so that a snapshot can have it: a machine that starts from the snapshot boots
again as the first one would have done, whatever has become of the files.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from kvmbox.boot.image import MAX_FILE_SIZE, GuestImage, Module, read_head, read_image, read_module
from kvmbox.errors import ImageError


class HostFiles:
    """Files of the host, by path. All methods raise ImageError."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}
        """What was read."""

    def image(self, path: str) -> GuestImage:
        """See `read_image`. Of a large disk only the beginning is read."""
        head = read_head(path)
        if head is not None:
            from kvmbox.boot.disk import is_disk

            head = head if is_disk(head.data) else None
        image = head or read_image(path)
        self.kept[path] = image.data
        return image

    def module(self, path: str, arguments: str = "", *, max_size: int = MAX_FILE_SIZE) -> Module:
        """See `read_module`."""
        module = read_module(path, arguments, max_size=max_size)
        self.kept[path] = module.data
        return module


class StoredFiles(HostFiles):
    """The files that a snapshot has."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        super().__init__()
        self.kept |= files

    def image(self, path: str) -> GuestImage:
        """See HostFiles."""
        return GuestImage(path, self._find(path))

    def module(self, path: str, arguments: str = "", *, max_size: int = MAX_FILE_SIZE) -> Module:
        """See HostFiles."""
        data = self._find(path)
        if len(data) > max_size:
            raise ImageError(
                f"cannot use '{path}' of the snapshot: {len(data)} bytes, {max_size} are allowed"
            )
        return Module(os.path.basename(path), data, arguments)

    def _find(self, path: str) -> bytes:
        if path not in self.kept:
            raise ImageError(f"the snapshot has no file '{path}'")
        return self.kept[path]
