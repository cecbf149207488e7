"""Tables in pages of the documentation that a command makes.

A block begins with `<!-- NAME -->` and ends with `<!-- NAME: end -->`. All else is prose.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

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


def fill(page: Path, name: str, lines: Sequence[str]) -> None:
    """Put lines into the block `name` of a page. ValueError if it has no such block."""
    begin, end = f"<!-- {name} -->\n", f"<!-- {name}: end -->"
    text = page.read_text(encoding="utf-8")
    before, has_begin, rest = text.partition(begin)
    _, has_end, after = rest.partition(end)
    if not (has_begin and has_end):
        raise ValueError(f"{page} has no block '{name}'")
    page.write_text(f"{before}{begin}{chr(10).join(lines)}\n{end}{after}", encoding="utf-8")


def merged(page: Path, name: str, lines: Sequence[str], order: Sequence[str]) -> list[str]:
    """The lines of a block: of the first cells in `order`, the row of `lines`, or else the one that is there.

    `lines` begin with the two of the heading.
    """
    block = page.read_text(encoding="utf-8").partition(f"<!-- {name} -->\n")[2].partition("<!--")[0]
    rows = {one.split("|")[1].strip(): one for one in (*block.splitlines()[2:], *lines[2:])}
    return [*lines[:2], *(rows[first] for first in order if first in rows)]
