"""Waiting for what a process does: for the end or the contents of a stream, never for time to pass.

PATIENCE_S only bounds how long a broken kvmbox may hang a test.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable
from typing import TypeVar

from tests.support.patience import patience

PATIENCE_S = patience(30.0)


def wait_readable(descriptor: int, what: str) -> None:
    """Wait until `descriptor` is readable or at its end; fail after PATIENCE_S."""
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    assert poller.poll(PATIENCE_S * 1000), f"waited {PATIENCE_S} s for {what}"


_Seen = TypeVar("_Seen")


def until(look: Callable[[], _Seen], wanted: Callable[[_Seen], object]) -> _Seen:
    """What `look` gives once it is `wanted`. For what comes and stays, and of which nobody tells: a mask, a
    title.
    """
    deadline = time.monotonic() + PATIENCE_S
    while not wanted(seen := look()):
        assert time.monotonic() < deadline, f"waited {PATIENCE_S} s, and saw {seen}"
        os.sched_yield()
    return seen


class Stream:
    """The reading end of a pipe or terminal; `seen` is all that came so far."""

    def __init__(self, descriptor: int, name: str) -> None:
        self.descriptor = descriptor
        self.name = name
        self.seen = b""
        self._from = 0

    def more(self) -> bool:
        """Take what comes next; False at the end."""
        wait_readable(self.descriptor, f"{self.name} after {self.seen[-200:]!r}")
        try:
            data = os.read(self.descriptor, 1 << 16)
        except OSError:  # a terminal whose other side is closed
            return False
        self.seen += data
        return bool(data)

    def comes(self, text: bytes) -> bool:
        """Read until `text` has come, behind what was waited for earlier; False at an end before it."""
        while (found := self.seen.find(text, self._from)) < 0:
            if not self.more():
                return False
        self._from = found + len(text)
        return True

    def until(self, text: bytes) -> None:
        """The same; fail if it does not come."""
        assert self.comes(text), f"{self.name} ended without {text!r}: {self.seen!r}"

    def rest(self) -> bytes:
        """Read to the end; returns all that ever came."""
        while self.more():
            pass
        return self.seen
