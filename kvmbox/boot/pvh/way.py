"""The way of PVH: an ELF note of Xen's names an entry in 32-bit protected mode.

Xen's docs/misc/pvh.pandoc describes the machine state. XEN_ELFNOTE_PHYS32_ENTRY is a guest-physical address
of 4 bytes, or of 8, as Linux writes it. The note says all about the entry: the file's class, machine and
e_entry are for other loaders.
"""

from __future__ import annotations

from typing import Final

from kvmbox.boot.boot_area import place_area
from kvmbox.boot.elf.executable import check_reach, parse_elf
from kvmbox.boot.elf.headers import ELF_MAGIC
from kvmbox.boot.elf.notes import find_note
from kvmbox.boot.entry_state import gdt, pvh_state
from kvmbox.boot.image import GuestImage
from kvmbox.boot.modules import module_writes, place_modules
from kvmbox.boot.plan import BootContext, BootPlan, Offer, Refusal
from kvmbox.boot.pvh.start_info import start_information
from kvmbox.boot.segments import check_placement, ranges_of

_NOTE_NAME: Final = b"Xen"
_PHYS32_ENTRY: Final = 18  # XEN_ELFNOTE_PHYS32_ENTRY: xen/include/public/elfnote.h
_ENTRY_SIZES: Final = (4, 8)
_NO_NOTE: Final = "it has no PVH note (Xen note 18, PHYS32_ENTRY)"


class Pvh:
    """See the module."""

    name: str = "pvh"

    def examine(self, image: GuestImage) -> Offer | Refusal:
        """See Way."""
        if not image.data.startswith(ELF_MAGIC):
            return Refusal("it is no ELF file")
        if find_note(image.data, _NOTE_NAME, _PHYS32_ENTRY) is None:
            return Refusal(_NO_NOTE)
        return Offer("a PVH kernel")

    def plan(self, image: GuestImage, context: BootContext) -> BootPlan:
        """See Way."""
        if not image.data.startswith(ELF_MAGIC):
            raise image.error("it is no ELF file", hint="PVH is a way to boot ELF files only")
        entry = _entry(image)
        segments = parse_elf(image, by_protocol=True, needs_entry=False).segments
        check_reach(image, entry)
        check_placement(image, segments, context.memory)
        if not any(one.address <= entry < one.end for one in segments):
            raise image.error(
                f"its PVH entry {entry:#x} lies in no loaded segment",
                hint="the note holds a physical address: check the symbol that it is made from",
            )
        modules = place_modules(image, segments, context.memory, context.all_modules)
        area = place_area(image, ranges_of(segments))
        return BootPlan(
            self.name,
            pvh_state(area, entry, area.info),
            entry,
            segments,
            (
                gdt(area),
                *start_information(context, area, modules),
                *module_writes(context.all_modules, modules),
            ),
            modules,
        )


def _entry(image: GuestImage) -> int:
    note = find_note(image.data, _NOTE_NAME, _PHYS32_ENTRY)
    if note is None:
        raise image.error(_NO_NOTE, hint="build it with a PVH entry, e.g. Linux with CONFIG_PVH")
    if note.size not in _ENTRY_SIZES:
        raise image.error(
            f"its PVH note has {note.size} bytes; accepted are 4 and 8", hint="build or copy it again"
        )
    return int.from_bytes(note.descriptor, "little")
