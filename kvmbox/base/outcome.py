"""The outcome of a run: the first decisive event wins, and later events do not change the outcome.

An odd exit status comes from the guest, an even one from kvmbox (docs: "Exit status").
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from kvmbox.base.value_classes import Value

CLEAN: Final = 0
GUEST_CRASHED: Final = 6
DEVICE_FAILED: Final = 8
UNKNOWN_EXIT: Final = 10
UNEXPECTED: Final = 12
KVMBOX_FAILED: Final = 14
TIMED_OUT: Final = 124
INTERRUPTED: Final = 130

EXPECTED_SEEN: Final = "all that was expected was seen"
"""The reason of a run that ended because of that."""


class Outcome(Value):
    """`status` is the exit status, `reason` a few words, `report` more details for the user.

    `error` tells whether the outcome is always reported by a line on stderr.
    """

    status: int
    reason: str
    error: bool = False
    hint: str | None = None
    report: str = ""
    brief: bool = False
    """Whether the report tells only where the CPUs are: the guest has halted itself, which is no crash."""


def debug_exit_status(value: int) -> int:
    """The exit status for `value` written to the debug-exit port: QEMU's isa-debug-exit rule, always odd."""
    return (value << 1 | 1) & 0xFF


class Decision:
    """The decision on the outcome of a run, which is made once. Thread-safe."""

    def __init__(self) -> None:
        self.outcome: Outcome | None = None
        self._lock = threading.Lock()
        self._hooks: list[Callable[[], None]] = []

    def on_decided(self, hook: Callable[[], None]) -> None:
        """Call `hook` once, on the thread that decides. A hook only wakes or kicks threads."""
        self._hooks.append(hook)

    def decide(self, outcome: Outcome) -> bool:
        """Decide the outcome, unless it is decided. Return whether this call has decided."""
        with self._lock:
            if self.outcome is not None:
                return False
            self.outcome = outcome
        for hook in self._hooks:
            hook()
        return True
