"""Names of addresses: from the symbol table of an ELF file, or from a System.map.

A table is sorted once, and then asked by bisection. Symbols without a size end where the next one begins, at
the end of their section, and 64 KiB behind their start at the latest.

Of several symbols at one address the first of these counts: one of the section that holds the address (a
label at the end of a section has the address of the next section); one with a type, as a function has; one
with a size; a global one; the first in the table.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from struct import Struct
from typing import Final

from kvmbox.base.errors import StartError
from kvmbox.base.value_classes import Value
from kvmbox.explain.demangled_names import readable

MOST_SYMBOLS: Final = 1_000_000
MOST_CODE: Final = 32
"""How many sections of instructions count: a profile compares the words of each sample with them."""

LONGEST_GUESS: Final = 1 << 16
"""How far behind the start of a symbol without a size an address still gets its name."""

_MAP_LINE: Final = re.compile(rb"^([0-9a-fA-F]{4,16}) ([A-Za-z]) (\S+)", re.MULTILINE)
_PLACES: Final = (0, 1, 2, 10)  # STT_NOTYPE, STT_OBJECT, STT_FUNC, STT_GNU_IFUNC
_NO_TYPE: Final = 0
_LOCAL: Final = 0  # STB_LOCAL
_SHT_SYMTAB: Final = 2
_SHT_DYNSYM: Final = 11
_SHF_EXECINSTR: Final = 1 << 2
_SHF_COMPRESSED: Final = 1 << 11
_UNDEFINED: Final = 0
_ABSOLUTE: Final = 0xFFF1
LONGEST_NAME: Final = 1024
"""A longer name is cut: many symbols of a hostile file could share one of megabytes."""


class Place(Value):
    """An address with a name: `symbol` as the source spells it, and the `offset` behind its start."""

    symbol: str
    offset: int

    def __str__(self) -> str:
        return self.symbol if self.offset == 0 else f"{self.symbol}+{self.offset:#x}"

    def behind(self, count: int) -> Place:
        """The place so many bytes behind this one."""
        return Place(self.symbol, self.offset + count)


class Symbol(Value):
    """Where a symbol begins, how long it is, and its name, as the linker has it. A symbol without a size (0)
    names at most `reach` bytes. Of two symbols at one address the one with the higher `rank` counts.
    """

    start: int
    size: int
    name: str
    rank: int = 0
    reach: int = LONGEST_GUESS


class Symbols:
    """A table of symbols."""

    def __init__(self, entries: Iterable[Symbol]) -> None:
        """`entries` are in any order."""
        best: dict[int, Symbol] = {}
        for one in entries:
            known = best.get(one.start)
            if known is None or one.rank > known.rank:
                best[one.start] = one
            if len(best) >= MOST_SYMBOLS:
                break
        self._starts = sorted(best)
        self._rest = [best[start] for start in self._starts]

    def __len__(self) -> int:
        return len(self._starts)

    def at(self, address: int) -> Place | None:
        """The name of `address`, or None."""
        index = bisect_right(self._starts, address) - 1
        if index < 0:
            return None
        one = self._rest[index]
        size = one.size
        if size == 0:
            size = one.reach
            if index + 1 < len(self._starts):
                size = min(self._starts[index + 1] - one.start, size)
        offset = address - one.start
        return Place(readable(one.name), offset) if offset < max(size, 1) else None

    def find(self, name: str) -> int | None:
        """Where the symbol of this name begins, or None."""
        for one in self._rest:
            if name in (one.name, readable(one.name)):
                return one.start
        return None


def of_elf(data: bytes, base: int = 0) -> Symbols:
    """The symbols of an ELF file, moved by `base`; none of a file that is damaged or stripped.

    pyelftools would do, but takes 20 ms to import.
    """
    wide, sections = data[4:5] == b"\x02", _sections(data)
    for wanted in (_SHT_SYMTAB, _SHT_DYNSYM):
        for kind, flags, _, offset, size, link in sections:
            if kind == wanted and link < len(sections):
                _, more_flags, _, names, length, _ = sections[link]
                if not (flags | more_flags) & _SHF_COMPRESSED:
                    table = data[offset : offset + size]
                    homes = [(start, length) for _, _, start, _, length, _ in sections]
                    return Symbols(of_table(table, data[names : names + length], base, homes, wide=wide))
    return Symbols(())


def entry_of(data: bytes, base: int = 0) -> int | None:
    """The entry point of an ELF file, moved by `base`; None of any other file."""
    header = Struct("<24xQ" if data[4:5] == b"\x02" else "<24xI")
    if not data.startswith(b"\x7fELF") or len(data) < header.size:
        return None
    (entry,) = header.unpack_from(data)
    return int(entry) + base


def code_of(data: bytes, base: int = 0) -> list[range]:
    """Where the instructions of an ELF file are, moved by `base`: so many sections of that kind at most."""
    if not data.startswith(b"\x7fELF"):
        return []
    sections = (one for one in _sections(data) if one[1] & _SHF_EXECINSTR)
    return [range(at + base, at + base + size) for _, _, at, _, size, _ in islice(sections, MOST_CODE)]


def _sections(data: bytes) -> list[tuple[int, ...]]:
    """Type, flags, address, offset, size and link of each section (ELF specification, "Section Header")."""
    wide = data[4:5] == b"\x02"
    header = Struct("<40xQ10xHH2x" if wide else "<32xI10xHH2x")
    entry = Struct("<4xIQQQQI20x" if wide else "<4xIIIIII12x")
    if data[5:6] != b"\x01" or len(data) < header.size:  # ELFDATA2LSB
        return []
    start, size, count = header.unpack_from(data)
    if size != entry.size or not 0 < start <= len(data) - size:
        return []
    if count == 0:  # too many for the field: section 0 has the number
        count = entry.unpack_from(data, start)[4]
    end = min(start + count * size, len(data) - (len(data) - start) % size)
    return list(entry.iter_unpack(memoryview(data)[start:end]))


def of_table(
    table: bytes, names: bytes, base: int, homes: Sequence[tuple[int, int]], *, wide: bool
) -> Iterator[Symbol]:
    """The symbols that are places (ELF specification, "Symbol Table"). `homes` has the address and the size
    of each section.
    """
    entry = Struct("<IBBHQQ" if wide else "<IIIBBH")
    whole = len(table) - len(table) % entry.size
    for count, values in enumerate(entry.iter_unpack(table[:whole])):
        if count >= MOST_SYMBOLS:
            return
        if wide:
            at, info, _, section, start, size = values
        else:
            at, start, size, info, _, section = values
        if info & 0xF not in _PLACES or section in (_UNDEFINED, _ABSOLUTE) or at >= len(names):
            continue
        end = names.find(b"\0", at, at + LONGEST_NAME)
        name = names[at : end if end >= 0 else at + LONGEST_NAME]
        if not name:
            continue
        home, length = homes[section] if section < len(homes) else (start, LONGEST_GUESS)
        is_at_home = 0 <= start - home < length
        reach = min(length - (start - home), LONGEST_GUESS) if is_at_home else 0
        kinds = (is_at_home, info & 0xF != _NO_TYPE, size != 0, info >> 4 != _LOCAL)
        yield Symbol(start + base, size, name.decode(errors="replace"), _rank(kinds), reach)


def _rank(kinds: tuple[bool, ...]) -> int:
    """A number that sorts as the tuple does, the first of them first."""
    rank = 0
    for kind in kinds:
        rank = rank << 1 | kind
    return rank


def of_map(data: bytes, base: int = 0) -> Symbols:
    """The symbols of a System.map, as `nm` prints them: address, type, name."""
    return Symbols(
        Symbol(int(line[1], 16) + base, 0, line[3][:LONGEST_NAME].decode(errors="replace"), line[2].isupper())
        for line in _MAP_LINE.finditer(data)
        if line[2] not in b"aAuUwW"
    )


def read(data: bytes, base: int = 0) -> Symbols:
    """The symbols of a file of either kind."""
    return of_elf(data, base) if data.startswith(b"\x7fELF") else of_map(data, base)


def checked(data: bytes, path: str) -> bytes:
    """`data` of the file at `path`. StartError: it is of neither kind."""
    if not data.startswith(b"\x7fELF") and _MAP_LINE.search(data) is None:
        raise StartError(
            f"cannot use {path!r} for --symbols: it is neither an ELF file nor a System.map",
            hint="such a map is what 'nm' prints: address, type and name on each line",
        )
    return data
