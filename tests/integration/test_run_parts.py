"""What parts find at the end of a run, and what they cannot do at its start: in the result of the run."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest

from kvmbox import KvmboxError, Machine
from kvmbox.base.outcome import Outcome
from kvmbox.run.part import Finding, Lost, Opening, Part, Standing, Unmet
from kvmbox.run.result.run_result import Draft, RunResult

pytestmark = pytest.mark.kvm

CLEAN_END = "the guest shut down"
FULL = "cannot write it: the disk is full"


class Bench:
    """Runs a guest with two parts that are not kvmbox's, in place of --profile and --record."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log: list[str] = []
        self.at: dict[str, Finding | KvmboxError] = {}
        """What a part finds, or fails with, at a stage: by "part stage"."""
        for name in ("profile", "record"):
            module = ModuleType(name)
            module.PART = self._kind(name)  # type: ignore[attr-defined]  # as the table names it
            monkeypatch.setitem(sys.modules, f"kvmbox.parts.{name}.part", module)

    def _kind(self, name: str) -> type[Part]:
        bench = self

        class Noting(Part):
            def __init__(self, **_options: object) -> None:
                pass

            def note(self, stage: str) -> Finding | None:
                bench.log.append(f"{name} {stage}")
                found = bench.at.get(f"{name} {stage}")
                if isinstance(found, KvmboxError):
                    raise found
                return found

            def open(self, opening: Opening) -> None:
                self.note("open")

            def attach(self, machine: Standing) -> None:
                self.note("attach")

            def start(self) -> None:
                self.note("start")

            def ended(self, outcome: Outcome | None) -> Finding | None:
                return self.note("ended")

            def report(self, draft: Draft) -> None:
                self.note("report")
                draft.facts[name] = draft.status
                draft.appendix.append(f"{name} was here")

            def close(self) -> None:
                self.note("close")

        return Noting

    def run(self, guest: str = "hello32", **options: Any) -> tuple[RunResult, list[str]]:
        """The result, and what was said."""
        with Machine(guest, profile="p", record="r", **options) as vm:
            result = vm.wait(60)
        return result, list(vm.messages)

    @property
    def stages_of_record(self) -> list[str]:
        return [line.removeprefix("record ") for line in self.log if line.startswith("record")]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


def test_result_has_the_facts_and_the_lines_of_parts(bench: Bench) -> None:
    result, said = bench.run()
    assert (result.status, result.reason, said) == (0, CLEAN_END, [])
    assert (result.facts["profile"], result.facts["record"]) == (0, 0)
    assert result.crash_report == "profile was here\nrecord was here"
    stages = ("open", "attach", "start", "ended", "report")
    assert bench.log == [
        *(f"{name} {stage}" for stage in stages for name in ("profile", "record")),
        *("record close", "profile close"),
    ]


def test_loss_makes_a_failure_of_a_success_and_is_said_once_as_its_reason(bench: Bench) -> None:
    bench.at["record ended"] = Lost(FULL, hint="make room")
    result, said = bench.run()
    assert (result.status, result.reason, result.hint, said) == (14, FULL, "make room", [])
    assert result.failed
    assert result.facts["profile"] == 14  # the outcome is decided when parts report


def test_error_at_the_end_is_a_loss_and_the_other_part_ends(bench: Bench) -> None:
    bench.at["profile ended"] = KvmboxError(FULL, hint="make room")
    result, said = bench.run()
    assert (result.status, result.reason, result.hint, said) == (14, FULL, "make room", [])
    assert "record ended" in bench.log


@pytest.mark.parametrize("announced", [True, False])
def test_what_did_not_come_counts_more_than_a_loss_which_is_said_unless_it_was(
    bench: Bench, announced: bool
) -> None:
    bench.at |= {
        "profile ended": Lost(FULL, announced=announced),
        "record ended": Unmet("it had printed 'x'"),
    }
    result, said = bench.run()
    assert (result.status, result.reason) == (12, f"{CLEAN_END}, before it had printed 'x'")
    assert result.failed
    assert said == ([] if announced else [FULL])


def test_first_of_two_losses_is_the_reason_and_the_other_one_is_said(bench: Bench) -> None:
    bench.at |= {"profile ended": Lost(FULL), "record ended": Lost("cannot read it")}
    result, said = bench.run()
    assert (result.status, result.reason, said) == (14, FULL, ["cannot read it"])


def test_status_of_the_guest_is_a_success_as_far_as_losses_go(bench: Bench) -> None:
    assert bench.run("screen", append="21")[0].status == 43
    bench.at["record ended"] = Lost(FULL)
    assert bench.run("screen", append="21")[0].status == 14


@pytest.mark.parametrize("finding", [Lost(FULL), Unmet("it had printed 'x'")])
def test_crash_keeps_its_word_whatever_parts_find(bench: Bench, finding: Finding) -> None:
    bench.at["record ended"] = finding
    result, said = bench.run("haltforever")
    assert result.status == 6
    assert result.reason.startswith("the guest is halted for ever")
    assert said == ([FULL] if isinstance(finding, Lost) else [])
    assert result.crash_report.endswith("profile was here\nrecord was here")


@pytest.mark.parametrize("stage", ["open", "attach"])
def test_part_that_cannot_begin_keeps_the_run_from_its_start_and_all_are_closed(
    bench: Bench, stage: str
) -> None:
    bench.at[f"profile {stage}"] = KvmboxError("no room")
    with pytest.raises(KvmboxError, match="no room"):
        bench.run()
    assert bench.log[-1] == "profile close"
    # What was opened is ended, and closed once.
    assert bench.stages_of_record == (["close"] if stage == "open" else ["open", "ended", "close"])
    assert "profile start" not in bench.log
