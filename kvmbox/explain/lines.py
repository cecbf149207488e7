"""Source lines of addresses, from the DWARF line table of an ELF file."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any, Final

from kvmbox.base.value_classes import Value
from kvmbox.explain.demangled_names import printable

MOST_ROWS: Final = 400_000
"""How many rows of line tables are looked at, all questions together: what takes pyelftools 3 s."""

MOST_TABLE: Final = 1 << 20
"""The bytes of one unit's line table: pyelftools decodes it whole."""

MOST_INFO: Final = 512 << 20
"""The bytes of all sections of debug information together, once they are inflated."""

MOST_FRAMES: Final = 1 << 20
"""The bytes of call frame information, which pyelftools decodes whole: 2 s."""


class Line(Value):
    """A line of a source file: the `path` as the compiler wrote it, and the number from 1."""

    path: str
    number: int

    def __str__(self) -> str:
        return f"{self.path.rpartition('/')[2]}:{self.number}"


class Lines:
    """The line table of an ELF file. Reads on demand, and only what the answer needs."""

    def __init__(self, data: bytes, base: int = 0, may_go_on: Callable[[], bool] = lambda: True) -> None:
        """`base` is added to the addresses in the file. `may_go_on` says whether there is still time."""
        self._base = base
        self._may_go_on = may_go_on
        self._dwarf: Any = None
        self._ranges: Any = None
        self._rows_left = MOST_ROWS
        self._known: dict[int, Line | None] = {}
        from elftools.elf.elffile import ELFFile

        try:
            file = ELFFile(io.BytesIO(data))
            if file.has_dwarf_info() and _fits(file):
                self._dwarf = file.get_dwarf_info(relocate_dwarf_sections=False)
                self._ranges = self._dwarf.get_aranges()
        except Exception:  # noqa: BLE001 - the file is anybody's: pyelftools raises whatever its slips raise
            self._dwarf = None

    @property
    def dwarf(self) -> Any:
        """What pyelftools knows of the file, or None."""
        return self._dwarf

    def at(self, address: int) -> Line | None:
        """The line of the instruction at `address`, or None."""
        if self._dwarf is None:
            return None
        if address not in self._known:
            try:
                self._known[address] = self._find(address - self._base)
            except Exception:  # noqa: BLE001 - as above
                self._known[address] = None
        return self._known[address]

    def _find(self, address: int) -> Line | None:
        if self._ranges is not None:
            offset = self._ranges.cu_offset_at_addr(address)
            if offset is not None:
                found = self._in_unit(self._dwarf.get_CU_at(offset), address)
                if found is not None:
                    return found
        for unit in self._dwarf.iter_CUs():
            if self._rows_left <= 0 or not self._may_go_on():
                return None
            found = self._in_unit(unit, address)
            if found is not None:
                return found
        return None

    def _in_unit(self, unit: Any, address: int) -> Line | None:
        top = unit.get_top_DIE()
        low, high = (top.attributes.get(name) for name in ("DW_AT_low_pc", "DW_AT_high_pc"))
        if low is not None and high is not None:
            end = high.value if high.form == "DW_FORM_addr" else low.value + high.value
            if not low.value <= address < end:
                return None
        program = self._dwarf.line_program_for_CU(unit)
        if program is None or program.header["unit_length"] > MOST_TABLE:
            return None
        before: Any = None
        for entry in program.get_entries():
            self._rows_left -= 1
            if self._rows_left <= 0:
                return None
            row = entry.state
            if row is None:
                continue
            if before is not None and before.address <= address < row.address:
                return self._line(program, before, top)
            before = None if row.end_sequence else row
        return None

    def _line(self, program: Any, row: Any, top: Any) -> Line | None:
        header = program.header
        files = header["file_entry"]
        index = row.file if header["version"] >= 5 else row.file - 1
        if not 0 <= index < len(files):
            return None
        file = files[index]
        directories = header["include_directory"]
        directory = b""
        number = file.dir_index
        if header["version"] >= 5:
            if 0 <= number < len(directories):
                directory = directories[number]
        elif 0 < number <= len(directories):
            directory = directories[number - 1]
        name = _text(file.name)
        path = _text(directory)
        compiled_in = top.attributes.get("DW_AT_comp_dir")
        parts = [part for part in (path, name) if part]
        if not name.startswith("/") and not path.startswith("/") and compiled_in is not None:
            parts.insert(0, _text(compiled_in.value))
        if name.startswith("/"):
            parts = [name]
        return Line(printable("/".join(parts)), int(row.line))


def _fits(file: Any) -> bool:
    """Whether the debug information is of a size that can be read. `.zdebug` does not tell its size."""
    kinds = (".debug", ".zdebug", ".eh_frame")
    sections = [one for one in file.iter_sections() if one.name.startswith(kinds)]
    frames = sum(one.data_size for one in sections if one.name in (".eh_frame", ".debug_frame"))
    return (
        not any(one.name.startswith(".z") for one in sections)
        and sum(one.data_size for one in sections) <= MOST_INFO
        and frames <= MOST_FRAMES
    )


def _text(value: bytes | str) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
