"""What is known of the addresses of a guest: names, source lines, and how to find callers.

The knowledge comes from the image, or from the files of `--symbols`. Nothing is read before the first
question.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from kvmbox.base.symbol_file import SymbolFile
from kvmbox.explain import symbols
from kvmbox.explain.lines import Line, Lines
from kvmbox.explain.symbols import Place, Symbols
from kvmbox.explain.unwind import Frames, callers_in

SEARCH_SECONDS: Final = 5.0
"""For how many seconds debug information is searched, for all that one report or profile wants to know."""

SourceText = Callable[[str, int], str | None]
"""Gives the text of a line of a source file: by the path that the compiler wrote, and the number from 1."""


class _Known:
    def __init__(self, file: SymbolFile, may_go_on: Callable[[], bool]) -> None:
        data = file.data
        self.symbols: Final[Symbols] = symbols.read(data, file.base)
        self.entry: int | None = symbols.entry_of(data, file.base)
        self.lines: Lines | None = None
        self.frames: Frames | None = None
        if data.startswith(b"\x7fELF"):
            self.lines = Lines(data, file.base, may_go_on)
            self.frames = Frames(self.lines.dwarf, file.base)


class DebugInfo:
    """See the module. The first file that knows an address is asked about it."""

    def __init__(
        self,
        files: Sequence[SymbolFile] = (),
        may_go_on: Callable[[], bool] = lambda: True,
        source_text: SourceText = lambda _path, _number: None,
    ) -> None:
        """`may_go_on` says whether there is still time: what is not found by then has no name."""
        self._source_text = source_text
        self._files = list(files)
        self._may_go_on = may_go_on
        self._known: list[_Known] | None = None

    @property
    def _all(self) -> list[_Known]:
        if self._known is None:
            self._known = [_Known(file, self._may_go_on) for file in self._files]
        return self._known

    def place(self, address: int) -> Place | None:
        """The symbol of `address` and the offset in it, or None."""
        places = (known.symbols.at(address) for known in self._all)
        return next((place for place in places if place is not None), None)

    @property
    def entry(self) -> str | None:
        """The function at which the first ELF file begins, or None."""
        entry = next((known.entry for known in self._all if known.entry is not None), None)
        place = None if entry is None else self.place(entry)
        return None if place is None else place.symbol

    def line(self, address: int) -> Line | None:
        """The source line of the instruction at `address`, or None."""
        lines = (known.lines.at(address) for known in self._all if known.lines is not None)
        return next((line for line in lines if line is not None), None)

    def source(self, address: int) -> str:
        """The text of the source line of the instruction at `address`, or an empty text."""
        line = self.line(address)
        return "" if line is None else self._source_text(line.path, line.number) or ""

    def frames(self, address: int) -> Frames | None:
        """The call frame information of the file that knows `address`."""
        for known in self._all:
            if known.frames is not None and known.symbols.at(address) is not None:
                return known.frames
        return next((known.frames for known in self._all if known.frames is not None), None)

    def callers(self, pc: int, top: Sequence[int], bits: int, most: int) -> list[int]:
        """See `unwind.callers_in`; none where there is no call frame information, or no time is left."""
        frames = self.frames(pc)
        return [] if frames is None or not self._may_go_on() else callers_in(frames, pc, top, bits, most)

    def named(self, address: int) -> str:
        """`symbol+0x4 (file.c:12)`, as much of that as is known, or an empty text."""
        place = self.place(address)
        return self._with_line("" if place is None else str(place), address)

    def function(self, address: int) -> str:
        """`symbol (file.c:12)`, as much of that as is known, or an empty text."""
        place = self.place(address)
        return self._with_line("" if place is None else place.symbol, address)

    def _with_line(self, name: str, address: int) -> str:
        line = self.line(address)
        return " ".join([*([name] if name else []), *([f"({line})"] if line else [])])
