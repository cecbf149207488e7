"""Reports of the built-in BIOS as sentences: their words, their number, and what a lying process sends."""

from __future__ import annotations

from typing import Final

import pytest

from kvmbox.base.judge import Judge
from kvmbox.base.outcome import DEVICE_FAILED, GUEST_CRASHED
from kvmbox.devices.bios.report_port import REPORT, WHAT
from kvmbox.host.console.bios_messages import (
    FUNCTION,
    MOST,
    NO_BOOT,
    SERVICE,
    TRAP,
    UNHANDLED,
    BiosReports,
    sentence,
)

AT: Final = 0x07C0_002E


def what(kind: int, vector: int, ax: int = 0) -> int:
    return kind << 24 | vector << 16 | ax


class Told:
    """Reports, what was said of them, and how the run ended."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.decision = Judge()
        self.reports = BiosReports(self.decision, self.lines.append)

    def report(self, what: int) -> None:
        self.reports.take(REPORT.pack(AT, what))


@pytest.mark.parametrize(
    ("report", "words"),
    [
        (what(SERVICE, 0x13, 0x0801), "int 0x13 AH=0x08 is not provided, at 0x7c2e"),
        (what(FUNCTION, 0x10, 0x0013), "int 0x10 AX=0x0013 is not provided, at 0x7c2e"),
        (what(TRAP, 0x10, 0x0E41), "int 0x10 AH=0x0e is not provided, at 0x7c2e"),
        (what(UNHANDLED, 0), "interrupt 0x00 (divide error) is not handled, at 0x7c2e"),
        (what(UNHANDLED, 13), "interrupt 0x0d (general protection or IRQ 5) is not handled, at 0x7c2e"),
        (what(UNHANDLED, 0x80), "interrupt 0x80 is not handled, at 0x7c2e"),
        (what(NO_BOOT, 0x18), "the guest called int 0x18: there is nothing to boot from"),
        (what(0x7F, 0xFF, 0xFFFF), "int 0xff AH=0xff is not provided, at 0x7c2e"),
    ],
)
def test_sentence(report: int, words: str) -> None:
    assert sentence(AT, report) == words


def test_each_missing_service_is_named_once() -> None:
    told = Told()

    for report in (what(SERVICE, 0x13, 0x0801), what(SERVICE, 0x13, 0x0802), what(SERVICE, 0x13, 0x0900)):
        told.report(report)
        told.report(report)
    told.report(what(FUNCTION, 0x13, 0x0801))
    told.report(what(FUNCTION, 0x13, 0x0802))

    assert [line.split(" is ")[0] for line in told.lines] == [
        *("int 0x13 AH=0x08", "int 0x13 AH=0x09"),
        *("int 0x13 AX=0x0801", "int 0x13 AX=0x0802"),
    ]
    assert told.decision.outcome is None


def test_flood_of_reports_is_cut_with_a_word_about_it() -> None:
    told = Told()

    for number in range(0x10000):
        told.report(what(FUNCTION, 0x10, number))

    assert len(told.lines) == MOST + 1
    assert told.lines[-1] == "further missing BIOS services are not named"


def test_trap_ends_the_run_with_the_sentence_and_what_to_do() -> None:
    told = Told()
    trap = what(TRAP, 0x10, 0x0E41)

    told.report(trap)
    told.reports.stop(WHAT, 4, trap)

    outcome = told.decision.outcome
    assert outcome is not None
    assert (outcome.status, outcome.error) == (GUEST_CRASHED, True)
    assert outcome.reason == "int 0x10 AH=0x0e is not provided, at 0x7c2e"
    assert outcome.hint is not None
    assert "--bios builtin" in outcome.hint
    assert told.lines == []


@pytest.mark.parametrize("write", [(WHAT, 4, what(SERVICE, 0x13)), (0, 4, what(TRAP, 0x13)), (WHAT, 1, 0x80)])
def test_stop_that_the_guest_did_not_ask_for_is_the_devices_fault(write: tuple[int, int, int]) -> None:
    told = Told()

    told.reports.stop(*write)

    assert told.decision.outcome is not None
    assert told.decision.outcome.status == DEVICE_FAILED


@pytest.mark.parametrize("data", [b"", b"text for the terminal\x1b[2J", bytes(7), bytes(9)])
def test_what_is_no_report_is_not_shown(data: bytes) -> None:
    told = Told()

    told.reports.take(data)

    assert told.lines == []
