"""Whether the compiled hot path is used."""

from __future__ import annotations

import os
from importlib.machinery import EXTENSION_SUFFIXES
from typing import Final

VARIABLE: Final = "KVMBOX_PURE"
_PACKAGE: Final = os.path.dirname(os.path.abspath(__file__))


def why_pure() -> str | None:
    """Why the hot path is not compiled, or None if it is."""
    return f"{VARIABLE} is set" if os.environ.get(VARIABLE, "0") not in ("", "0") else why_not_built()


def why_not_built() -> str | None:
    """Why it cannot be used, whatever the environment says, or None if it can."""
    for module in ("fast/vmm", "fast/serving"):
        # Not imported: the spawner is started before the modules that they need are loaded.
        if not any(os.path.exists(f"{_PACKAGE}/{module}{suffix}") for suffix in EXTENSION_SUFFIXES):
            return "it was not built for this Python"
    return None


def describe() -> str:
    """The choice, for people: "compiled", or "pure Python" and why."""
    reason = why_pure()
    return "compiled" if reason is None else f"pure Python ({reason})"


def is_compiled() -> bool:
    """Whether the hot path is compiled."""
    return why_pure() is None
