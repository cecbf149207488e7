"""How long a test waits before it calls something stuck: the one place where a slow host is allowed for.

KVMBOX_TEST_PATIENCE multiplies every such wait (1 by default; the emulated machine of tests/lab sets more).
It never changes what is asserted: a wait that a correct kvmbox ends takes no longer with more patience.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final, TypeVar

FACTOR: Final = float(os.environ.get("KVMBOX_TEST_PATIENCE", "1"))


def patience(seconds: float) -> float:
    """`seconds` on a host of usual speed, scaled for this one."""
    return seconds * FACTOR


_Result = TypeVar("_Result")
_SCALES: Final = (1, 4, 16, 64)


def far_enough(run: Callable[[int], _Result], reached: Callable[[_Result], object]) -> _Result:
    """What a `run` gives that a time-out ends, if the guest has got as far as `reached` says by then.

    If not, the host was slow: `run` is made anew with a larger scale, which multiplies its time-out. The last
    result is returned, so that the test shows what is wrong with it.
    """
    *scales, largest = _SCALES
    for scale in scales:
        result = run(scale)
        if reached(result):
            return result
    return run(largest)


def seconds(scale: int) -> str:
    """The value of a `--timeout` that is a second on a host of usual speed."""
    return f"{patience(scale):g}"


LATE: Final = "ran out before the guest ran"
"""What is said of a `--timeout` that ended the start, as a short one may on a busy host."""


def patient_options(options: list[str], scale: int = 1) -> list[str]:
    """Options of a run, with the seconds of each `--timeout` scaled: the guest gets as far as it should."""
    previous = ["", *options]
    return [
        f"{patience(scale * float(option)):g}" if before == "--timeout" else option
        for before, option in zip(previous, options, strict=False)
    ]
