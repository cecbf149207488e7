"""What was called, in order."""

from __future__ import annotations

from collections.abc import Callable

Calls = list[tuple[object, ...]]
"""Calls: their name, and their arguments."""


class Log(Calls):
    """Calls that were noted."""

    def note(self, what: str) -> Callable[..., None]:
        """A function that notes each of its calls as `what`."""
        return lambda *arguments: self.append((what, *arguments))
