"""Names of C++ and Rust as the source spells them, with the library `demangle` where that is installed."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

LONGEST: Final = 4096
"""A longer name stays as it is: names of a hostile image could take the library long."""

LONGEST_READABLE: Final = 1024
"""What is left of a name that the library has made longer: substitutions double it again and again."""


@lru_cache(maxsize=1024)
def readable(name: str) -> str:
    """`name` demangled, or as it is."""
    if not name.startswith(("_Z", "_R", "__Z", "__R")) or len(name) > LONGEST:
        return printable(name)
    try:
        from demangle import demangle
    except ImportError:
        return printable(name)
    try:
        found = str(demangle(name))
    except (ValueError, RecursionError):  # no name of those
        return printable(name)
    return printable(found if len(found) <= LONGEST_READABLE else f"{found[: LONGEST_READABLE - 1]}…")


def printable(text: str) -> str:
    """Text of an image, fit for a terminal."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
