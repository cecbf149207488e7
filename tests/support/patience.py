"""How long a test waits before it calls something stuck: the one place where a slow host is allowed for.

KVMBOX_TEST_PATIENCE multiplies every such wait (1 by default; the emulated machine of tests/lab sets more).
It never changes what is asserted: a wait that a correct kvmbox ends takes no longer with more patience.
"""

from __future__ import annotations

import os
from typing import Final

FACTOR: Final = float(os.environ.get("KVMBOX_TEST_PATIENCE", "1"))


def patience(seconds: float) -> float:
    """`seconds` on a host of usual speed, scaled for this one."""
    return seconds * FACTOR


def patient_options(options: list[str]) -> list[str]:
    """Options of a run, with the seconds of each `--timeout` scaled: the guest gets as far as it should."""
    previous = ["", *options]
    return [
        f"{patience(float(option)):g}" if before == "--timeout" else option
        for before, option in zip(previous, options, strict=False)
    ]
