"""Parts of pages of the documentation that a command makes.

A part begins with `<!-- generated: NAME -->` and ends with `<!-- end -->`. All else is prose.
`tools/generate_figures.py` knows all parts, and `tests/unit/test_docs.py` compares each with what is made.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

BEGIN: Final = "<!-- generated: "
END: Final = "<!-- end -->"
PART: Final = re.compile(rf"({BEGIN}([^\n]*) -->\n)((?:(?!<!-- ).)*){END}", re.DOTALL)
DITTO: Final = "″"
"""A cell that has the same as the one to its left."""


def line(*cells: str) -> str:
    """A line of a table."""
    return f"| {' | '.join(cells)} |"


def said_once(cells: Sequence[str]) -> list[str]:
    """The cells, those of several words that repeat the one to their left as `DITTO`."""
    before = ("", *cells[:-1])
    return [DITTO if one == left and " " in one else one for one, left in zip(cells, before, strict=True)]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table. Columns, and rows, that have the same in each cell but the first are one."""
    by_column: dict[tuple[str, ...], list[str]] = {}
    for name, cells in zip(head[1:], zip(*(row[1:] for row in rows), strict=True), strict=True):
        by_column.setdefault(cells, []).append(name)
    by_row: dict[tuple[str, ...], list[str]] = {}
    for row, cells in zip(rows, zip(*by_column, strict=True), strict=True):
        by_row.setdefault(cells, []).append(row[0])
    return [
        line(head[0], *("; ".join(names) for names in by_column.values())),
        line(*["---"] * (len(by_column) + 1)),
        *(line("; ".join(names), *said_once(cells)) for cells, names in by_row.items()),
    ]


def filled(text: str, of: Callable[[str], str | None]) -> str:
    """The page `text` with its parts made anew.

    `of` has the part of a name, without its last line break, or None for one that stays. ValueError for one
    without an end.
    """

    def part(match: re.Match[str]) -> str:
        made = of(match[2])
        return match[0] if made is None else f"{match[1]}{made}\n{END}"

    if text.count(BEGIN) != len(PART.findall(text)):
        raise ValueError("a generated part has no end")
    return PART.sub(part, text)


def fill(page: Path, name: str, lines: Sequence[str]) -> None:
    """Put lines into the part `name` of a page. ValueError if it has no such part."""
    text = page.read_text(encoding="utf-8")
    if f"{BEGIN}{name} -->" not in text:
        raise ValueError(f"{page} has no part '{name}'")
    made = filled(text, {name: "\n".join(lines)}.get)
    page.write_text(made, encoding="utf-8")
