"""Names of addresses: from the symbol table of an ELF file, or from a System.map.

A table is sorted once, and then asked by bisection. Symbols without a size end where the next one begins, and
64 KiB behind their start at the latest.
"""

from __future__ import annotations

import io
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import Any, Final

from kvmbox.explain.names import readable
from kvmbox.lean import Value

DAMAGED: Final = (
    *(ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError, AssertionError),
    *(MemoryError, RecursionError),
)
"""What pyelftools may raise, beside its own errors, of a file that is anybody's."""

MOST_SYMBOLS: Final = 1_000_000
LONGEST_GUESS: Final = 1 << 16
"""How far behind the start of a symbol without a size an address still gets its name."""

_MAP_LINE: Final = re.compile(rb"^([0-9a-fA-F]{4,16}) ([A-Za-z]) (\S+)", re.MULTILINE)
_CODE_OR_DATA: Final = ("STT_NOTYPE", "STT_OBJECT", "STT_FUNC", "STT_GNU_IFUNC")


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
    """The symbols of an ELF file, moved by `base`; none of a file that is damaged or stripped."""
    from elftools.common.exceptions import ELFError
    from elftools.elf.elffile import ELFFile

    entries: list[tuple[int, int, str]] = []
    try:
        file = ELFFile(io.BytesIO(data))
        for name in (".symtab", ".dynsym"):
            section: Any = file.get_section_by_name(name)
            if section is None or entries:
                continue
            entries += _of_section(section, base)
    # The file is anybody's: pyelftools raises whatever its own slips raise.
    except (
        ELFError,
        ValueError,
        KeyError,
        IndexError,
        TypeError,
        AttributeError,
        OverflowError,
        AssertionError,
    ):
        pass
    return Symbols(entries)


def _of_section(section: Any, base: int) -> Iterator[tuple[int, int, str]]:
    for count, symbol in enumerate(section.iter_symbols()):
        if count >= MOST_SYMBOLS:
            return
        kind, where = symbol["st_info"]["type"], symbol["st_shndx"]
        if symbol.name and kind in _CODE_OR_DATA and where not in ("SHN_UNDEF", "SHN_ABS"):
            yield symbol["st_value"] + base, symbol["st_size"], symbol.name


def of_map(data: bytes, base: int = 0) -> Symbols:
    """The symbols of a System.map, as `nm` prints them: address, type, name."""
    return Symbols(
        (int(line[1], 16) + base, 0, line[3].decode(errors="replace"))
        for line in _MAP_LINE.finditer(data)
        if line[2] not in b"aAuUwW"
    )


def read(data: bytes, base: int = 0) -> Symbols:
    """The symbols of a file of either kind."""
    return of_elf(data, base) if data.startswith(b"\x7fELF") else of_map(data, base)
