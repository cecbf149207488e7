"""Runs all foreign guests and entries of kvm-unit-tests under QEMU and under kvmbox, with this host's KVM.

`python -m tests.foreign.survey` prints a Row a line, in JSON. `tools/guests_that_boot.py` runs it in the lab.
"""

from __future__ import annotations

import argparse
import math
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from tests.foreign import images
from tests.foreign import kvm_unit_tests as suite
from tests.foreign.guests import GUESTS, Guest
from tests.foreign.observe import End, Observation, observe
from tests.foreign.rows import ENTRY, GUEST, Row
from tests.lab.packages import EMULATOR, Unavailable
from tests.support.guest_table import backend
from tests.support.patience import patience
from tests.support.runs import KVMBOX

KVMBOX_NAME: Final = "kvmbox"
QEMU_NAME: Final = "QEMU"
_NOTE: Final = 160
"""Characters of a note: one line of a table."""
_OUR_SIGNAL: Final = "terminating on signal"
"""What QEMU says when the survey ends it."""
# QEMU's own words for features that this host's KVM cannot give are no news about a guest.
_NO_NEWS: Final = re.compile(r"warning: |^$")


def qemu_guest_command(arguments: Sequence[str]) -> list[str]:
    """QEMU's command line for a guest: a PC with a serial port on stdout, and no disk, screen or network."""
    return [
        *(EMULATOR, "-accel", "kvm", "-cpu", "max,-arch-capabilities", "-m", "256M"),
        *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-serial", "stdio"),
        *arguments,
    ]


def guest_note(seen: Observation) -> str:
    """Why a guest got no further, in one line: an error, else any other words, else how it ended."""
    ours = "" if seen.end is End.ITSELF else _OUR_SIGNAL
    lines = [line.strip() for line in seen.errors.splitlines() if not _NO_NEWS.search(line)]
    lines = [line for line in lines if not (ours and ours in line)]
    for line in [*(line for line in lines if "error" in line), *lines]:
        return line.removeprefix("kvmbox: error: ")[:_NOTE]
    if seen.end is End.ITSELF:
        return f"status {seen.status}"
    return "" if seen.end is End.SEEN else seen.end.value


def survey_guest(guest: Guest, program: str, backend_name: str, limit_s: float) -> Row:
    """Run `guest` to its last milestone, its end or its time limit."""

    def row(result: str, reached: int = 0, note: str = "", seconds: float = 0.0) -> Row:
        return Row(
            *(backend_name, program, GUEST, guest.name, result, reached, len(guest.milestones), note),
            round(seconds, 1),
            images.version(guest.package),
        )

    with tempfile.TemporaryDirectory() as directory:
        try:
            start = guest.start(Path(directory))
        except Unavailable as problem:
            return row("not tried", note=str(problem))
        if program == QEMU_NAME and not start.qemu:
            return row("no way to boot it")
        command = (
            [*KVMBOX, "run", *start.kvmbox] if program == KVMBOX_NAME else qemu_guest_command(start.qemu)
        )
        seen = observe(
            command,
            timeout_s=min(limit_s, patience(guest.timeout_s)),
            typed=guest.typed,
            enough=lambda output, errors: (
                guest.reached(output) == len(guest.milestones) or suite.qemu_stopped(output, errors)
            ),
        )
    reached = guest.reached(seen.output)
    result = guest.milestones[reached - 1].name if reached else "nothing"
    note = "" if reached == len(guest.milestones) else guest_note(seen)
    return row(result, reached, note, seen.seconds)


def survey_entry(entry: suite.Entry, tree: Path, program: str, backend_name: str, limit_s: float) -> Row:
    """Run one entry of kvm-unit-tests."""

    def row(result: str, note: str, seconds: float = 0.0) -> Row:
        passed = int(result == suite.Verdict.PASS.value)
        return Row(backend_name, program, ENTRY, entry.name, result, passed, 1, note, round(seconds, 1))

    if reason := entry.left_out():
        return row("left out", reason)
    if program == KVMBOX_NAME:
        seen = observe(
            [*KVMBOX, *suite.kvmbox_arguments(entry, tree)], timeout_s=min(limit_s, patience(entry.timeout_s))
        )
        verdict = suite.kvmbox_verdict(seen)
    else:
        seen = observe(
            suite.qemu_command(entry, tree, EMULATOR),
            timeout_s=min(limit_s, patience(entry.timeout_s)),
            enough=suite.qemu_stopped,
        )
        verdict = suite.qemu_verdict(seen)
    note = "" if verdict is suite.Verdict.PASS else suite.why(seen)[:_NOTE]
    return row(verdict.value, note, seen.seconds)


def survey(pattern: str, programs: Sequence[str], tree: Path | None, limit_s: float) -> Iterator[Row]:
    """All rows whose name matches `pattern`, as they are measured; each run takes at most `limit_s`."""
    here = backend()
    for guest in GUESTS:
        if re.search(pattern, guest.name):
            for program in programs:
                yield survey_guest(guest, program, here, limit_s)
    if tree is None:
        return
    for entry in suite.entries(tree):
        if re.search(pattern, entry.name):
            for program in programs:
                yield survey_entry(entry, tree, program, here, limit_s)


def main(arguments: Sequence[str]) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.foreign.survey",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_options(parser)
    options = parser.parse_args(arguments)
    for row in survey(options.only, programs(options), options.kut, options.limit):
        print(row.line(), flush=True)
    return 0


def add_options(parser: argparse.ArgumentParser) -> None:
    """What to measure."""
    parser.add_argument("--only", default="", metavar="PATTERN", help="names that match a regular expression")
    parser.add_argument("--program", choices=(QEMU_NAME, KVMBOX_NAME), help="one of them (both)")
    parser.add_argument(
        "--limit", type=float, default=math.inf, metavar="SECONDS", help="for each run, if less than its own"
    )
    parser.add_argument("--kut", type=Path, metavar="DIR", help="a built tree of kvm-unit-tests")


def programs(options: argparse.Namespace) -> list[str]:
    """The programs to measure; QEMU only where it is installed."""
    wanted = [options.program] if options.program else [QEMU_NAME, KVMBOX_NAME]
    if shutil.which(EMULATOR) is None and QEMU_NAME in wanted:
        print(f"{EMULATOR} is not installed: its columns stay as they are", file=sys.stderr)
        wanted.remove(QEMU_NAME)
    return wanted


if __name__ == "__main__":
    # Whoever ends this command ends the guest too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    sys.exit(main(sys.argv[1:]))
