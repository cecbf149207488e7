"""The engine with executors and reporters that are no real ones."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from kvmbox.base.errors import HostOutputError
from kvmbox.tools.smoke.execute.engine import Engine
from kvmbox.tools.smoke.execute.executor import Executor
from kvmbox.tools.smoke.report.artefacts import Artefacts
from kvmbox.tools.smoke.report.progress import Progress
from kvmbox.tools.smoke.report.reporter import Plan, Reporter
from kvmbox.tools.smoke.report.summary import Summary
from kvmbox.tools.smoke.suite.test_case import Boot, Observation, Test, TestResult, Verdict
from tests.support.smoke import FakeExecutor, Log, a_test, answers, literal, seen

GOOD, BAD = seen(0), seen(1, b"bad")


def session_of(
    tests: Sequence[Test],
    executor: Executor,
    *reporters: Reporter,
    repeat: int = 1,
    fail_fast: bool = False,
    **values: Any,
) -> tuple[Summary, Log]:
    log = Log()
    plan = Plan(tuple(tests), repeat, executor.slots)
    with executor:
        engine = Engine(
            Progress(tests, repeat=repeat, fail_fast=fail_fast),
            executor,
            [log, *reporters],
            plan=plan,
            **values,
        )
        summary = engine.run()
    return summary, log


def test_results_are_told_and_summed_in_the_suites_order() -> None:
    executor = FakeExecutor(answers({"a.elf": [BAD], "b.elf": [GOOD]}))
    summary, log = session_of([a_test("a"), a_test("b"), a_test("c", skip="no")], executor)
    assert log.events == [
        ("begin", "3"),
        ("boot", "a"),
        ("attempt", "a fail"),
        ("result", "a fail"),
        ("boot", "b"),
        ("attempt", "b pass"),
        ("result", "b pass"),
        ("result", "c skip"),
        ("end", "1 passed, 1 failed, 1 skipped"),
    ]
    assert [result.test.name for result in summary.results] == ["a", "b", "c"]
    assert executor.exited


def test_no_more_boots_are_submitted_than_the_executor_has_slots() -> None:
    executor = FakeExecutor(lambda boot: None, slots=3)

    def end_one() -> bool:
        if executor.pending:
            executor.pending.pop(0).set_result(GOOD)
        return False

    tests = [a_test(str(number)) for number in range(10)]
    summary, _ = session_of(tests, executor, interrupted=end_one)
    assert summary.count(Verdict.PASS) == 10
    assert executor.most_pending == 3


def test_boot_has_what_the_test_says() -> None:
    executor = FakeExecutor(lambda boot: GOOD)
    test = a_test("a", options={"memory": "64M"}, timeout=5.0, expect=literal("x"), fail_on=literal("y"))
    session_of([test], executor)
    assert executor.boots == [
        Boot("a.elf", {"memory": "64M"}, 5.0, stop_all=literal("x"), stop_any=literal("y")),
    ]
    executor = FakeExecutor(lambda boot: GOOD)
    session_of([test], executor, timeout=2.0)
    assert executor.boots[0].timeout == 2.0


def test_retry_and_repeat() -> None:
    executor = FakeExecutor(answers({"a.elf": [BAD, GOOD]}))
    summary, log = session_of([a_test("a", retries=1)], executor)
    assert log.named("attempt") == ["a fail", "a pass"]
    assert summary.results[0].verdict is Verdict.FLAKY
    executor = FakeExecutor(answers({"a.elf": [GOOD] * 5}), slots=2)
    summary, log = session_of([a_test("a")], executor, repeat=5)
    assert (summary.boots, summary.words) == (5, "1 passed")


def test_fail_fast_ends_what_runs() -> None:
    executor = FakeExecutor(answers({"a.elf": [None], "b.elf": [BAD], "c.elf": []}), slots=2)
    summary, log = session_of([a_test("a"), a_test("b"), a_test("c")], executor, fail_fast=True)
    assert executor.cancelled
    assert log.named("boot") == ["a", "b"]
    assert [(one.test.name, one.verdict.value) for one in summary.results] == [
        *(("a", "not-run"), ("b", "fail"), ("c", "not-run")),
    ]
    assert summary.stopped == "--fail-fast"
    assert summary.status == 12


@pytest.mark.parametrize("after", range(6))
def test_signal_at_any_moment_leaves_a_complete_report(after: int) -> None:
    looks = iter(range(100))
    executor = FakeExecutor(answers({"a.elf": [GOOD], "b.elf": [BAD], "c.elf": [None], "d.elf": [GOOD]}))
    tests = [a_test(name) for name in "abcd"]
    summary, log = session_of(tests, executor, interrupted=lambda: next(looks) >= after)
    assert summary.interrupted
    assert summary.status == 130
    assert len(log.named("result")) == len(summary.results) == 4
    ran = min(after, 2)
    assert [one.verdict.value for one in summary.results] == [
        *["pass", "fail"][:ran],
        *["not-run"] * (4 - ran),
    ]
    assert log.summary is summary
    assert executor.cancelled


class Failing(Reporter):
    """Cannot write at one kind of event."""

    def __init__(self, at: str) -> None:
        self._at = at
        self.heard: list[str] = []

    def begin(self, plan: Plan) -> None:
        self.heard.append("begin")
        if self._at == "begin":
            raise HostOutputError("disk full")

    def result(self, result: TestResult) -> None:
        self.heard.append("result")
        if self._at == "result":
            raise HostOutputError("disk full")

    def end(self, summary: Summary) -> None:
        self.heard.append("end")
        if self._at == "end":
            raise HostOutputError("disk full")


@pytest.mark.parametrize("at", ["begin", "result", "end"])
def test_report_that_cannot_be_written_ends_the_session_and_the_others_are_complete(at: str) -> None:
    executor = FakeExecutor(lambda boot: GOOD)
    failing, log = Failing(at), Log()
    with pytest.raises(HostOutputError, match="disk full"):
        session_of([a_test("a"), a_test("b")], executor, failing, log)
    assert failing.heard[-1] == at
    assert failing.heard.count(at) == 1
    assert log.summary is not None
    assert len(log.summary.results) == 2
    assert executor.exited
    assert len(executor.boots) == {"begin": 0, "result": 1, "end": 2}[at]


class Blocked(Reporter):
    """Nobody reads what it writes: a third Ctrl-C ends each write."""

    def __init__(self) -> None:
        self.writes = 0

    def boot(self, test: Test) -> None:
        self.writes += 1
        raise KeyboardInterrupt

    def end(self, summary: Summary) -> None:
        self.writes += 1
        raise KeyboardInterrupt


def test_reporter_that_is_blocked_until_ctrl_c_is_not_asked_again() -> None:
    blocked, log = Blocked(), Log()
    with pytest.raises(KeyboardInterrupt):
        session_of([a_test("a")], FakeExecutor(lambda boot: GOOD), blocked, log)
    assert blocked.writes == 1
    assert log.summary is not None


def test_executor_that_fails_is_an_error_and_the_reports_are_complete() -> None:
    executor = FakeExecutor(answers({"a.elf": [GOOD], "b.elf": [RuntimeError("no worker")]}))
    log = Log()
    with pytest.raises(RuntimeError, match="no worker"):
        session_of([a_test("a"), a_test("b"), a_test("c")], executor, log)
    assert log.summary is not None
    assert [one.verdict.value for one in log.summary.results] == ["pass", "not-run", "not-run"]
    assert log.summary.results[2].reason == "not run: kvmbox failed"


# --- What is kept of failures ----------------------------------------------------------------------------


def test_failure_is_kept_in_a_folder(tmp_path: Path) -> None:
    bad = seen(6, b"one\r\n\x1b", reason="crash", hint="look", crash_report="RIP=1", messages="m\n")
    executor = FakeExecutor(answers({"a.elf": [GOOD], "../b.elf": [bad]}))
    tests = [a_test("a"), a_test("../../b c", image="../b.elf")]
    summary, _ = session_of(tests, executor, artefacts=Artefacts(str(tmp_path / "logs")))
    folder = tmp_path / "logs" / "suite._.._b_c"
    assert sorted(path.name for path in tmp_path.rglob("*")) == [
        "console.log",
        "logs",
        "report.txt",
        folder.name,
    ]
    assert summary.results[1].files == (str(folder / "console.log"), str(folder / "report.txt"))
    assert (folder / "console.log").read_bytes() == b"one\r\n\x1b"
    report = (folder / "report.txt").read_text()
    assert "verdict  crash: crash" in report
    assert "hint     look" in report
    assert "RIP=1" in report
    assert "again    kvmbox run --timeout=60 --serial-limit=1048576 -- ../b.elf" in report


def test_report_has_no_character_that_acts_on_whoever_shows_it(tmp_path: Path) -> None:
    words = "a\u202eb\x1b[2J"
    bad = seen(6, words.encode(), reason=words, hint=words, crash_report=f"\t{words}", messages=words)
    session_of([a_test("a")], FakeExecutor(lambda boot: bad), artefacts=Artefacts(str(tmp_path)))
    report = (tmp_path / "suite.a" / "report.txt").read_text()
    assert report.count("a\\u202eb\\x1b[2J") == 5
    assert all(line.replace("\t", " ").isprintable() for line in report.splitlines())
    assert (tmp_path / "suite.a" / "console.log").read_text() == words


def test_tests_with_alike_names_have_folders_of_their_own(tmp_path: Path) -> None:
    executor = FakeExecutor(lambda boot: BAD)
    tests = [a_test("a b"), a_test("a/b"), a_test("a_b"), a_test("...")]
    summary, _ = session_of(tests, executor, artefacts=Artefacts(str(tmp_path)))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "suite._",
        "suite.a_b",
        "suite.a_b-2",
        "suite.a_b-3",
    ]
    assert len({file for result in summary.results for file in result.files}) == 8


def test_recording_of_the_boot_that_failed_is_kept_and_no_other_one(tmp_path: Path) -> None:
    records: list[str] = []

    def boot(boot: Boot) -> Observation:
        assert boot.record is not None
        records.append(boot.record)
        Path(boot.record).write_text(f"boot {len(records)}")
        return {"a.elf": GOOD, "b.elf": BAD, "c.elf": BAD if len(records) == 4 else GOOD, "d.elf": BAD}[
            boot.image
        ]

    tests = [
        a_test("a"),
        a_test("b", retries=1),
        a_test("c", retries=1, allow_flaky=True),
        a_test("d", tolerate="x"),
    ]
    summary, _ = session_of(tests, FakeExecutor(boot), artefacts=Artefacts(str(tmp_path), record=True))
    assert summary.words == "2 passed, 1 failed, 1 tolerated"
    assert len(records) == 6
    kept = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert sorted(path.name for path in kept) == ["console.log", "recording.kvmbox", "report.txt"]
    assert (tmp_path / "suite.b" / "recording.kvmbox").read_text() == "boot 2"


def test_core_file_of_a_failure_is_kept_and_named(tmp_path: Path) -> None:
    def boot(boot: Boot) -> Observation:
        assert boot.record is None
        assert boot.core is not None
        if boot.image != "b.elf":
            return GOOD if boot.image == "a.elf" else BAD
        Path(boot.core).write_text("core")
        return seen(6, messages=f"kvmbox: core file '{boot.core}' written\n")

    tests = [a_test("a"), a_test("b"), a_test("c")]
    summary, _ = session_of(tests, FakeExecutor(boot), artefacts=Artefacts(str(tmp_path), core=True))
    core = tmp_path / "suite.b" / "guest.core"
    assert core.read_text() == "core"
    assert [len(result.files) for result in summary.results] == [0, 3, 2]
    assert summary.results[1].files[-1] == str(core)
    report = (core.parent / "report.txt").read_text()
    assert f"kvmbox: core file '{core}' written" in report
    assert "--core" not in report  # the command that boots it again
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == []


def test_error_behind_a_tolerated_failure_is_told_with_its_own_console_and_recording(tmp_path: Path) -> None:
    count = itertools.count(1)

    def boot(boot: Boot) -> Observation:
        assert boot.record is not None
        number = next(count)
        Path(boot.record).write_text(f"boot {number}")
        return seen(14 if number > 1 else 1, b"console %d" % number)

    summary, _ = session_of(
        [a_test("a", tolerate="issue 7")],
        FakeExecutor(boot),
        repeat=3,
        artefacts=Artefacts(str(tmp_path), record=True),
    )
    assert [one.verdict for one in summary.results] == [Verdict.ERROR]
    files = {path.name: path.read_text() for path in tmp_path.rglob("*") if path.is_file()}
    assert files.keys() == {"console.log", "recording.kvmbox", "report.txt"}
    assert (files["console.log"], files["recording.kvmbox"]) == ("console 2", "boot 2")


def test_recordings_of_boots_that_were_ended_are_not_kept(tmp_path: Path) -> None:
    def boot(boot: Boot) -> Observation | None:
        assert boot.record is not None
        Path(boot.record).write_text("x")
        return BAD if boot.image == "b.elf" else None

    session_of(
        [a_test("a"), a_test("b")],
        FakeExecutor(boot, slots=2),
        fail_fast=True,
        artefacts=Artefacts(str(tmp_path), record=True),
    )
    assert sorted(path.name for path in tmp_path.rglob("*.tmp")) == []


def test_folder_that_cannot_be_written_is_an_error_with_words(tmp_path: Path) -> None:
    artefacts = Artefacts(str(tmp_path / "logs"))
    (tmp_path / "logs" / "suite.a").write_text("a file")
    log = Log()
    with pytest.raises(HostOutputError, match=r"cannot write .*suite.a.* for --logs: Not a directory"):
        session_of([a_test("a"), a_test("b")], FakeExecutor(lambda boot: BAD), log, artefacts=artefacts)
    # The test whose console could not be kept has its verdict all the same.
    assert log.named("result") == ["a fail", "b not-run"]
    assert log.named("end") == ["1 failed, 1 not run"]


def planted(tmp_path: Path) -> tuple[Path, Path]:
    """A folder for --logs, in a repository that somebody else has filled; and a file of the user outside."""
    folder, mine = tmp_path / "logs", tmp_path / "mine"
    folder.mkdir()
    mine.write_text("mine")
    return folder, mine


@pytest.mark.parametrize("name", ["console.log", "report.txt", "recording.kvmbox", "guest.core"])
def test_link_in_the_place_of_a_file_is_replaced_and_not_followed(tmp_path: Path, name: str) -> None:
    def boot(boot: Boot) -> Observation:
        assert boot.record is not None
        assert boot.core is not None
        Path(boot.record).write_text("record")
        Path(boot.core).write_text("core")
        return BAD

    folder, mine = planted(tmp_path)
    (folder / "suite.a").mkdir()
    (folder / "suite.a" / name).symlink_to(mine)
    session_of([a_test("a")], FakeExecutor(boot), artefacts=Artefacts(str(folder), record=True, core=True))
    assert mine.read_text() == "mine"
    assert not (folder / "suite.a" / name).is_symlink()
    assert sorted(os.listdir(folder / "suite.a")) == [
        "console.log",
        "guest.core",
        "recording.kvmbox",
        "report.txt",
    ]


def test_link_in_the_place_of_a_tests_folder_is_refused(tmp_path: Path) -> None:
    folder, mine = planted(tmp_path)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "console.log").symlink_to(mine)
    (folder / "suite.a").symlink_to(outside)
    with pytest.raises(HostOutputError, match="Not a directory") as caught:
        session_of([a_test("a")], FakeExecutor(lambda boot: BAD), artefacts=Artefacts(str(folder)))
    assert caught.value.hint is not None
    assert "symbolic link" in caught.value.hint
    assert mine.read_text() == "mine"
    assert os.listdir(outside) == ["console.log"]


def test_files_of_boots_have_names_that_nobody_knows_beforehand(tmp_path: Path) -> None:
    sessions = [Artefacts(str(tmp_path), record=True, core=True) for _ in range(2)]
    names = [path for one in sessions for _ in range(2) for path in one.next_files().values()]
    assert len(set(names)) == 8
    assert all(os.path.dirname(path) == str(tmp_path) for path in names)


def test_kept_file_that_only_its_user_could_read_stays_so(tmp_path: Path) -> None:
    console = tmp_path / "suite.a" / "console.log"
    console.parent.mkdir()
    console.touch(mode=0o600)
    session_of([a_test("a")], FakeExecutor(lambda boot: BAD), artefacts=Artefacts(str(tmp_path)))
    assert console.stat().st_mode & 0o777 == 0o600
