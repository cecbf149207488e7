#!/usr/bin/env python3
"""Measure how far foreign guests get under QEMU and kvmbox, and put it into docs/guests-that-boot.md.

    tools/guests_that_boot.py                 every guest, here
    tools/guests_that_boot.py --lab           the same in the emulated machine with AMD-V (tests/lab)
    tools/guests_that_boot.py --kut DIR       and each entry of a built tree of kvm-unit-tests
    tools/guests_that_boot.py --only 'Xen'    names that match
    tools/guests_that_boot.py --page          measure nothing, fill the page again

What is measured replaces the rows of the same guest, program and backend in docs/guests-that-boot.json. Run
it with a Python that has kvmbox, from a checkout.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TOP))  # the tests are no package of the installation

from tests.foreign import page, survey  # noqa: E402  (after the path)
from tests.foreign.rows import Row, load, merged, rows_of, save  # noqa: E402  (after the path)

PAGE = TOP / "docs/guests-that-boot.md"
DATA = TOP / "docs/guests-that-boot.json"


def in_the_lab(arguments: Sequence[str], timeout_s: int) -> Iterator[Row]:
    """The rows that the survey prints in the lab's machine. RuntimeError if it ends without success."""
    lab = [sys.executable, "-m", "tests.lab", "--timeout", str(timeout_s), "--module", "tests.foreign.survey"]
    with subprocess.Popen([*lab, "--", *arguments], cwd=TOP, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            yield from rows_of(line)
    if process.returncode:
        raise RuntimeError(f"the lab ended with status {process.returncode}")


def main(arguments: Sequence[str]) -> int:
    """Measure, merge, fill."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    survey.add_options(parser)
    parser.add_argument("--lab", action="store_true", help="measure in the lab's machine")
    parser.add_argument(
        "--lab-timeout", type=int, default=7200, metavar="SECONDS", help="for all of it (7200)"
    )
    parser.add_argument("--page", action="store_true", help="measure nothing")
    options = parser.parse_args(arguments)
    rows = load(DATA)
    if not options.page:
        if options.lab:
            words = [word for word in arguments if word != "--lab"]
            measured = in_the_lab(without(words, "--lab-timeout"), options.lab_timeout)
        else:
            measured = survey.survey(options.only, survey.programs(options), options.kut, options.limit)
        for row in measured:
            print(f"{row.backend} {row.program:6} {row.name}: {row.result} {row.note}", flush=True)
            rows = merged(rows, [row])
            save(DATA, rows)
    PAGE.write_text(page.filled(PAGE.read_text(), rows))
    return 0


def without(words: Sequence[str], option: str) -> list[str]:
    """`words` without `option` and its value, in either spelling."""
    kept, skip = list[str](), False
    for word in words:
        if not skip and word != option and not word.startswith(f"{option}="):
            kept.append(word)
        skip = not skip and word == option
    return kept


if __name__ == "__main__":
    # Whoever ends this command ends the guest too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    sys.exit(main(sys.argv[1:]))
