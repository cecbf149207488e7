"""The library capstone, where that is installed (`kvmbox[explain]`): found once, and mapped.

A confined kvmbox cannot map it, so a run does that before, if somebody looks. That costs 0.9 ms and 3.4 MiB.
"""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache
from typing import Final

VERSION: Final = 5
"""The major version that is known."""


@cache
def library() -> ctypes.CDLL | None:
    """The library, or None if there is none of that version."""
    for directory in sys.path:
        path = os.path.join(directory, "capstone", "lib", "libcapstone.so")
        if not os.path.exists(path):
            continue
        try:
            found = ctypes.CDLL(path)
            version = found.cs_version(None, None)
        except (OSError, AttributeError):  # not for this machine, or something else of that name
            continue
        if version >> 8 == VERSION:
            return found
    return None
