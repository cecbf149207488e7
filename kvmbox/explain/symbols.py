"""Names of addresses: from the symbol table of an ELF file, or from a System.map.

A table is sorted once, and then asked by bisection. Symbols without a size end where the next one begins, and
64 KiB behind their start at the latest.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from struct import Struct
from typing import Final

from kvmbox.explain.names import readable
from kvmbox.lean import Value

MOST_SYMBOLS: Final = 1_000_000
LONGEST_GUESS: Final = 1 << 16
"""How far behind the start of a symbol without a size an address still gets its name."""

_MAP_LINE: Final = re.compile(rb"^([0-9a-fA-F]{4,16}) ([A-Za-z]) (\S+)", re.MULTILINE)
_PLACES: Final = (0, 1, 2, 10)  # STT_NOTYPE, STT_OBJECT, STT_FUNC, STT_GNU_IFUNC
_SHT_SYMTAB: Final = 2
_SHT_DYNSYM: Final = 11
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


class Symbols:
    """A table of symbols: where each begins, how long it is, and its name, as the linker has it."""

    def __init__(self, entries: Iterable[tuple[int, int, str]]) -> None:
        """`entries` are start, size and name; in any order."""
        best: dict[int, tuple[int, str]] = {}
        for start, size, name in entries:
            # Of several names of one place, one that has a size, then the first.
            if start not in best or (size and not best[start][0]):
                best[start] = (size, name)
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
        start, (size, name) = self._starts[index], self._rest[index]
        if size == 0:
            after = self._starts[index + 1] if index + 1 < len(self._starts) else start + LONGEST_GUESS
            size = min(after - start, LONGEST_GUESS)
        offset = address - start
        return Place(readable(name), offset) if offset < max(size, 1) else None

    def find(self, name: str) -> int | None:
        """Where the symbol of this name begins, or None."""
        for start, (_, known) in zip(self._starts, self._rest, strict=True):
            if name in (known, readable(known)):
                return start
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
                    return Symbols(of_table(table, data[names : names + length], base, wide=wide))
    return Symbols(())


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


def of_table(table: bytes, names: bytes, base: int, *, wide: bool) -> Iterator[tuple[int, int, str]]:
    """Start, size and name of the symbols that are places (ELF specification, "Symbol Table")."""
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
        if name:
            yield start + base, size, name.decode(errors="replace")


def of_map(data: bytes, base: int = 0) -> Symbols:
    """The symbols of a System.map, as `nm` prints them: address, type, name."""
    return Symbols(
        (int(line[1], 16) + base, 0, line[3][:LONGEST_NAME].decode(errors="replace"))
        for line in _MAP_LINE.finditer(data)
        if line[2] not in b"aAuUwW"
    )


def read(data: bytes, base: int = 0) -> Symbols:
    """The symbols of a file of either kind."""
    return of_elf(data, base) if data.startswith(b"\x7fELF") else of_map(data, base)
