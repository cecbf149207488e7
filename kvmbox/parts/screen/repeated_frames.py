"""Which rows of the screen the console has shown already: the built-in BIOS prints to both."""

from __future__ import annotations

from collections.abc import Sequence

from kvmbox.parts.screen.glyphs import text_of

_BELL, _BACKSPACE, _LINE_FEED, _CARRIAGE_RETURN = b"\a\b\n\r"


def lines_of(printed: bytes | bytearray, columns: int) -> set[str]:
    """The lines that were printed on a screen of so many columns, as they look in the end, without the blanks
    around them.
    """
    found = set()
    line = bytearray()
    column = 0
    for byte in printed:
        if byte == _LINE_FEED:
            found.add(text_of(line).strip(" "))
            line.clear()
            column = 0
        elif byte == _CARRIAGE_RETURN:
            column = 0
        elif byte == _BACKSPACE:
            column = max(0, column - 1)
        elif byte != _BELL:
            line[column : column + 1] = bytes((byte,))
            column += 1
            if column == columns:
                found.add(text_of(line).strip(" "))
                line.clear()
                column = 0
    return found | {text_of(line).strip(" ")}


def without_repeated(rows: Sequence[str], printed: bytes | bytearray, columns: int) -> list[str]:
    """The rows that are no line of what was printed. An empty row belongs to the one before it."""
    lines = lines_of(printed, columns)
    kept: list[str] = []
    keeps = False
    for row in rows:
        keeps = row.strip(" ") not in lines if row else keeps
        if keeps:
            kept.append(row)
    while kept and not kept[-1]:
        kept.pop()
    return kept
