#!/usr/bin/env python3
"""What a boot pays: exits of whole boots, and what kvmbox adds to them, for docs/performance.md.

    python tools/boot_exits.py hello64 clock linuxboot "/usr/share/seabios/bios.bin --timeout 60"
    python tools/boot_exits.py hello64 --lab xv6 "xv6.img --memory 512M --disk fs.img --expect 'starting sh'"

Each argument is what `kvmbox run` gets. A guest of `--lab` runs in the lab's machine with AMD-V, and has a
title for the table. docs/boot-exits.json keeps the counts. What is
added is worked out: of each exit whose value was not steady, what docs/performance.json says that kvmbox adds
to a write of which the device's process has to be told.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

from kvmbox.tools.bench.measuring_plan import FLOOR, isolated
from kvmbox.tools.bench.results import Results, load
from kvmbox.tools.bench.statistics import differences, median
from tools.blocks import fill, table

PROJECT: Final = Path(__file__).resolve().parents[1]
PAGE: Final = PROJECT / "docs" / "performance.md"
DATA: Final = PROJECT / "docs" / "boot-exits.json"
MEASURED: Final = PROJECT / "docs" / "performance.json"
NAME: Final = "boot exits"
ROW: Final = "outb_to_device"
IPCS: Final = ("shm", "pipe")
FAILED: Final = (8, 10, 12, 14)
"""The statuses of a run that tells nothing of its guest: what was to be seen was not, or kvmbox failed."""
MARK: Final = "boot-exits:"
"""The lab's machine prints it in front of the counts."""

Counts: TypeAlias = tuple[int, int]
"""Exits, and how many of them were for a steady value."""


def boot(words: str) -> dict[str, Any]:
    """The results of `kvmbox run` with these words. SystemExit if the guest did not start, or come far."""
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        command = [sys.executable, "-m", "kvmbox", "run", *shlex.split(words), "--json", file.name]
        subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=False)
        # The file is empty after a usage error, which is on stderr.
        result: dict[str, Any] = json.loads(file.read() or b"{}")
    if "ports" not in result or result["status"] in FAILED:
        raise SystemExit(f"{words}: {result.get('reason', 'kvmbox run cannot be asked for that')}")
    return result


def added(results: Results, ipc: str) -> float:
    """What kvmbox adds to an exit, in ns."""
    of_kvmbox, bare = (results.series(ROW, one) for one in (isolated(ipc), FLOOR))
    return median(differences(of_kvmbox, bare))


def counts(words: str) -> Counts:
    """How often the guest exits, and how often for a steady value."""
    result = boot(words)
    return result["exits"], sum(port["steady"] for port in result["ports"])


def counts_in_lab(words: str) -> Counts:
    """The same in the lab's machine."""
    lab = [sys.executable, "-m", "tests.lab", "--module", "tools.boot_exits", "--", "--counts", words]
    done = subprocess.run(lab, cwd=PROJECT, capture_output=True, text=True, check=False)
    found = re.search(rf"^{MARK} (\d+) (\d+)", done.stdout, re.MULTILINE)
    if found is None:
        raise SystemExit(f"{words}: not counted in the lab:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return int(found[1]), int(found[2])


def row(title: str, counted: Counts, costs: Sequence[float]) -> list[str]:
    """The row of a guest."""
    exits, steady = counted
    spent = [f"{(exits - steady) * cost / 1e6:.2f} ms" for cost in costs]
    return [title, f"{exits}", f"{steady}", *spent]


def title_of(words: str) -> str:
    """The title of a guest that has no other one: the name of its image."""
    return f"`{Path(shlex.split(words)[0]).name}`"


def main(arguments: Sequence[str]) -> int:
    """Make the table of the page anew."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("guests", nargs="+", metavar="GUEST", help="what 'kvmbox run' gets, as one argument")
    parser.add_argument(
        "--lab", action="append", default=[], nargs=2, metavar=("TITLE", "GUEST"), help="a guest for the lab"
    )
    parser.add_argument("--counts", action="store_true", help="only print the counts of one guest")
    options = parser.parse_args(arguments)
    if options.counts:
        print(MARK, *counts(options.guests[0]))
        return 0
    counted = {title_of(words): counts(words) for words in options.guests}
    counted |= {title: counts_in_lab(words) for title, words in options.lab}
    kept = (f"{json.dumps(title)}: {json.dumps(one)}" for title, one in counted.items())
    DATA.write_text("{\n" + ",\n".join(kept) + "\n}\n", encoding="utf-8")
    lines = rows_of(counted, load(str(MEASURED)))
    print("\n".join(lines))
    fill(PAGE, NAME, lines)
    return 0


def rows_of(counted: Mapping[str, Counts], results: Results) -> list[str]:
    """The table, of the counts and of what was measured."""
    costs = [added(results, ipc) for ipc in IPCS]
    head = ["guest", "exits", "of them steady", *(f"added, {ipc}" for ipc in IPCS)]
    return table(head, [row(title, one, costs) for title, one in counted.items()])


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
