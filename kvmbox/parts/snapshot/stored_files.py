"""The files of a boot, from a snapshot of a machine that was booted from them."""

from __future__ import annotations

import os
from collections.abc import Mapping

from kvmbox.base.errors import ImageError
from kvmbox.boot.boot_files import HostFiles
from kvmbox.boot.image import MAX_FILE_SIZE, GuestImage, Module


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
