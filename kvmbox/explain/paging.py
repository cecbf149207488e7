"""A walk through the page tables of a guest, level by level (Intel SDM volume 3, chapter 5: Paging).

All four kinds: 32-bit with and without 4 MiB pages, PAE, and 4 or 5 levels. The walk does not change the
accessed and dirty bits, and ends at the entry that stops it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from kvmbox.base.value_classes import Value

ReadPhysical = Callable[[int, int], bytes]
"""Gives the bytes at a guest-physical address; fewer than asked for, or none, where there is no RAM."""

CR0_PE: Final = 1 << 0
CR0_PG: Final = 1 << 31
CR4_PSE: Final = 1 << 4
CR4_PAE: Final = 1 << 5
CR4_LA57: Final = 1 << 12
EFER_LME: Final = 1 << 8
EFER_LMA: Final = 1 << 10
EFER_NXE: Final = 1 << 11

PRESENT: Final = 1 << 0
WRITABLE: Final = 1 << 1
USER: Final = 1 << 2
LARGE: Final = 1 << 7
NO_EXECUTE: Final = 1 << 63
ADDRESS: Final = (1 << 52) - 1 & ~0xFFF
_RIGHTS: Final = ((WRITABLE, "writable", "read-only"), (USER, "user", "supervisor"))


class Level(Value):
    """One step: the `name` of the entry, its `index`, the `address` it is at, and its `value`.

    The value is None where the table is not in RAM.
    """

    name: str
    index: int
    address: int
    value: int | None

    def __str__(self) -> str:
        value = "not in RAM" if self.value is None else f"{self.value:#x}"
        return f"{self.name}[{self.index}] at {self.address:#x} = {value}"


class Walk(Value):
    """Where a linear address leads: `physical`, or None and what `stopped` the walk.

    `rights` has the bits PRESENT, WRITABLE, USER and NO_EXECUTE that all levels together give.
    """

    linear: int
    levels: tuple[Level, ...]
    physical: int | None
    stopped: str = ""
    rights: int = PRESENT | WRITABLE | USER

    @property
    def in_words(self) -> str:
        """The page's rights: "writable, user" and the like."""
        words = [yes if self.rights & bit else no for bit, yes, no in _RIGHTS]
        return ", ".join(words + (["not executable"] if self.rights & NO_EXECUTE else []))


class Format(Value):
    """The levels of a kind of paging, from the top: the names of their entries, and how far an address is
    shifted for the index.
    """

    names: tuple[str, ...]
    shifts: tuple[int, ...]
    index_bits: int
    entry_size: int
    large: tuple[str, ...]
    """The levels whose entry may map a page itself."""


_TWO_LEVELS: Final = Format(("PDE", "PTE"), (22, 12), 10, 4, ("PDE",))
_PAE: Final = Format(("PDPTE", "PDE", "PTE"), (30, 21, 12), 9, 8, ("PDE",))
_FOUR: Final = Format(("PML4E", "PDPTE", "PDE", "PTE"), (39, 30, 21, 12), 9, 8, ("PDPTE", "PDE"))
_FIVE: Final = Format(("PML5E", "PML4E", "PDPTE", "PDE", "PTE"), (48, 39, 30, 21, 12), 9, 8, ("PDPTE", "PDE"))


def is_canonical(linear: int, cr4: int) -> bool:
    """Whether the upper bits of a 64-bit linear address repeat the highest one that is translated."""
    upper = linear >> (56 if cr4 & CR4_LA57 else 47)
    return upper in (0, (1 << 64 - (56 if cr4 & CR4_LA57 else 47)) - 1)


def walk(linear: int, cr0: int, cr3: int, cr4: int, efer: int, read: ReadPhysical) -> Walk:
    """Translate `linear` as a CPU with these registers does."""
    long_mode = bool(efer & EFER_LMA)
    if not long_mode:
        linear &= 0xFFFF_FFFF
    elif not is_canonical(linear, cr4):
        return Walk(linear, (), None, "not a canonical address")
    if not cr0 & CR0_PG:
        return Walk(linear, (), linear)
    form, table = top_table(cr3, cr4, efer)
    return _walk(linear, table, form, cr4, efer, read)


def top_table(cr3: int, cr4: int, efer: int) -> tuple[Format, int]:
    """The kind of paging that is on, and where its top table is."""
    if efer & EFER_LMA:
        return (_FIVE if cr4 & CR4_LA57 else _FOUR), cr3 & ADDRESS
    if cr4 & CR4_PAE:
        return _PAE, cr3 & 0xFFFF_FFE0
    return _TWO_LEVELS, cr3 & 0xFFFF_F000


def is_refused(entry: int, form: Format, efer: int) -> bool:
    """Whether a present entry has bit 63, and EFER.NXE does not allow that."""
    return bool(entry & NO_EXECUTE) and form.entry_size == 8 and not efer & EFER_NXE


def rights_behind(rights: int, entry: int, name: str, form: Format) -> int:
    """The rights that are left of `rights` behind an entry."""
    if not (form is _PAE and name == "PDPTE"):  # whose bits 1, 2 and 63 are no rights
        rights = rights & (entry | ~(WRITABLE | USER)) | entry & NO_EXECUTE
    return rights & ~NO_EXECUTE if form.entry_size == 4 else rights


def maps_page(entry: int, name: str, form: Format, cr4: int) -> bool:
    """Whether a present entry maps a page itself."""
    return name == "PTE" or bool(
        entry & LARGE and name in form.large and (form is not _TWO_LEVELS or cr4 & CR4_PSE)
    )


def next_table(entry: int, form: Format) -> int:
    """Where the table is that an entry points to."""
    return entry & (ADDRESS if form.entry_size == 8 else 0xFFFF_F000)


def _walk(linear: int, table: int, form: Format, cr4: int, efer: int, read: ReadPhysical) -> Walk:
    levels: list[Level] = []
    rights = PRESENT | WRITABLE | USER
    for name, shift in zip(form.names, form.shifts, strict=True):
        index = linear >> shift & (1 << form.index_bits) - 1
        address = table + index * form.entry_size
        raw = read(address, form.entry_size)
        entry = int.from_bytes(raw, "little") if len(raw) == form.entry_size else None
        levels.append(Level(name, index, address, entry))
        if entry is None:
            return Walk(linear, tuple(levels), None, f"{name}: the table is not in RAM", 0)
        if not entry & PRESENT:
            return Walk(linear, tuple(levels), None, f"{name} is not present", 0)
        if is_refused(entry, form, efer):
            return Walk(linear, tuple(levels), None, f"{name} has bit 63, which EFER.NXE does not allow", 0)
        rights = rights_behind(rights, entry, name, form)
        if maps_page(entry, name, form, cr4):
            return Walk(linear, tuple(levels), page_address(entry, linear, shift, form), "", rights)
        table = next_table(entry, form)
    raise AssertionError("the last level maps a page")


def page_address(entry: int, linear: int, shift: int, form: Format) -> int:
    """Where `linear` is in physical memory, by the entry that maps its page."""
    within = (1 << shift) - 1
    if form is _TWO_LEVELS and shift > 12:
        # PSE-36: bits 13 to 20 of the entry are bits 32 to 39 of the address.
        return entry & 0xFFC0_0000 | (entry >> 13 & 0xFF) << 32 | linear & within
    return entry & ADDRESS & ~within | linear & within
