"""A page of Markdown with tables of measurements between markers.

    <!-- generated: bench heading -->   host and rounds
    <!-- generated: bench TABLE -->     that table of `answer.TABLES`
    <!-- end -->

What stands between a marker and its end is replaced; nothing else is touched. So a page cannot say other
numbers than the file of results that it was made from, and a test compares the two.
"""

from __future__ import annotations

import os
import re
from typing import Final

from kvmbox.base.errors import HostOutputError, UsageError
from kvmbox.base.regular_file import open_regular_file
from kvmbox.tools.bench import result_tables
from kvmbox.tools.bench.answer import TABLES
from kvmbox.tools.bench.measuring_plan import QEMU
from kvmbox.tools.bench.results import Results

HEADING: Final = "heading"
BEGIN: Final = "<!-- generated: bench "
END: Final = "<!-- end -->"
_BLOCK: Final = re.compile(rf"{BEGIN}([^\n]*) -->\n(?:(?!<!-- ).)*{END}", re.DOTALL)


def check(path: str, text: str) -> None:
    """UsageError if the page in the file `path` has no marker, an unknown one, or one without its end."""
    blocks = list(_BLOCK.finditer(text))
    hint = "docs/performance.md is a page with markers"
    if text.count(BEGIN) != len(blocks):
        raise UsageError(f"--page '{path}': a marker has no end", hint=hint)
    if not blocks:
        raise UsageError(f"--page '{path}' has no marker '{BEGIN}TABLE -->'", hint=hint)
    for block in blocks:
        if block[1] != HEADING and block[1] not in TABLES:
            known = ", ".join((HEADING, *TABLES))
            raise UsageError(f"--page '{path}': there is no table '{block[1]}'", hint=f"known: {known}")


def read(path: str) -> str:
    """The text of the page in the file `path`. Raises UsageError."""
    try:
        with os.fdopen(open_regular_file(path), "r", encoding="utf-8") as file:
            return file.read()
    except OSError as error:
        raise UsageError(f"--page: cannot read '{path}': {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"--page '{path}' is not UTF-8") from error


def fill(path: str, results: Results) -> None:
    """Fill the page in the file `path`. Raises UsageError, and HostOutputError if it cannot be written."""
    text = filled(path, read(path), results)
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise HostOutputError(f"cannot write --page '{path}': {error.strerror}") from error


def filled(path: str, text: str, results: Results) -> str:
    """`text`, the page in the file `path`, with the tables of `results` between its markers.

    UsageError if the page is wrong, or if the results lack one of its tables.
    """
    check(path, text)
    if not any(results.values(row.name, QEMU) for row in results.rows):
        raise UsageError(
            f"--page '{path}' compares with QEMU, which was not measured", hint="measure with --peer qemu"
        )

    def block(match: re.Match[str]) -> str:
        return f"{BEGIN}{match[1]} -->\n{_content(path, match[1], results)}\n{END}"

    return _BLOCK.sub(block, text)


def _content(path: str, name: str, results: Results) -> str:
    if name == HEADING:
        return "  \n".join(result_tables.heading(results))
    table = TABLES[name](results)
    if table is None:
        raise UsageError(
            f"--page '{path}': nothing was measured for its table '{name}'", hint="measure without --only"
        )
    return result_tables.grid(table)
