"""Loadable segments: where they may lie in guest memory, and how they get there.

A segment is `memory_size` bytes at guest-physical `address`, of which the first `file_size` come from the
image at `offset` and the rest read as zero. Everything is checked before the first byte is written, so a
refused image leaves guest memory as it was and an absurd size costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from kvmbox.base import layout
from kvmbox.base.errors import ImageError
from kvmbox.base.memory import GuestMemory
from kvmbox.base.value_classes import Value
from kvmbox.boot.image import GuestImage

_LINK_HINT: Final = "link the kernel at 1 MiB or above, e.g. ld -Ttext=0x100000 -z max-page-size=0x1000"


class LoadSegment(Value):
    """One piece of the image. Sizes and offsets in bytes; `index` is its number in the program headers."""

    index: int
    offset: int
    file_size: int
    address: int
    memory_size: int

    @property
    def end(self) -> int:
        """The first guest-physical address behind the segment."""
        return self.address + self.memory_size

    def __str__(self) -> str:
        return f"segment {self.index} ({self.address:#x}..{self.end:#x})"


def check_placement(image: GuestImage, segments: Sequence[LoadSegment], memory: GuestMemory) -> None:
    """ImageError unless every segment is in RAM, and clear of all others."""
    for segment in segments:
        if not memory.contains(segment.address, segment.memory_size):
            raise _beyond_memory(image, segment, memory)
    for lower, upper in pairwise(sorted(segments, key=lambda s: s.address)):
        if upper.address < lower.end:
            raise image.error(
                f"{lower} and {upper} overlap in guest memory",
                hint="check the load addresses (LMA) in the linker script",
            )


def ranges_of(segments: Sequence[LoadSegment]) -> list[tuple[int, int]]:
    """The (start, end) of each segment."""
    return [(one.address, one.end) for one in segments]


def check_firmware(
    image: GuestImage, segments: Sequence[LoadSegment], writes: Sequence[tuple[int, bytes]]
) -> None:
    """ImageError if a segment overlaps what firmware leaves in memory."""
    for address, data in writes:
        for segment in segments:
            if segment.address < address + len(data) and address < segment.end:
                raise image.error(
                    f"{segment} overlaps {address:#x}..{address + len(data):#x}, where firmware data are",
                    hint=f"{_LINK_HINT}; or leave the firmware's tables out: --firmware-tables none",
                )


def copy_segments(image: GuestImage, segments: Sequence[LoadSegment], memory: GuestMemory) -> None:
    """Put segments that passed `check_placement` into guest memory; what is not from the file is zeroed."""
    view = memoryview(image.data)
    for segment in segments:
        memory.write(segment.address, view[segment.offset : segment.offset + segment.file_size])
        memory.zero(segment.address + segment.file_size, segment.memory_size - segment.file_size)


def _beyond_memory(image: GuestImage, segment: LoadSegment, memory: GuestMemory) -> ImageError:
    if segment.address < layout.MMIO_HOLE_END and segment.end > layout.MMIO_HOLE_START:
        return image.error(
            f"{segment} reaches into {layout.MMIO_HOLE_START:#x}..{layout.MMIO_HOLE_END:#x},"
            " which is for devices",
            hint=_LINK_HINT,
        )
    # RAM above 4 GiB begins with the byte that did not fit below the hole.
    hole = layout.MMIO_HOLE_END - layout.MMIO_HOLE_START
    needed = segment.end if segment.end <= layout.MMIO_HOLE_START else segment.end - hole
    hint = f"give it at least {-(-needed // layout.MIB)} MiB with --memory"
    if needed > layout.MAX_MEMORY:
        hint = (
            f"no guest gets more than {layout.MAX_MEMORY // layout.GIB} GiB: check the load addresses (LMA)"
        )
    return image.error(
        f"{segment} does not fit into {memory.size / layout.MIB:g} MiB of guest memory", hint=hint
    )
