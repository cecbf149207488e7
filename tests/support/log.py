"""What was called, in order."""

from __future__ import annotations

from collections.abc import Callable


class Log(list[tuple[object, ...]]):
    """A list of calls: their name, and their arguments."""

    def note(self, what: str) -> Callable[..., None]:
        """A function that notes each of its calls as `what`."""
        return lambda *arguments: self.append((what, *arguments))
