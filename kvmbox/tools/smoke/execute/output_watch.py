"""Looks at a console while it is printed: when to type, and when all is said. Pure.

What a pattern is searched in is bounded, so that a guest that prints byte by byte costs no more than one
that prints in blocks. A literal text is found anywhere. A regular expression that ends a boot is looked
at when its line is complete; one that a dialogue waits for, at once, since a prompt has no line end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from kvmbox.tools.smoke.suite.test_case import Pattern, Step

WINDOW: Final = 1 << 16
"""How far a search looks back, in bytes: longer lines are not matched as a whole."""


class OutputWatch:
    """The dialogue and the stop patterns of one boot."""

    def __init__(
        self, dialogue: Sequence[Step], stop_all: Sequence[Pattern] = (), stop_any: Sequence[Pattern] = ()
    ) -> None:
        self.steps_done = 0
        self.stop = False
        """Whether all that matters has been printed."""
        self._steps = list(dialogue)
        self._all = list(stop_all)
        self._has_all = bool(stop_all)
        self._any = list(stop_any)
        self._text = bytearray()
        self._searched = 0
        self._after_step = 0  # where the dialogue goes on
        self._held = b""

    def begin(self) -> bytes:
        """What is typed before anything is printed."""
        return self._answers()

    def feed(self, data: bytes) -> bytes:
        """More output; returns what is to be typed now."""
        data = self._held + data
        # A \r that ends the data may be the first half of a line end.
        self._held = b"\r" if data.endswith(b"\r") else b""
        self._text += data.removesuffix(b"\r").replace(b"\r\n", b"\n")
        typed = self._answers()
        begin = self._window()
        lines_end = self._text.rfind(b"\n", begin) + 1
        self._all = [one for one in self._all if not self._seen(one, begin, lines_end)]
        if any(self._seen(one, begin, lines_end) for one in self._any) or (self._has_all and not self._all):
            self.stop = True
        self._searched = len(self._text)
        return typed

    def _window(self) -> int:
        """Where a search begins: the line that was not complete when it was searched last."""
        line = self._text.rfind(b"\n", 0, max(self._searched, 0)) + 1
        return max(line, len(self._text) - WINDOW, 0)

    def _seen(self, pattern: Pattern, begin: int, lines_end: int) -> bool:
        if pattern.is_regex:
            return lines_end > begin and pattern.regex.search(bytes(self._text[begin:lines_end])) is not None
        wanted = console_bytes(pattern)
        return self._text.find(wanted, max(self._searched - len(wanted) + 1, 0)) >= 0

    def _answers(self) -> bytes:
        """What the dialogue types now: each step waits for a text behind the one before."""
        typed = b""
        while self.steps_done < len(self._steps):
            step = self._steps[self.steps_done]
            if step.when is not None:
                begin = max(self._after_step, min(self._window(), len(self._text)))
                if not step.when.is_regex:  # which may begin in an earlier line
                    reach = self._searched - len(console_bytes(step.when)) + 1
                    begin = max(self._after_step, min(begin, max(reach, 0)))
                found = step.when.regex.search(bytes(self._text[begin:]))
                if found is None:
                    return typed
                # What was printed before this answer may hold the next prompt, too.
                self._after_step = begin + found.end()
                self._searched = min(self._searched, self._after_step)
            self.steps_done += 1
            typed += step.send
        return typed


def console_bytes(pattern: Pattern) -> bytes:
    """A literal text as the console has it."""
    return pattern.text.encode("utf-8", "surrogateescape").replace(b"\r\n", b"\n")
