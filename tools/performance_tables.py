#!/usr/bin/env python3
"""Put what `kvmbox bench --json` measured into docs/: `tools/performance_tables.py RESULT.json`.

The result itself becomes docs/performance/results.json, some of it the picture, and the page gets its
tables. The page has blocks, which are replaced as a whole:

    <!-- bench: heading -->             host and rounds
    <!-- bench: TABLE [PATTERN...] -->  that table of `kvmbox bench --load RESULT.json --only PATTERN ...`;
    ...                                 TABLE is the name of a row, or how else its title begins
    <!-- bench: end -->

Run it with a Python that has kvmbox and matplotlib.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from kvmbox.bench import answer, plot, report
from kvmbox.bench.results import Results, load
from kvmbox.errors import KvmboxError

DOCS = Path(__file__).parent.parent / "docs"
PAGE = DOCS / "performance.md"
DATA = DOCS / "performance"
DRAWN = (
    *("inb_from_device", "mov_from_device", "rtc_read", "thr_polled", "debugcon", "inb_from_device_cpl3"),
    "process/*",
)
BEGIN = "<!-- bench: "
END = "<!-- bench: end -->"
_BLOCK = re.compile(r"(<!-- bench: (?!end -->)([^\n]*) -->\n).*?(<!-- bench: end -->)", re.DOTALL)


def content(results: Results, what: str, patterns: list[str]) -> str:
    """A block's lines. ValueError if there is no such table."""
    if what == "heading":
        return "  \n".join(report.heading(results))
    tables = report.row_tables(results.narrowed(patterns))
    concluded = answer.answer_table(results)
    if concluded is not None:
        tables.append(concluded)
    tables = [table for table in tables if table.title.startswith(what)]
    if not tables:
        raise ValueError(f"the result has no table '{what}'")
    return "\n".join(report.markdown(table) for table in tables)


def filled(page: str, results: Results) -> str:
    """`page` with all of its blocks filled. ValueError if a block is wrong, or there is none."""

    def block(match: re.Match[str]) -> str:
        what, *patterns = match[2].split()
        if BEGIN in match[0][len(match[1]) : -len(END)]:
            raise ValueError(f"the block '{match[2]}' has no end")
        return f"{match[1]}{content(results, what, patterns).strip()}\n{match[3]}"

    after, blocks = _BLOCK.subn(block, page)
    if not blocks or page.count(BEGIN) != 2 * blocks:
        raise ValueError("the page has no block, or one without an end")
    return after


def main() -> int:
    """The command; status 2 for wrong arguments, 1 for a result or a page that is not as it should be."""
    if len(sys.argv) != 2:
        sys.stderr.write(f"usage: {sys.argv[0]} RESULT.json\n")
        return 2
    try:
        results = load(sys.argv[1])
        page = filled(PAGE.read_text(encoding="utf-8"), results)
    except (KvmboxError, ValueError) as error:
        sys.stderr.write(f"{sys.argv[0]}: {error}\n")
        return 1
    PAGE.write_text(page, encoding="utf-8")
    (DATA / "results.json").write_text(results.as_json(), encoding="utf-8")
    plot.draw(results.narrowed(DRAWN), str(DATA / "ratios.svg"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
