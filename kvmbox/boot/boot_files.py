"""The files of a boot.

Each file is read once and kept, so that a snapshot can have it: a machine that starts from the snapshot boots
again as the first one would have done, whatever has become of the files.
"""

from __future__ import annotations

from kvmbox.boot.image import MAX_FILE_SIZE, GuestImage, Module, read_head, read_image, read_module


class HostFiles:
    """Files of the host, by path. All methods raise ImageError."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}
        """What was read."""

    def image(self, path: str) -> GuestImage:
        """See `read_image`. Of a large disk only the beginning is read."""
        head = read_head(path)
        if head is not None:
            from kvmbox.boot.disk.boot_marks import is_disk

            head = head if is_disk(head.data) else None
        image = head or read_image(path)
        self.kept[path] = image.data
        return image

    def module(self, path: str, arguments: str = "", *, max_size: int = MAX_FILE_SIZE) -> Module:
        """See `read_module`."""
        module = read_module(path, arguments, max_size=max_size)
        self.kept[path] = module.data
        return module
