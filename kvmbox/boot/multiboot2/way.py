"""The way of Multiboot 2: a header in the file's first 32768 bytes, an entry in 32-bit protected mode."""

from __future__ import annotations

from typing import Final

from kvmbox.base import layout
from kvmbox.base.errors import ImageError
from kvmbox.base.value_classes import Value
from kvmbox.boot.bios.services import bios_services
from kvmbox.boot.boot_area import DEFAULT_INFO_SIZE, place_area
from kvmbox.boot.disk.boot_marks import offer_of_header
from kvmbox.boot.elf.executable import check_reach, parse_elf
from kvmbox.boot.elf.headers import ELF_MAGIC
from kvmbox.boot.elf.sections import aligned, plan_sections
from kvmbox.boot.entry_state import gdt, protected_mode_state
from kvmbox.boot.image import GuestImage
from kvmbox.boot.modules import behind, module_writes, place_modules
from kvmbox.boot.multiboot2.header_tags import (
    LOADER_MAGIC,
    NO_HEADER,
    Multiboot2Header,
    RelocatableTag,
    find_multiboot2,
    parse_header,
)
from kvmbox.boot.multiboot2.information_tags import information
from kvmbox.boot.plan import BootContext, BootPlan, Offer, Refusal
from kvmbox.boot.segments import LoadSegment, check_placement, ranges_of

_KIND: Final = "a Multiboot 2 kernel"
_UNLOADABLE: Final = Refusal(
    "it has a Multiboot 2 header without an address tag, and is no ELF file",
    "build it as ELF, or give the header an address tag and an entry address tag",
)
_LOWEST: Final = 1  # preferences of the relocatable tag; 0 is none
_HIGHEST: Final = 2


class Multiboot2:
    """See the module."""

    name: str = "multiboot2"

    def examine(self, image: GuestImage) -> Offer | Refusal:
        """See Way."""
        if find_multiboot2(image.data) is None:
            return Refusal(NO_HEADER)
        try:
            header = parse_header(image)
        except ImageError:  # a look, not a check: `plan` says what is wrong
            return offer_of_header(image, _KIND, None)
        tags = f" (its EFI tags {_numbers(header.efi)} are not supported)" if header.efi else ""
        return offer_of_header(image, f"{_KIND}{tags}", _UNLOADABLE if header.addresses is None else None)

    def plan(self, image: GuestImage, context: BootContext) -> BootPlan:
        """See Way."""
        header = parse_header(image)
        loaded = _relocate(image, header, _linked(image, header), context)
        check_placement(image, loaded.segments, context.memory)
        check_reach(image, loaded.entry)
        segments = loaded.segments
        modules = place_modules(image, segments, context.memory, context.all_modules)
        sections = None
        if loaded.elf_bits:
            sections = plan_sections(image, loaded.elf_bits, *behind(segments, modules, context.memory))
        content = information(
            context,
            modules,
            sections,
            ega_text=header.ega_text,
            mode=header.mode,
            load_base=None if header.relocatable is None else loaded.base,
        )
        room = max(DEFAULT_INFO_SIZE, aligned(len(content), layout.PAGE_SIZE))
        area = place_area(image, ranges_of(segments), room)
        bios, without_bios = bios_services(
            image, context, segments, loaded.elf_bits, linear=header.mode is not None
        )
        return BootPlan(
            self.name,
            protected_mode_state(area, loaded.entry, eax=LOADER_MAGIC, ebx=area.info),
            loaded.entry,
            segments,
            (
                gdt(area),
                (area.info, content),
                *module_writes(context.all_modules, modules),
                *(sections.writes if sections is not None else ()),
                *bios,
            ),
            modules,
            after_bios=bool(bios),
            without_bios=without_bios,
            video=header.mode,
        )


class _Loaded(Value):
    """Segments with the entry among them; `elf_bits` is 0 for a file that is loaded by its address tag."""

    segments: tuple[LoadSegment, ...]
    entry: int
    elf_bits: int

    @property
    def base(self) -> int:
        """The lowest address."""
        return min(one.address for one in self.segments)

    @property
    def end(self) -> int:
        """The first address behind all."""
        return max(one.end for one in self.segments)


def _linked(image: GuestImage, header: Multiboot2Header) -> _Loaded:
    """The image where it was linked to be."""
    found = header.addresses
    if found is not None:
        if header.entry is None:
            raise _without_entry(image, header, "an address tag and no entry address tag")
        return _checked(image, (found,), header.entry, 0)
    if not image.data.startswith(ELF_MAGIC):
        raise image.error(_UNLOADABLE.reason, hint=_UNLOADABLE.hint)
    elf = parse_elf(image, by_protocol=True, needs_entry=header.entry is None)
    return _checked(image, elf.segments, elf.entry if header.entry is None else header.entry, elf.bits)


def _checked(image: GuestImage, segments: tuple[LoadSegment, ...], entry: int, elf_bits: int) -> _Loaded:
    if not any(one.address <= entry < one.end for one in segments):
        raise image.error(
            f"its Multiboot 2 entry {entry:#x} lies in nothing that is loaded",
            hint="the entry address tag holds a physical address",
        )
    return _Loaded(segments, entry, elf_bits)


def _without_entry(image: GuestImage, header: Multiboot2Header, what: str) -> ImageError:
    efi = f"; its EFI tags {_numbers(header.efi)} are not supported" if header.efi else ""
    return image.error(
        f"its Multiboot 2 header has {what}{efi}", hint="give it an entry address tag (type 3)"
    )


def _numbers(numbers: tuple[int, ...]) -> str:
    return ", ".join(map(str, numbers))


def _relocate(image: GuestImage, header: Multiboot2Header, linked: _Loaded, context: BootContext) -> _Loaded:
    """`linked`, moved to where the relocatable tag wants it; as it is where there is no such tag."""
    tag = header.relocatable
    if tag is None:
        return linked
    size = linked.end - linked.base
    lowest = aligned(max(tag.minimum, layout.HIGH_MEMORY_START), tag.align)
    # Modules and sections follow the image, so the highest place leaves room for them.
    after = sum(aligned(len(module.data), layout.PAGE_SIZE) for module in context.all_modules)
    limit = context.memory.regions[0].end
    sections = plan_sections(image, linked.elf_bits, 0, limit) if linked.elf_bits else None
    if sections is not None:
        after += aligned(sections.end, layout.PAGE_SIZE)
    after = aligned(after, layout.PAGE_SIZE) + (layout.PAGE_SIZE if after else 0)
    highest = min(tag.maximum + 1, limit - after) - size
    highest -= highest % tag.align
    if highest < lowest:
        raise image.error(
            f"its relocatable tag allows no place in memory for its {size} bytes: {tag.minimum:#x} to"
            f" {tag.maximum:#x}, aligned to {tag.align:#x}",
            hint="give the guest more with --memory",
        )
    shift = _choice(tag, linked.base, lowest, highest) - linked.base
    return _Loaded(
        tuple(one.replaced(address=one.address + shift) for one in linked.segments),
        linked.entry + shift,
        linked.elf_bits,
    )


def _choice(tag: RelocatableTag, base: int, lowest: int, highest: int) -> int:
    if tag.preference == _LOWEST:
        return lowest
    if tag.preference == _HIGHEST:
        return highest
    return base if lowest <= base <= highest and base % tag.align == 0 else lowest
