"""All that the page tables of a CPU map, as ranges of addresses.

Pages that follow each other in linear and in physical memory, with the same rights, make one range. Only RAM
and ROM count.

The tables are the guest's, and may map themselves or one page a million times. So the tables, the entries and
the ranges that are looked at are limited. The entry of the top table that leads to the code of the CPU comes
first, and then that of its stack. The others follow from the top of the address space down, where kernels
mostly are. What is left out by then is the least wanted.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import Final

from kvmbox.base.value_classes import Value
from kvmbox.explain import paging
from kvmbox.explain.stopped_cpu import Cpu

MOST_TABLES: Final = 8192
MOST_ENTRIES: Final = 1 << 20
"""How many entries that are present: 4 GiB of pages of 4 KiB. They take about a second."""

MOST_RANGES: Final = 4096

_FORTY_EIGHT: Final = 39
"""The shift of the top level of a linear address of 48 bits, whose highest bit is repeated above."""


class Backing(Value):
    """Guest-physical memory that there is: `size` bytes from `start` on, kept at `place` of a file."""

    start: int
    size: int
    place: int


class Range(Value):
    """`size` bytes at the `linear` address, which are guest-physical memory at `physical`, in a file at
    `place`. `rights` are as in `paging.Walk`.
    """

    linear: int
    physical: int
    place: int
    size: int
    rights: int

    def goes_on_with(self, other: Range) -> bool:
        """Whether `other` follows this one everywhere."""
        return (
            self.linear + self.size == other.linear
            and self.physical + self.size == other.physical
            and self.place + self.size == other.place
            and self.rights == other.rights
        )


class PageMap(Value):
    """What a CPU sees, in the order of linear addresses. `complete` is false if a limit was reached."""

    ranges: tuple[Range, ...]
    complete: bool = True


def page_map(cpu: Cpu, backings: Sequence[Backing]) -> PageMap:
    """What the page tables of `cpu` map. Without paging, or if they map nothing: physical memory."""
    complete = True
    if cpu.sregs.cr0 & paging.CR0_PG:
        walker = _Walker(cpu, backings)
        walker.walk()
        complete = walker.complete
        if walker.found:
            return PageMap(_joined(walker.found), complete)
    return PageMap(
        tuple(Range(one.start, one.start, one.place, one.size, _ALL) for one in backings), complete
    )


_ALL: Final = paging.PRESENT | paging.WRITABLE | paging.USER


def _joined(ranges: list[Range]) -> tuple[Range, ...]:
    """The ranges in order; those that follow each other are one."""
    found: list[Range] = []
    for one in sorted(ranges, key=lambda one: one.linear):
        _append(found, one)
    return tuple(found)


def _append(found: list[Range], one: Range) -> None:
    """Append a range, as part of the last one if that goes on with it."""
    if found and found[-1].goes_on_with(one):
        before = found.pop()
        one = Range(before.linear, before.physical, before.place, before.size + one.size, one.rights)
    found.append(one)


class _Walker:
    def __init__(self, cpu: Cpu, backings: Sequence[Backing]) -> None:
        self.found: list[Range] = []
        self.complete = True
        self._cpu = cpu
        self._backings = backings
        self._form, self._top = paging.top_table(cpu.sregs.cr3, cpu.sregs.cr4, cpu.sregs.efer)
        self._tables_left = MOST_TABLES
        self._entries_left = MOST_ENTRIES

    def walk(self) -> None:
        form = self._form
        shift = form.shifts[0]
        count = (
            min(1 << form.index_bits, 1 << 32 - shift) if not self._cpu.long_mode else 1 << form.index_bits
        )
        wanted = [address >> shift & count - 1 for address in (self._cpu.pc, self._cpu.sp)]
        order = list(dict.fromkeys((*wanted, *range(count - 1, -1, -1))))
        self._table(0, self._top, 0, _ALL, order)

    def _table(self, level: int, address: int, linear: int, rights: int, order: Sequence[int]) -> None:
        if not self._tables_left:
            self.complete = False
            return
        self._tables_left -= 1
        form = self._form
        name, shift = form.names[level], form.shifts[level]
        entries = self._entries(address, len(order), form)
        for index in order:
            entry = entries[index] if index < len(entries) else 0
            if not entry & paging.PRESENT or paging.is_refused(entry, form, self._cpu.sregs.efer):
                continue
            self._entries_left -= 1
            if self._entries_left < 0 or len(self.found) >= MOST_RANGES:
                self.complete = False
            if not self.complete:
                return
            at = linear | index << shift
            if level == 0 and shift >= _FORTY_EIGHT and index >> form.index_bits - 1:
                at |= (1 << 64) - (1 << shift + form.index_bits)
            own = paging.rights_behind(rights, entry, name, form)
            if paging.maps_page(entry, name, form, self._cpu.sregs.cr4):
                self._page(at, paging.page_address(entry, at, shift, form), 1 << shift, own)
            else:
                count = 1 << form.index_bits
                self._table(level + 1, paging.next_table(entry, form), at, own, range(count))

    def _entries(self, address: int, count: int, form: paging.Format) -> tuple[int, ...]:
        raw = self._cpu.read_physical(address, count * form.entry_size)
        if not any(raw):
            return ()
        whole = len(raw) // form.entry_size
        return Struct(f"<{whole}{'Q' if form.entry_size == 8 else 'I'}").unpack_from(raw)

    def _page(self, linear: int, physical: int, size: int, rights: int) -> None:
        for one in self._backings:
            start, end = max(physical, one.start), min(physical + size, one.start + one.size)
            if start >= end:
                continue
            piece = Range(
                linear + start - physical, start, one.place + start - one.start, end - start, rights
            )
            _append(self.found, piece)
