"""Modules: where they go in guest memory, and the strings that go with them and with the kernel."""

from __future__ import annotations

import os
from collections.abc import Sequence

from kvmbox.base import layout
from kvmbox.base.errors import ImageError, UsageError
from kvmbox.base.memory import GuestMemory
from kvmbox.boot.image import GuestImage, Module, printable
from kvmbox.boot.segments import LoadSegment


def boot_string(name: str, arguments: str | None, what: str) -> bytes:
    """The name as one word, and the arguments behind it. UsageError, which names `what`, if that cannot be.

    Kernels drop the first word as their own name, so a name must be exactly one word.
    """
    word = "_".join(name.split()) or "guest"
    return encoded(f"{word} {arguments}" if arguments else word, what)


def module_string(module: Module) -> bytes:
    """The string of a module: its name and its arguments. Raises UsageError."""
    return boot_string(module.name, module.arguments, f"module '{printable(module.name)}'")


def encoded(text: str, what: str) -> bytes:
    """`text` as the bytes that the guest gets, without a NUL. Raises UsageError."""
    try:
        data = os.fsencode(text)
    except UnicodeEncodeError as error:
        raise UsageError(f"{what} holds a character that cannot be encoded") from error
    if b"\0" in data:
        raise UsageError(f"{what} holds a NUL")
    return data


def place_modules(
    image: GuestImage, segments: Sequence[LoadSegment], memory: GuestMemory, modules: Sequence[Module]
) -> tuple[tuple[int, int], ...]:
    """The (start, end) of each module, on page boundaries above 1 MiB and all segments below the device hole.

    ImageError if one does not fit.
    """
    position, limit = behind(segments, (), memory)
    ranges = []
    for module in modules:
        start = -(-position // layout.PAGE_SIZE) * layout.PAGE_SIZE
        position = start + len(module.data)
        if position > limit:
            raise _no_room(image, module, memory)
        ranges.append((start, position))
    return tuple(ranges)


def behind(
    segments: Sequence[LoadSegment], modules: Sequence[tuple[int, int]], memory: GuestMemory
) -> tuple[int, int]:
    """The (start, end) of low RAM that is free behind the segments and placed modules."""
    limit = memory.regions[0].end
    ends = [one.end for one in segments if one.address < limit] + [end for _, end in modules]
    return max([layout.HIGH_MEMORY_START, *ends]), limit


def module_writes(
    modules: Sequence[Module], ranges: Sequence[tuple[int, int]]
) -> tuple[tuple[int, bytes], ...]:
    """The contents of placed modules, as writes."""
    return tuple((start, module.data) for module, (start, _) in zip(modules, ranges, strict=True))


def _no_room(image: GuestImage, module: Module, memory: GuestMemory) -> ImageError:
    return image.error(
        f"its module '{printable(module.name)}' ({len(module.data)} bytes) does not fit behind it into"
        f" {memory.size / layout.MIB:g} MiB of guest memory below {layout.MMIO_HOLE_START:#x}",
        hint="give the guest more with --memory",
    )
