"""Virtio devices on the command line of a Linux kernel, which also one without ACPI reads.

Documentation/admin-guide/kernel-parameters.txt, virtio_mmio.device: size, address, interrupt. A kernel that
has found a device by ACPI before says that the second one is busy, and goes on.
"""

from __future__ import annotations

from collections.abc import Sequence

from kvmbox.base import layout
from kvmbox.boot.elf.notes import find_note
from kvmbox.boot.image import GuestImage
from kvmbox.boot.linux.setup_header import is_linux


def with_virtio(
    image: GuestImage, way: str, command_line: str | None, virtio: Sequence[tuple[int, int]]
) -> str | None:
    """The command line for `image`, which boots this way: with the (address, line) of each device, if it is a
    Linux kernel.
    """
    if way not in ("linux", "pvh") or not (is_linux(image.data) or find_note(image.data, b"Linux")):
        return command_line
    words = [] if command_line is None else [command_line]
    words += [f"virtio_mmio.device={layout.VIRTIO_SIZE}@{address:#x}:{line}" for address, line in virtio]
    return " ".join(words)
