"""Bugs that device models of others had, planted in a copy of kvmbox one by one.

    python -m tools.planted                  attack and find all of them, print the table
    python -m tools.planted NAME …           these
    python -m tools.planted --page           and put the rows into docs/reach.md, and their data into
                                             docs/planted.json
    python -m tools.planted --attacks        attack only

Each is used by a guest in several kinds of machine, and looked for by fuzzers and tests. Needs /dev/kvm, cc,
and guests that are built. A shell that runs for a guest writes an empty file, and does nothing else.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Final

from tools.blocks import fill, line, said_once
from tools.planted.attack import WAYS, Outcome, attack, build
from tools.planted.finders import CONFTEST, NO_SHRINKING, Found, Search
from tools.planted.plant import Plant, plants
from tools.scratch import FOLDERS, PROJECT, Scratch

PAGE: Final = PROJECT / "docs/reach.md"
DATA: Final = PROJECT / "docs/planted.json"
HEAD: Final = ("bug", "here", *WAYS, "found by a fuzzer", "by a test of the device")


def scratch() -> Scratch:
    """A copy in which Python runs all that can have a bug."""
    return Scratch((*FOLDERS, "guests"), compiled=False)


def title(plant: Plant) -> str:
    """The first cell of its line."""
    return f"{plant.kind}, {', '.join(plant.cves)}"


def cells(outcomes: dict[str, Outcome], found: Sequence[Found] | None) -> list[str]:
    """What came of it: the cells of its line behind the first two."""

    def best(is_fuzzer: bool) -> str:
        if found is None:
            return "?"
        one = next((one for one in found if one.is_fuzzer == is_fuzzer), None)
        return f"{one.by}: {one.how}, {one.seconds:.0f} s" if one else "**no**"

    return [*map(str, outcomes.values()), best(True), best(False)]


def rows_of(measured: Mapping[str, Sequence[str]]) -> list[str]:
    """The table: a line for each bug that was measured."""
    lines = [line(*HEAD), line(*["---"] * len(HEAD))]
    for plant in plants():
        if plant.name in measured:
            *ends, fuzzer, test = measured[plant.name]
            lines.append(line(title(plant), plant.here, *said_once(ends), fuzzer, test))
    return lines


def examine(plant: Plant, search: Search | None) -> list[str]:
    """Plant it, attack it in each way, have it looked for; what came of it."""
    with scratch() as copy:
        top = copy.root
        plant.apply(top)
        image = build(plant, top)
        with (top / CONFTEST).open("a", encoding="utf-8") as conftest:
            conftest.write(NO_SHRINKING)
        outcomes = {name: attack(plant, top, image, way) for name, way in WAYS.items()}
        return cells(outcomes, list(search.find(plant, top)) if search else None)


def main(arguments: Sequence[str]) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="planted", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--attacks", action="store_true", help="look for nothing")
    parser.add_argument("--page", action="store_true", help="put the rows into docs/reach.md")
    options = parser.parse_args(arguments)
    chosen = [plant for plant in plants() if not options.names or plant.name in options.names]
    if len(chosen) < len(set(options.names)):
        parser.error(f"known: {', '.join(plant.name for plant in plants())}")
    measured: dict[str, list[str]] = {}
    with scratch() as clean:
        search = None if options.attacks else Search(clean.root)
        for plant in chosen:
            measured[plant.name] = examine(plant, search)
            print(rows_of({plant.name: measured[plant.name]})[-1], flush=True)
    if options.page:
        before = json.loads(DATA.read_text(encoding="utf-8"))
        kept = dict(sorted((before | measured).items()))
        DATA.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        fill(PAGE, "planted", rows_of(kept))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
