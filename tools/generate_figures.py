"""Writes the generated parts of the pages anew: `make docs-figures` runs it.

    python -m tools.generate_figures                of docs/performance.json and other files of data
    python -m tools.generate_figures bench.json     of another file of `kvmbox bench --json`

It measures nothing. What a part is made of, its maker below says.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Final

from kvmbox.tools.bench import markdown_page as bench_page
from kvmbox.tools.bench.results import Results, load
from tests.foreign import page as guests_page
from tests.foreign import rows as guests_rows
from tests.fuzz import run as fuzz
from tools import boot_exits, generate_options, page_tables
from tools.blocks import filled
from tools.planted import __main__ as planted
from tools.reach import __main__ as reach

PROJECT: Final = Path(__file__).resolve().parent.parent
MEASURED: Final = PROJECT / "docs/performance.json"
GUESTS: Final = PROJECT / "docs/guests-that-boot.json"

MAKERS: Final[Mapping[str, Callable[[Results], Sequence[str]]]] = {
    boot_exits.NAME: lambda results: boot_exits.rows_of(json.loads(boot_exits.DATA.read_text()), results),
    "effects": lambda _: page_tables.effects(),
    "faults": lambda _: page_tables.faults(),
    "fuzzing": lambda _: fuzz.page_of(json.loads(fuzz.DATA.read_text())),
    "modes": lambda _: page_tables.modes(),
    "options": lambda _: [generate_options.table()],
    "planted": lambda _: planted.rows_of(json.loads(planted.DATA.read_text())),
    "qemu": lambda _: page_tables.qemu(),
    "reach": lambda _: reach.rows_of(json.loads(reach.DATA.read_text())),
}
"""The lines of each part. `bench …` and `guests …` are of modules that know pages themselves."""
MODULES: Final = (bench_page.BEGIN, guests_page.BEGIN)

_load: Final = cache(load)


def page(text: str, measured: Path = MEASURED) -> str:
    """The page `text` with its parts made anew. ValueError or UsageError for a part that is not known."""
    results = _load(str(measured))
    if bench_page.BEGIN in text:
        text = bench_page.filled("the page", text, results)
    if guests_page.BEGIN in text:
        text = guests_page.filled(text, guests_rows.load(GUESTS))

    def made(name: str) -> str | None:
        if name in MAKERS:
            return "\n".join(MAKERS[name](results))
        if f"<!-- generated: {name}".startswith(MODULES):
            return None
        raise ValueError(f"nothing makes a part '{name}'")

    return filled(text, made)


def main(arguments: Sequence[str]) -> int:
    """Write each page that has a generated part."""
    measured = Path(arguments[0]) if arguments else MEASURED
    for path in sorted((PROJECT / "docs").rglob("*.md")):
        before = path.read_text(encoding="utf-8")
        after = page(before, measured)
        if after != before:
            path.write_text(after, encoding="utf-8")
            print(path.relative_to(PROJECT))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
