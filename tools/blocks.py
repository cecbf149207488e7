"""Tables in pages of the documentation that a command makes.

A block begins with `<!-- NAME -->` and ends with `<!-- NAME: end -->`. All else is prose.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def line(*cells: str) -> str:
    """A line of a table."""
    return f"| {' | '.join(cells)} |"


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
