"""The standard descriptors, before anything else is opened."""

from __future__ import annotations

import os
import sys


def open_standard_descriptors() -> None:
    """Closed descriptors 0, 1 and 2 become /dev/null, or the next thing opened would take their place.

    A closed stdout becomes one that cannot be written to: output that goes nowhere must not look written.
    """
    for number, flags in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, flags)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
    # The interpreter has None for what was closed when it started.
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False, encoding="utf-8")
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False, encoding="utf-8")
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False, encoding="utf-8")
