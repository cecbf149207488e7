"""What an image is, and every way in which it could boot, as data: for `kvmbox inspect`.

Each way is asked to plan the boot, as a run would ask it, and the plan is thrown away. A large file that is
no kernel is not read for that. Only the places are looked at where a disk says what it is.
"""

from __future__ import annotations

import os
from typing import Any, Final

from kvmbox.base import layout
from kvmbox.base.errors import ImageError, UsageError
from kvmbox.base.memory import GuestMemory
from kvmbox.base.regular_file import open_regular_file
from kvmbox.base.value_classes import Value
from kvmbox.boot.choose import AUTO, BOOT_SECTOR, choose
from kvmbox.boot.compressed import compression_of, decompressed
from kvmbox.boot.disk.contents import DiskContents, disk_contents, is_kernel
from kvmbox.boot.image import GuestImage, read_image
from kvmbox.boot.plan import BootContext, BootPlan, Offer, Refusal, Way
from kvmbox.boot.ways import ways
from kvmbox.firmware.all_tables import firmware_tables
from kvmbox.firmware.platform import Platform

_HEAD: Final = 1024
LARGE: Final = 64 * layout.MIB
"""Bytes from which on a disk is not read as a whole."""


class WayResult(Value):
    """What one way makes of the image: a `plan`, or why not. `kind` is what the image is to this way.

    With a plan, `reason` says why the way has to be asked for, if it has to be.
    """

    name: str
    kind: str
    plan: BootPlan | None = None
    reason: str = ""
    hint: str = ""

    def as_json(self) -> dict[str, Any]:
        """The same for a program: addresses and sizes are numbers of bytes."""
        found: dict[str, Any] = {"name": self.name, "kind": self.kind, "possible": self.plan is not None}
        if self.plan is None:
            return found | {"reason": self.reason, "hint": self.hint}
        segments = [one.as_dict() for one in self.plan.segments]
        for one in segments:
            del one["index"]
        video = self.plan.video and self.plan.video.as_dict()
        found |= {"format": self.plan.format, "entry": self.plan.entry, "segments": segments}
        found |= {"frame_buffer": video}
        return found | ({"reason": self.reason} if self.reason else {})


class Inspection(Value):
    """An image: its size in bytes as a file and decompressed, and what each way makes of it.

    `taken` is the name of the way that a run would take, or empty; then `reason` says why there is none.
    `disk` is what it holds as a disk. A large disk has no `ways`.
    """

    path: str
    size: int
    compression: str
    decompressed_size: int
    taken: str
    reason: str
    hint: str
    ways: tuple[WayResult, ...]
    disk: DiskContents | None = None

    def as_json(self) -> dict[str, Any]:
        """The same for a program."""
        disk = self.disk and self.disk.as_json()
        return self.as_dict() | {"ways": [way.as_json() for way in self.ways], "disk": disk}


def inspect_file(path: str, memory: GuestMemory, boot: str = AUTO) -> Inspection:
    """Examine the image in a file: see `inspect`. Raises ImageError, also if it cannot be read."""
    return _inspect_large(path) or inspect(read_image(path), memory, boot)


def _inspect_large(path: str) -> Inspection | None:
    """What a large file is. None if it is small, or may be a kernel, or cannot be read."""
    try:
        descriptor = open_regular_file(path)
    except (OSError, ValueError):
        return None  # who reads it as an image says why
    try:
        size = os.fstat(descriptor).st_size
        head = os.pread(descriptor, _HEAD, 0)
        if size <= LARGE or is_kernel(head) or compression_of(head):
            return None
        disk = disk_contents(
            lambda offset, count: os.pread(descriptor, count, offset) if offset < size else b"", size
        )
    except OSError:
        return None
    finally:
        os.close(descriptor)
    if disk is not None and disk.boots:
        return Inspection(path, size, "", size, BOOT_SECTOR, "", "", (), disk)
    reason = f"cannot boot '{path}': a BIOS finds nothing to boot on it"
    return Inspection(path, size, "", size, "", reason, "", (), disk)


def inspect(image: GuestImage, memory: GuestMemory, boot: str = AUTO) -> Inspection:
    """Examine `image` for a machine with this memory, which is not changed; `boot` is the way asked for.

    ImageError if it is damaged compressed data.
    """
    inner = decompressed(image)
    platform = Platform(memory.size)
    tables = firmware_tables(platform)
    context = BootContext(memory, platform, tables.rsdp, firmware=tables.writes)
    taken, reason, hint = "", "", ""
    try:
        taken = choose(inner, boot).way.name
    except ImageError as error:
        reason, hint = str(error), error.hint or ""
    return Inspection(
        image.path,
        len(image.data),
        compression_of(image.data) or "",
        len(inner.data),
        taken,
        reason,
        hint,
        tuple(_ask(way, inner, context, asked_for=way.name == boot) for way in ways()),
        disk_contents(lambda offset, size: inner.data[offset : offset + size], len(inner.data)),
    )


def _ask(way: Way, image: GuestImage, context: BootContext, *, asked_for: bool) -> WayResult:
    found = way.examine(image)
    if isinstance(found, Refusal) and not asked_for:
        return WayResult(way.name, found.kind, reason=found.reason, hint=found.hint)
    try:
        doubt = found.doubt if isinstance(found, Offer) and not asked_for else ""
        return WayResult(way.name, found.kind, way.plan(image, context), doubt)
    except (ImageError, UsageError) as error:
        reason = str(error).removeprefix(str(image.error("")))
        return WayResult(way.name, found.kind, reason=reason, hint=error.hint or "")
