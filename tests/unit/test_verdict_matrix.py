"""Each two options that judge an end, against each end and each way to print: judge, console and fakes.

`tests/integration/test_run_verdicts.py` has the same matrix with real guests.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from kvmbox.base.judge import Judge
from kvmbox.base.outcome import CLEAN, GUEST_CRASHED, TIMED_OUT, UNEXPECTED, Outcome
from kvmbox.host.console.captured_port import Capture
from kvmbox.host.console.serial_backends import DEBUGCON as DEBUGCON_PORT
from kvmbox.host.console.serial_backends import SerialSpec, serial_plan
from kvmbox.host.console.serial_ports import Console
from tests.support.verdict_model import (
    CRASH,
    DEBUGCON,
    ENDS,
    EXIT,
    EXIT_STATUS,
    HALT,
    OPTIONS,
    PACED,
    RESET,
    SCREEN,
    SHUTDOWN,
    SPIN,
    TEXT,
    WAYS,
    Cell,
    Ending,
    model,
    pairs,
)


class FakeMachine:
    """Prints and ends as a guest does, and does for the judge what a run does."""

    def __init__(self, cell: Cell, piece: int) -> None:
        """Output reaches the console in pieces of so many bytes."""
        self.cell = cell
        self.piece = piece
        self.options = options = cell.options
        self.judge = Judge(
            () if options.expect is None else (options.expect,),
            () if options.fail_on is None else (options.fail_on,),
            success_status=options.success_status,
        )
        self.capture = Capture()
        port = "COM1"
        self.console = Console(
            serial_plan((), self.capture),
            self.judge,
            debugcon=SerialSpec(DEBUGCON_PORT, "shared", capture=self.capture),
            limit=options.serial_limit,
        )
        self.print = self.console.sink(DEBUGCON_PORT if cell.way == DEBUGCON else port)
        self.snapshot: str = ""
        self.left_boot = False
        if options.snapshot_when is not None:
            self.judge.watch(options.snapshot_when, self.want)
        self.judge.connect(lambda: None, paced=(port,) if cell.way == PACED else ())

    def want(self) -> Outcome | None:
        self.judge.begin_work()
        self.snapshot = "wanted"
        return Outcome(CLEAN, "written") if self.options.snapshot_stop else None

    def take(self) -> None:
        if self.snapshot == "wanted":
            self.snapshot = "taken"
            self.judge.end_work()

    def prints(self) -> None:
        """The text comes out. A vCPU stands still when a snapshot is wanted or an event is held."""
        if self.cell.way == SCREEN:
            self.judge.look(TEXT)
            return
        # With a snapshot, each byte exits. Nothing can stop a guest within what has come already.
        piece = 1 if self.options.snapshot_when is not None else self.piece
        for start in range(0, len(TEXT), piece):
            self.print(TEXT[start : start + piece])
            if self.cell.way != PACED:
                self.settle()
            if self.judge.outcome is not None:
                return

    def settle(self, *, late: Callable[[], None] = lambda: None, gone: bool = False) -> None:
        """The machine stands still, or has ended."""
        if self.judge.is_unsettled:
            late()
            self.console.show_withheld()
            self.judge.settle(finally_=gone)
        if not gone:
            self.take()
        if self.judge.is_unsettled:
            self.judge.settle()

    def ends(self) -> None:
        reason = self.cell.end
        match self.cell.end:
            case "debug-exit":
                self.judge.ends(Outcome(EXIT_STATUS, reason))
            case "shutdown":
                self.judge.ends(Outcome(CLEAN, reason))
            case "crash" | "halt":
                self.judge.ends(Outcome(GUEST_CRASHED, reason), gone=self.cell.end == CRASH)
            case "reset" if self.options.no_reboot:
                self.judge.ends(Outcome(CLEAN, reason))
            case "reset":
                self.judge.leaves(partial(setattr, self, "left_boot", True))

    def run(self) -> Ending:
        late = self.cell.way in (PACED, SCREEN)
        for _ in range(3):
            self.left_boot = False
            if not late:
                self.prints()
            if self.judge.outcome is None and self.cell.end != SPIN:
                self.ends()
                self.settle(late=self.prints if late else lambda: None, gone=self.cell.end == CRASH)
            elif late:
                self.prints()  # there is time enough
                self.settle()
            if not self.left_boot:
                break
        self.judge.decide(Outcome(TIMED_OUT, "timed out"))
        self.console.finish()
        status = self.judge.verdict.status
        taken = self.snapshot == "taken"
        if self.options.snapshot_when is not None and not taken and (status == CLEAN or status & 1):
            status = UNEXPECTED  # as `run.run` does
        return Ending(status, taken)


@pytest.mark.parametrize("piece", [1, 4, len(TEXT)])
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("way", WAYS)
def test_run_ends_as_the_documentation_says(way: str, end: str, piece: int) -> None:
    wrong = []
    for names in pairs():
        cell = Cell(names, way, end)
        wanted, found = model(cell), FakeMachine(cell, piece).run()
        if found.status != wanted.status or wanted.snapshot not in (None, found.snapshot):
            wrong.append(f"{cell}: {found}, wanted {wanted}")
    assert wrong == []


def test_matrix_has_every_option_with_every_other_one() -> None:
    assert len(pairs()) > 100
    assert {name for pair in pairs() for name in pair} == set(OPTIONS)
    assert {HALT, SHUTDOWN, EXIT, RESET} < set(ENDS)


def test_model_knows_every_status() -> None:
    found = {model(Cell(names, way, end)).status for names in pairs() for way in WAYS for end in ENDS}
    assert found == {0, 6, 12, EXIT_STATUS, TIMED_OUT}
