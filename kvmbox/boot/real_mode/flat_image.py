"""Where a flat 16-bit image goes, where it is entered, and with which segments and stack."""

from __future__ import annotations

from typing import Final

from kvmbox.base import layout
from kvmbox.base.errors import ImageError, UsageError
from kvmbox.base.memory import GuestMemory
from kvmbox.boot.image import GuestImage
from kvmbox.boot.segments import LoadSegment
from kvmbox.firmware.builtin_bios import Entry

# The stack grows down from the first of these (SS, SP) that has STACK_SIZE bytes below it clear of the image:
# below the usual load address, else at the end of conventional memory.
STACK_SIZE: Final = 0x1000
SEGMENTS_CS: Final = "cs"
KVMTOOL_STACK: Final = 0x8000
_STACKS: Final = ((0, layout.REAL_MODE_LOAD_ADDRESS), (0x9000, 0xF000))


def plan_flat(
    image: GuestImage, load_address: int | None, memory: GuestMemory
) -> tuple[LoadSegment, tuple[int, int]]:
    """The image's one segment and its (SS, SP); ImageError if it does not fit, UsageError for the address."""
    address = layout.REAL_MODE_LOAD_ADDRESS if load_address is None else load_address
    limit = min(memory.size, layout.LOW_MEMORY_END)
    if not 0 <= address < limit:
        raise UsageError(
            f"load address {address:#x} is not below {limit:#x}, where real-mode memory ends",
            hint=f"--load-address {layout.REAL_MODE_LOAD_ADDRESS:#x} is the usual one",
        )
    if not image.data:
        raise image.error("the file is empty", hint="build or copy it again")
    segment = LoadSegment(0, 0, len(image.data), address, len(image.data))
    if segment.end > limit:
        raise _too_large(image, f"its {len(image.data)} bytes at {address:#x} reach beyond {limit:#x}")
    for selector, offset in _STACKS:
        top = (selector << 4) + offset
        if segment.end <= top - STACK_SIZE or top <= segment.address:
            return segment, (selector, offset)
    raise _too_large(image, f"its {len(image.data)} bytes at {address:#x} leave no room for a stack")


def place_entry(
    segment: LoadSegment,
    stack: tuple[int, int],
    entry: tuple[int, int] | None,
    segments: str | None,
) -> Entry:
    """The first registers. UsageError if `entry` (CS, IP) is not in the image.

    With `segments` "cs", all segments are CS and SP is 0x8000, as kvmtool starts flat images.
    """
    if entry is None:
        selector = 0 if segment.address <= 0xFFFF else segment.address >> 4
        entry = selector, segment.address - (selector << 4)
    cs, ip = entry
    at = (cs << 4) + ip
    if not segment.address <= at < segment.end:
        raise UsageError(
            f"--entry {cs:04x}:{ip:04x} is {at:#x}, outside of the image at"
            f" {segment.address:#x}..{segment.end:#x}",
            hint=f"load it there: --load-address {at:#x}",
        )
    if segments == SEGMENTS_CS:
        return Entry(cs, ip, cs, KVMTOOL_STACK, cs)
    return Entry(cs, ip, *stack, 0)


def _too_large(image: GuestImage, why: str) -> ImageError:
    return image.error(
        f"{why}; accepted are flat images that fit into conventional memory",
        hint="load a first stage only, or build a Multiboot or ELF kernel",
    )
