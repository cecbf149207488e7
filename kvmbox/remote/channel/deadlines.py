"""How long a device process may take to answer, and what is said of one that fails."""

from __future__ import annotations

from typing import Final

from kvmbox.base.errors import DeviceProcessError

WAIT_SLICE_MS: Final = 50
"""How long one slice of waiting for a device process is, in milliseconds of a running VMM."""

REPLY_SLICES: Final = 10
"""After how many unanswered slices a device process counts as hung (0.5 s)."""

START_SLICES: Final = 200
"""The same for one that is starved of CPU time, and for the first reply (10 s): a busy host makes it late."""


def hung_error(device_type: str, slices: int = REPLY_SLICES) -> DeviceProcessError:
    """The error of a process that did not answer within `slices` slices."""
    milliseconds = WAIT_SLICE_MS * slices
    return DeviceProcessError(device_type, f"is hung: no reply within {milliseconds} ms")


def printable(raw: bytes, limit: int = 500) -> str:
    """Text from a hostile process, fit for one line of a terminal: control characters are escaped."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in raw[:limit].decode(errors="replace"))
