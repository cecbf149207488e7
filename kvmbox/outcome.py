"""How a run ends: the first decisive event wins, and nothing that comes later can change it.

An odd exit status comes from the guest, an even one from kvmbox (docs: "Exit status").
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from kvmbox.lean import Value

CLEAN: Final = 0
GUEST_CRASHED: Final = 6
DEVICE_FAILED: Final = 8
UNKNOWN_EXIT: Final = 10
UNEXPECTED: Final = 12
KVMBOX_FAILED: Final = 14
TIMED_OUT: Final = 124
INTERRUPTED: Final = 130


class Outcome(Value):
    """`status` is the exit status, `reason` a few words, `report` what a person needs beyond them.

    `error` tells whether it is worth a line on stderr without being asked.
    """

    status: int
    reason: str
    error: bool = False
    hint: str | None = None
    report: str = ""


def debug_exit_status(value: int) -> int:
    """The exit status for `value` written to the debug-exit port: QEMU's isa-debug-exit rule, always odd."""
    return (value << 1 | 1) & 0xFF


class Decision:
    """The outcome of a run, once. Thread-safe."""

    def __init__(self) -> None:
        self.outcome: Outcome | None = None
        self._lock = threading.Lock()
        self._hooks: list[Callable[[], None]] = []

    def on_decided(self, hook: Callable[[], None]) -> None:
        """`hook` is called once, by the thread that decides: to wake and to kick, not to work."""
        self._hooks.append(hook)

    def decide(self, outcome: Outcome) -> bool:
        """Propose how the run ends; returns whether it was the first."""
        with self._lock:
            if self.outcome is not None:
                return False
            self.outcome = outcome
        for hook in self._hooks:
            hook()
        return True


class Expectations(Value):
    """What the caller wants of a run: `success_status` is an odd status that counts as success, or None."""

    success_status: int | None = None
    unfulfilled: Callable[[], bool] = lambda: False
    missing: Callable[[], str] = lambda: ""

    def judge(self, outcome: Outcome) -> Outcome:
        """The final outcome: a guest that ended by itself is measured by what was expected of it.

        Only the guest's own ends (clean, or an odd status) are judged. kvmbox's even statuses say what went
        wrong and stay.
        """
        guest_ended = outcome.status == CLEAN or outcome.status & 1
        if not guest_ended:
            return outcome
        if self.unfulfilled():
            return Outcome(UNEXPECTED, f"{outcome.reason}, but had not printed {self.missing()}", error=True)
        if self.success_status is None or outcome.reason == EXPECTED_SEEN:
            return outcome
        if outcome.status == self.success_status:
            return Outcome(CLEAN, f"{outcome.reason}, as --success-status wants")
        return Outcome(
            UNEXPECTED,
            f"{outcome.reason}, but --success-status wants {self.success_status}",
            error=True,
        )


EXPECTED_SEEN: Final = "all --expect texts seen"
