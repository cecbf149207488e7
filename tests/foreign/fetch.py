"""`python -m tests.foreign.fetch`: get every foreign guest now, for tests that run where no network is.

It says what cannot be had, and that is no failure: the tests that need it are skipped.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.foreign.guests import GUESTS
from tests.lab.packages import Unavailable


def fetch() -> list[str]:
    """Find, download or make the images of all guests; returns a line for each that cannot be had."""
    problems = []
    with tempfile.TemporaryDirectory() as directory:
        for guest in GUESTS:
            try:
                guest.start(Path(directory))
            except Unavailable as problem:
                problems.append(f"{guest.name}: {problem}")
    return problems


if __name__ == "__main__":
    for line in fetch():
        print(f"foreign: not available: {line}", file=sys.stderr)
