"""Room in the output streams, as the ring of coalesced writes sees it."""

from __future__ import annotations

from collections.abc import Callable


class FakeRoom:
    """Notes the thread that must not wait; `wait` is what a wait for room does."""

    def __init__(self) -> None:
        self.postponed = 0
        self.wait: Callable[[], None] = lambda: None

    def postpone(self, thread: int) -> None:
        self.postponed = thread

    def wait_for_room(self) -> None:
        self.wait()
