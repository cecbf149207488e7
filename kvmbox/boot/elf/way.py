"""The way of a plain ELF file: its own entry, in the mode of its class, by kvmbox's own convention.

The Multiboot 1 information structure goes with it: a kernel has one way to learn its command line, memory and
modules.
"""

from __future__ import annotations

from kvmbox.boot.boot_area import place_area
from kvmbox.boot.elf.executable import check_reach, parse_elf
from kvmbox.boot.elf.headers import ELF_MAGIC
from kvmbox.boot.elf.sections import plan_sections
from kvmbox.boot.entry_state import gdt, long_mode_state, page_tables, protected_mode_state
from kvmbox.boot.image import GuestImage
from kvmbox.boot.modules import behind, module_writes, place_modules
from kvmbox.boot.multiboot.information import LOADER_MAGIC, information
from kvmbox.boot.plan import BootContext, BootPlan, Offer, Refusal
from kvmbox.boot.segments import check_placement, ranges_of


class Elf:
    """See the module."""

    name: str = "elf"

    def examine(self, image: GuestImage) -> Offer | Refusal:
        """See Way."""
        if not image.data.startswith(ELF_MAGIC):
            return Refusal("it is no ELF file")
        return Offer("an ELF file")

    def plan(self, image: GuestImage, context: BootContext) -> BootPlan:
        """See Way."""
        if not image.data.startswith(ELF_MAGIC):
            raise image.error("it is no ELF file")
        elf = parse_elf(image)
        if elf.bits == 64:
            check_reach(image, elf.entry)
        check_placement(image, elf.segments, context.memory)
        modules = place_modules(image, elf.segments, context.memory, context.all_modules)
        area = place_area(image, ranges_of(elf.segments))
        writes = [gdt(area)]
        if elf.bits == 64:
            state = long_mode_state(area, elf.entry, rax=LOADER_MAGIC, rbx=area.info, rdi=area.info)
            writes += page_tables(area)
        else:
            state = protected_mode_state(area, elf.entry, eax=LOADER_MAGIC, ebx=area.info)
        sections = plan_sections(image, elf.bits, *behind(elf.segments, modules, context.memory))
        writes += information(image, context, area, modules, sections=sections)
        writes += module_writes(context.all_modules, modules)
        writes += sections.writes if sections is not None else ()
        return BootPlan(f"elf{elf.bits}", state, elf.entry, elf.segments, tuple(writes), modules)
