"""The way of Multiboot 1: a header in the file's first 8192 bytes, an entry in 32-bit protected mode."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from kvmbox.boot.bios.services import bios_services
from kvmbox.boot.boot_area import InfoWriter, place_area
from kvmbox.boot.disk.boot_marks import offer_of_header
from kvmbox.boot.elf.executable import check_reach, parse_elf
from kvmbox.boot.elf.headers import ELF_MAGIC
from kvmbox.boot.elf.sections import plan_sections
from kvmbox.boot.entry_state import gdt, protected_mode_state
from kvmbox.boot.image import GuestImage
from kvmbox.boot.modules import behind, module_writes, place_modules
from kvmbox.boot.multiboot import information
from kvmbox.boot.multiboot.header import (
    FLAG_ADDRESSES,
    FLAG_VIDEO_MODE,
    SEARCH_SIZE,
    MultibootHeader,
    address_override,
    check_demands,
    find_header,
    wanted_mode,
)
from kvmbox.boot.plan import BootContext, BootPlan, Offer, Refusal
from kvmbox.boot.segments import LoadSegment, check_placement, ranges_of

if TYPE_CHECKING:
    from kvmbox.firmware.video_modes import VideoMode

_KIND: Final = "a Multiboot 1 kernel"
_NO_HEADER: Final = f"there is no Multiboot 1 header in its first {SEARCH_SIZE} bytes"
_UNLOADABLE: Final = Refusal(
    "it has a Multiboot header without address fields (flag 16), and is no ELF file",
    "build it as ELF, or give the header its address fields",
)


class Multiboot:
    """See the module."""

    name: str = "multiboot"

    def examine(self, image: GuestImage) -> Offer | Refusal:
        """See Way."""
        header = find_header(image.data)
        if header is None:
            return Refusal(_NO_HEADER)
        return offer_of_header(image, _KIND, None if header.flags & FLAG_ADDRESSES else _UNLOADABLE)

    def plan(self, image: GuestImage, context: BootContext) -> BootPlan:
        """See Way."""
        header = find_header(image.data)
        if header is None:
            raise image.error(_NO_HEADER)
        check_demands(image, header)
        segments, entry, bits = _segments(image, header)
        check_placement(image, segments, context.memory)
        modules = place_modules(image, segments, context.memory, context.all_modules)
        area = place_area(image, ranges_of(segments))
        sections = None
        if bits is not None:
            sections = plan_sections(image, bits, *behind(segments, modules, context.memory))
        mode = wanted_mode(image, header)
        bios, without_bios = bios_services(image, context, segments, bits, linear=mode is not None)
        return BootPlan(
            self.name,
            protected_mode_state(area, entry, eax=information.LOADER_MAGIC, ebx=area.info),
            entry,
            segments,
            (
                gdt(area),
                *information.information(
                    image,
                    context,
                    area,
                    modules,
                    sections=sections,
                    screen=_screen(header, mode),
                ),
                *module_writes(context.all_modules, modules),
                *(sections.writes if sections is not None else ()),
                *bios,
            ),
            modules,
            after_bios=bool(bios),
            without_bios=without_bios,
            video=mode,
        )


def _segments(image: GuestImage, header: MultibootHeader) -> tuple[tuple[LoadSegment, ...], int, int | None]:
    """The segments, the entry, and the class of the ELF file if that is what gave them."""
    if header.flags & FLAG_ADDRESSES:
        segment, entry = address_override(image, header)
        return (segment,), entry, None
    if not image.data.startswith(ELF_MAGIC):
        raise image.error(_UNLOADABLE.reason, hint=_UNLOADABLE.hint)
    elf = parse_elf(image, by_protocol=True)
    check_reach(image, elf.entry)
    return elf.segments, elf.entry, elf.bits


def _screen(
    header: MultibootHeader, mode: VideoMode | None
) -> Callable[[InfoWriter], tuple[int, bytes]] | None:
    """What the kernel is told of the screen, if it asks for video."""
    if not header.flags & FLAG_VIDEO_MODE:
        return None
    from kvmbox.boot.multiboot.screen_info import linear_screen, text_screen

    return text_screen if mode is None else partial(linear_screen, mode)
