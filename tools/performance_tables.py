#!/usr/bin/env python3
"""Put the tables of a result of `kvmbox bench --json` between the markers of docs/performance.md.

tools/performance_tables.py RESULT.json [PAGE]
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

BEGIN = "<!-- bench: begin"
END = "<!-- bench: end -->"
PAGE = Path(__file__).parent.parent / "docs" / "performance.md"


def splice(page: str, tables: str) -> str:
    """`page` with `tables` between the markers. ValueError if they are not there once."""
    before, begin, rest = page.partition(BEGIN)
    marker, line_end, rest = rest.partition("\n")
    old, end, after = rest.partition(END)
    if not (begin and line_end and end) or BEGIN in old + after:
        raise ValueError(f"the page has no '{BEGIN}' and '{END}', each once, in that order")
    return f"{before}{begin}{marker}\n{tables.strip()}\n{end}{after}"


def main() -> int:
    """The command; status 2 for wrong arguments, the status of `kvmbox bench` if that fails."""
    if len(sys.argv) not in (2, 3):
        sys.stderr.write(f"usage: {sys.argv[0]} RESULT.json [PAGE]\n")
        return 2
    page = Path(sys.argv[2]) if len(sys.argv) == 3 else PAGE
    entry = "from kvmbox.cli.entry import entry_point; entry_point()"
    done = subprocess.run(
        [sys.executable, "-c", entry, "bench", "--load", sys.argv[1], "--markdown"],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode == 0:
        page.write_text(splice(page.read_text(encoding="utf-8"), done.stdout), encoding="utf-8")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
