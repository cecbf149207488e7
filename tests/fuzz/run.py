"""The fuzzer: `python -m tests.fuzz.run --help`. `make fuzz` runs it.

Each target has a process of its own, in which only the branches of its own modules are counted. It begins
with its corpus, and stops at the first finding, with status 1.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatch, fnmatchcase
from importlib import import_module
from pathlib import Path
from typing import Final, NamedTuple

from tests.fuzz import branches
from tests.fuzz.engine import Campaign, Found, bounded, pack, unpack
from tests.fuzz.reasons import REASONS
from tests.fuzz.table import TABLE
from tools.blocks import fill, line

CORPUS: Final = Path(__file__).parent / "corpus"
PACKAGE: Final = Path(__file__).parents[2] / "kvmbox"
PAGE: Final = PACKAGE.parent / "docs/threat-model.md"
DATA: Final = PACKAGE.parent / "docs/fuzzing.json"
LIST: Final = Path(__file__).parent / "unreached.txt"
UNKNOWN: Final = "no input has taken it yet: rare values, or several at once"


class Report(NamedTuple):
    """What came of one target in `seconds` of CPU time. `unreached` are the outcomes that no input has taken:
    name, file and line.
    """

    name: str
    outcomes: int
    reached: int
    executions: int
    seconds: float
    inputs: int
    unreached: list[list[str]]
    fault: str = ""

    @property
    def share(self) -> float:
        """How many percent of the outcomes were reached."""
        return 100 * self.reached / self.outcomes if self.outcomes else 100.0

    @property
    def line(self) -> str:
        """The report as a row of a table."""
        speed = self.executions / max(self.seconds, 1e-9)
        return (
            f"{self.name:<18}{self.reached:>6} of {self.outcomes:>5} branches {self.share:>6.1f} %"
            f"{self.executions:>10} executions{speed:>8.0f}/s{self.inputs:>6} inputs kept"
        )


def reason_of(outcome: str) -> str:
    """Why no input takes an outcome, or `UNKNOWN`."""
    for reason, patterns in REASONS.items():
        if any(fnmatchcase(outcome, pattern) for pattern in patterns):
            return reason
    return UNKNOWN


def corpus_of(name: str) -> list[bytes]:
    """The inputs that are kept of a target."""
    path = CORPUS / name
    return unpack(path.read_bytes()) if path.exists() else []


def load(name: str) -> None:
    """Load what a target covers, with its branches counted."""
    patterns = TABLE[name].files
    branches.count_branches(patterns)
    for path in sorted(PACKAGE.rglob("*.py")):
        relative = path.relative_to(PACKAGE)
        if any(fnmatch(str(relative), pattern) for pattern in patterns):
            import_module("kvmbox." + str(relative.with_suffix("")).replace("/", "."))


def run_target(name: str, seconds: float, seed: int, *, keep: bool) -> Report:
    """Fuzz one target in this process, for so long; with 0, only its corpus. `keep`: write that anew."""
    load(name)
    target = TABLE[name].target(name)
    began = time.process_time()
    fault = ""
    campaign = Campaign(target, seed)
    with bounded():
        try:
            campaign.begin(corpus_of(name))
            campaign.fuzz(seconds - (time.process_time() - began))
        except Found as found:
            fault = str(found)
        passed = time.process_time() - began
        if keep:
            CORPUS.mkdir(exist_ok=True)
            (CORPUS / name).write_bytes(pack(campaign.minimised()))
    row = TABLE[name]
    counted = [place for place, one in enumerate(branches.OUTCOMES) if row.counts(one.file, one.where)]
    missed = [branches.OUTCOMES[place] for place in counted if not campaign.taken >> 8 * place & 1]
    return Report(
        *(name, len(counted), len(counted) - len(missed), campaign.executions, passed),
        *(len(campaign.entries), [[one.name, one.file, str(one.line)] for one in missed], fault),
    )


def run_all(names: Sequence[str], jobs: int, further: Sequence[str]) -> Iterator[Report]:
    """The reports of these targets, in order: `jobs` at a time, each in its own process."""

    def run(name: str) -> Report:
        command = [sys.executable, "-m", "tests.fuzz.run", "--target", name, "--alone", *further]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            return Report(name, 0, 0, 0, 0, 0, [], f"its process has ended with status {done.returncode}")
        return Report(*json.loads(done.stdout))

    with ThreadPoolExecutor(jobs) as pool:
        yield from pool.map(run, names)


def cells_of(reports: Sequence[Report]) -> dict[str, list[list[str]]]:
    """What the documentation has: the rows of its two tables, what was reached, and why not all."""
    counted = [one for one in reports if one.outcomes]
    whole = [one for one in counted if one.reached == one.outcomes]
    targets = [
        *([one.name, str(one.outcomes), f"{one.share:.1f} %"] for one in counted if one not in whole),
        [", ".join(one.name for one in whole), str(sum(one.outcomes for one in whole)), "all"],
        [", ".join(one.name for one in reports if not one.outcomes), "compiled code", "not counted"],
    ]
    missed = {why: Counter[str]() for why in (*REASONS, UNKNOWN)}
    for one in reports:
        for name, _, _ in one.unreached:
            missed[reason_of(name)][one.name] += 1
    reasons = [
        [why, ", ".join(f"{name} {number}" for name, number in found.items())]
        for why, found in missed.items()
        if found
    ]
    return {"targets": targets, "reasons": reasons}


def page_of(cells: Mapping[str, Sequence[Sequence[str]]]) -> list[str]:
    """The lines of both tables."""
    return [
        *("| target | branches | reached |", "|---|---|---|"),
        *(line(*row) for row in cells["targets"]),
        *("", "| why not all | branches of each target |", "|---|---|"),
        *(line(*row) for row in cells["reasons"]),
    ]


def list_of(reports: Sequence[Report]) -> str:
    """Each branch that was not reached, by target and reason."""
    lines: list[str] = []
    for one in reports:
        for why in sorted({reason_of(name) for name, _, _ in one.unreached}):
            lines.append(f"{one.name}: {why}")
            lines += [f"    {name}" for name, _, _ in one.unreached if reason_of(name) == why]
    return "\n".join([*lines, ""])


def write_page(reports: Sequence[Report]) -> None:
    """Write the tables and their data into the documentation, and the list beside the targets."""
    cells = cells_of(reports)
    fill(PAGE, "fuzzing", page_of(cells))
    DATA.write_text(json.dumps(cells, indent=1) + "\n")
    LIST.write_text(list_of(reports))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--seconds", type=float, default=10, help="of CPU time for each target; 0: only its corpus"
    )
    parser.add_argument("--seed", type=int, default=time.time_ns() & 0xFFFF_FFFF)
    parser.add_argument("--target", choices=TABLE, action="append", help="only this one; may be repeated")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="targets at a time")
    parser.add_argument("--keep", action="store_true", help="write the corpora anew, minimised")
    parser.add_argument("--unreached", action="store_true", help="list what no input has reached, and why")
    parser.add_argument("--page", action="store_true", help="write the table into the documentation")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.jobs < 1 or options.seconds < 0:
        parser.error("--jobs is 1 or more, and --seconds 0 or more")
    if options.alone:
        print(json.dumps(run_target(options.target[0], options.seconds, options.seed, keep=options.keep)))
        return 0
    print(f"seed {options.seed}", flush=True)
    further = ["--seconds", str(options.seconds), "--seed", str(options.seed)]
    reports: list[Report] = []
    for report in run_all(
        options.target or list(TABLE), options.jobs, [*further, *["--keep"] * options.keep]
    ):
        reports.append(report)
        print(report.line, flush=True)
        if report.fault:
            print(f"FAULT: {report.name}: {report.fault}", flush=True)
        for name, _, place in report.unreached if options.unreached else ():
            print(f"    {place:>5} {name}\n          {reason_of(name)}")
    if options.page:
        write_page(reports)
    return int(any(report.fault for report in reports))


if __name__ == "__main__":
    sys.exit(main())
