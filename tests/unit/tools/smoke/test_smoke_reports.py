"""Reports: TAP and JUnit by strict readers, JSON lines, Markdown, annotations, lines, the live table."""

from __future__ import annotations

import html
import io
import json
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmbox.base.errors import HostOutputError
from kvmbox.tools.smoke.report.github import GithubReporter, harmless, without_commands
from kvmbox.tools.smoke.report.jsonl import JsonLinesReporter, JsonReporter
from kvmbox.tools.smoke.report.junit import JunitReporter
from kvmbox.tools.smoke.report.live_table import LiveReporter, make_console
from kvmbox.tools.smoke.report.markdown import MarkdownReporter
from kvmbox.tools.smoke.report.plain import PlainReporter
from kvmbox.tools.smoke.report.reporter import Plan, Reporter
from kvmbox.tools.smoke.report.safe_text import KEPT_OUTPUT, tail
from kvmbox.tools.smoke.report.summary import NOTHING_TESTED, Summary
from kvmbox.tools.smoke.report.tap_output import TapReporter
from kvmbox.tools.smoke.suite.test_case import Origin, TestResult, Verdict
from tests.support.junit_xml import read_junit
from tests.support.smoke import a_result, a_summary, a_test, seen, tell
from tests.support.tap14 import read_tap

CRASHED = seen(
    6,
    b"one\r\ntwo\x1b[31m\r\n",
    reason="triple fault",
    hint="look at the IDT",
    crash_report="RIP=1\nRAX=2",
    messages="kvmbox: error: triple fault\n",
)
ALL_KINDS = [
    a_result("good", observation=seen(0, b"hello\r\n")),
    a_result("bad", Verdict.FAIL, "status 3", seen(3)),
    a_result("crash", Verdict.CRASH, "triple fault", CRASHED),
    a_result("slow", Verdict.TIMEOUT, "--timeout 1 s ran out", seen(124)),
    a_result("broken", Verdict.ERROR, "no /dev/kvm", seen(4)),
    a_result("wobbly", Verdict.FLAKY, "1 of 2 boots passed"),
    a_result("known", Verdict.TOLERATED, "issue #7"),
    a_result("off", Verdict.SKIP, "i386 only"),
]
NOT_RUN = a_result("late", Verdict.NOT_RUN, "not run: interrupted")
NOW = datetime(2026, 2, 28, 12, tzinfo=UTC).timestamp()


def written(
    make: Callable[[Callable[[str], None]], Reporter], results: Sequence[TestResult], **summary: object
) -> str:
    parts: list[str] = []
    tell(make(parts.append), results, **summary)
    return "".join(parts)


def junit(write: Callable[[str], None]) -> JunitReporter:
    return JunitReporter(write, now=lambda: NOW, host="box")


# --- TAP -------------------------------------------------------------------------------------------------


def test_tap_of_all_kinds() -> None:
    document = read_tap(written(TapReporter, ALL_KINDS))
    assert document.complete
    assert [(one.ok, one.description, one.directive, one.reason) for one in document.points] == [
        (True, "good", "", ""),
        (False, "bad", "", ""),
        (False, "crash", "", ""),
        (False, "slow", "", ""),
        (False, "broken", "", ""),
        (False, "wobbly", "", ""),
        (False, "known", "TODO", "issue #7"),
        (True, "off", "SKIP", "i386 only"),
    ]
    assert document.points[2].diagnostics == {
        "verdict": "crash",
        "duration_ms": 1000.0,
        "message": "triple fault",
        "status": 6,
        "hint": "look at the IDT",
        "at": "suite.toml:7",
        "console": ["one", "two\\x1b[31m"],
        "crash_report": ["RIP=1", "RAX=2"],
    }
    assert document.points[0].diagnostics == {"verdict": "pass", "duration_ms": 1000.0}


def test_tap_of_a_session_that_ended_early_bails_out() -> None:
    document = read_tap(written(TapReporter, [*ALL_KINDS, NOT_RUN], stopped="interrupted", interrupted=True))
    assert document.planned == len(ALL_KINDS) + 1
    assert len(document.points) == len(ALL_KINDS)
    assert document.bail_out == "interrupted"
    assert document.complete


def test_tap_without_tests_is_a_skipped_plan() -> None:
    assert read_tap(written(TapReporter, [])).skipped == "SKIP no test is selected"


def test_tap_names_the_suite_where_there_are_several() -> None:
    document = read_tap(written(TapReporter, [a_result("a", suite="x"), a_result("a", suite="y")]))
    assert [one.description for one in document.points] == ["x/a", "y/a"]


def test_tap_cannot_be_steered_by_a_name_or_a_reason() -> None:
    results = [
        a_result("a # SKIP b", Verdict.FAIL, "x"),
        a_result("c\\# TODO", Verdict.FAIL, "x"),
        a_result("d", Verdict.SKIP, "# TODO\nok 9 - e"),
    ]
    document = read_tap(written(TapReporter, results))
    assert [(one.ok, one.description, one.directive) for one in document.points] == [
        (False, "a # SKIP b", ""),
        (False, "c\\# TODO", ""),
        (True, "d", "SKIP"),
    ]


def test_tap_is_written_as_results_come() -> None:
    parts: list[str] = []
    reporter = TapReporter(parts.append)
    reporter.begin(Plan((a_test("a"), a_test("b"))))
    reporter.result(a_result("a"))
    assert "".join(parts).startswith("TAP version 14\n1..2\nok 1 - a\n")


# --- JUnit -----------------------------------------------------------------------------------------------


def test_junit_of_all_kinds() -> None:
    root = read_junit(written(junit, [*ALL_KINDS, NOT_RUN], stopped="interrupted"))
    assert {name: root.attrib[name] for name in ("tests", "failures", "errors", "time")} == {
        "tests": "9",
        "failures": "3",
        "errors": "2",
        "time": "2.000",
    }
    (suite,) = root
    assert (suite.attrib["name"], suite.attrib["timestamp"], suite.attrib["hostname"]) == (
        *("suite", "2026-02-28T12:00:00", "box"),
    )
    outcomes = {
        case.attrib["name"]: next(
            (
                (child.tag, child.attrib["message"], child.attrib.get("type"))
                for child in case
                if child.attrib
            ),
            None,
        )
        for case in suite
    }
    assert outcomes == {
        "good": None,
        "bad": ("failure", "status 3", "fail"),
        "crash": ("failure", "triple fault", "crash"),
        "slow": ("error", "--timeout 1 s ran out", "timeout"),
        "broken": ("error", "no /dev/kvm", "error"),
        "wobbly": ("failure", "1 of 2 boots passed", "flaky"),
        "known": ("skipped", "issue #7", None),
        "off": ("skipped", "i386 only", None),
        "late": ("skipped", "not run: interrupted", None),
    }
    crash = suite.find("./testcase[@name='crash']")
    assert crash is not None
    out, error = crash.findtext("system-out"), crash.findtext("system-err")
    assert out == "one\ntwo�[31m\n\n--- crash report ---\nRIP=1\nRAX=2\n"
    assert error == "kvmbox: error: triple fault\n"
    text = crash.findtext("failure")
    assert text is not None
    assert "suite.toml:7: crash: triple fault" in text
    assert "hint: look at the IDT" in text


def test_junit_has_a_suite_per_suite_and_the_end_of_a_long_console() -> None:
    long = a_result("long", observation=seen(0, b"x" * KEPT_OUTPUT + b"the end"), suite="other")
    root = read_junit(written(junit, [a_result("a"), long]))
    assert [suite.attrib["name"] for suite in root] == ["suite", "other"]
    text = root[1][0].findtext("system-out")
    assert text is not None
    assert text.endswith("the end")
    assert len(text) == KEPT_OUTPUT


def test_junit_without_tests_is_a_document() -> None:
    assert read_junit(written(junit, [])).attrib["tests"] == "0"


@given(
    st.binary(max_size=40),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    st.text(min_size=1, max_size=12).filter(str.isprintable),
    st.sampled_from(
        [Verdict.FAIL, Verdict.CRASH, Verdict.TIMEOUT, Verdict.SKIP, Verdict.PASS, Verdict.TOLERATED]
    ),
)
def test_whatever_a_guest_prints_reports_stay_what_they_are(
    output: bytes, words: str, name: str, verdict: Verdict
) -> None:
    observation = seen(3, output, hint=words, crash_report=words, messages=words)
    results = [a_result(name, verdict, words, observation), a_result(name + "2")]
    document = read_tap(written(TapReporter, results))
    assert [one.description for one in document.points] == [name, name + "2"]
    xml = written(junit, results)
    root = read_junit(xml)
    assert [case.attrib["name"] for case in root[0]] == [name, name + "2"]
    lines = [json.loads(line) for line in written(JsonLinesReporter, results).splitlines()]
    assert [line["name"] for line in lines if line["event"] == "result"] == [name, name + "2"]
    texts = [plain(results)]
    texts += [written(make, results) for make in (GithubReporter, TapReporter, MarkdownReporter)]
    texts += [written(JsonLinesReporter, results), xml.replace("\t", " ")]
    for report in texts:
        assert all(line.isprintable() for line in report.split("\n"))


@pytest.mark.parametrize("code", [*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x061C, 0x200F, 0x2028])
def test_text_that_turns_the_direction_is_escaped_in_junit(code: int) -> None:
    words = f"a{chr(code)}b"
    observation = seen(3, words.encode() + b"\r\n\tnext", hint=words, crash_report=words, messages=words)
    xml = written(junit, [a_result("a", Verdict.FAIL, words, observation)])
    assert chr(code) not in xml
    (case,) = read_junit(xml)[0]
    shown = f"a\\u{code:04x}b"
    assert case.findtext("system-out") == f"{shown}\n\tnext\n--- crash report ---\n{shown}\n"
    assert case[0].attrib["message"] == case.findtext("system-err") == shown


# --- JSON lines ------------------------------------------------------------------------------------------


def test_json_lines() -> None:
    lines = [json.loads(line) for line in written(JsonLinesReporter, ALL_KINDS).splitlines()]
    assert [line["event"] for line in lines if line["event"] != "boot"] == [
        *("begin", *["result"] * len(ALL_KINDS), "end"),
    ]
    assert lines[0] == {
        "event": "begin",
        "version": 1,
        "repeat": 1,
        "slots": 1,
        "shard": None,
        "deselected": 0,
        "tests": [result.test.key for result in ALL_KINDS],
    }
    (crash,) = [line for line in lines if line.get("name") == "crash"]
    assert crash == {
        "event": "result",
        "test": "suite/crash",
        "suite": "suite",
        "name": "crash",
        "verdict": "crash",
        "reason": "triple fault",
        "at": "suite.toml:7",
        "boots": 1,
        "passed": 0,
        "seconds": 1.0,
        "files": [],
        "status": 6,
        "hint": "look at the IDT",
        "console": "one\ntwo\x1b[31m\n",
        "summary": "RIP=1\nRAX=2",
        "crash_report": "RIP=1\nRAX=2",
        "messages": "kvmbox: error: triple fault\n",
    }
    assert lines[-1] == {
        "event": "end",
        "status": 12,
        "boots": 7,
        "seconds": 2.0,
        "stopped": None,
        "counts": {result.verdict.value: 1 for result in ALL_KINDS},
    }


def test_json_has_what_the_lines_have() -> None:
    lines = [json.loads(line) for line in written(JsonLinesReporter, ALL_KINDS).splitlines()]
    data = json.loads(written(lambda write: JsonReporter(write, {"schema": 1}), ALL_KINDS))
    results = [{"event": "result", **one} for one in data.pop("tests")]
    assert [one for one in lines if one["event"] == "result"] == results
    assert {"event": "end", **data} == {**lines[-1], "schema": 1}


def test_json_line_of_a_boot_that_was_ended_by_us_has_no_status() -> None:
    lines = written(JsonLinesReporter, [a_result("a", observation=seen(130, stopped=True))]).splitlines()
    assert json.loads(lines[2])["status"] is None


# --- Markdown --------------------------------------------------------------------------------------------


def test_markdown() -> None:
    page = written(MarkdownReporter, ALL_KINDS)
    lines = page.splitlines()
    assert lines[0] == (
        "### kvmbox smoke: 1 passed, 5 failed (1 crash, 1 timeout, 1 error, 1 flaky), 1 tolerated, 1 skipped"
    )
    rows = [line.split(" | ")[0].removeprefix("| ") for line in lines if line.startswith("| ")]
    assert rows == ["test", "bad", "crash", "slow", "broken", "wobbly", "known", "off", "good"]
    assert "<pre>one\ntwo\\x1b[31m\nRIP=1\nRAX=2</pre>" in page


def test_markdown_of_hostile_text_is_text() -> None:
    observation = seen(3, b"</pre><script>\n```\n| x |\n")
    page = written(MarkdownReporter, [a_result("<b>|`*", Verdict.FAIL, "[x](y)\n| z", observation)])
    assert "<script>" not in page
    assert "<b>" not in page
    (row,) = [line for line in page.splitlines() if line.startswith("| &lt;b&gt;")]
    assert row.count("|") == 5
    assert "[x]" not in row


@pytest.mark.parametrize("text", ["@all", "see #12", "!34", "a gh-5", "org/x#6", "me@all", "<@x>"])
def test_markdown_of_a_guest_mentions_nobody(text: str) -> None:
    results = [a_result("a", Verdict.FAIL, text), a_result("b", Verdict.FAIL, "x", seen(1, b"@all"))]
    page = written(MarkdownReporter, [*results, a_result(text, Verdict.FAIL, "x", seen(1, b"y"))])
    outside = html.unescape(re.sub("(?s)<pre>.*?</pre>", "", page))
    assert text not in outside
    assert text in outside.replace("\u200b", "")
    assert not re.search(r"(?i)([@#!]|gh-)\w", outside)


# --- GitHub ----------------------------------------------------------------------------------------------


def test_annotations_for_failures_alone_at_their_place() -> None:
    lines = written(GithubReporter, ALL_KINDS).splitlines()
    assert lines[0] == "::error file=suite.toml,line=7,title=bad%3A fail::status 3"
    assert lines[-1] == "::warning file=suite.toml,line=7,title=known%3A tolerated::issue #7"
    assert len(lines) == 6


def test_annotation_cannot_be_left() -> None:
    result = a_result("a,b:c", Verdict.FAIL, "50%\n::set-output::x\r", origin=Origin("x,y.elf"))
    assert written(GithubReporter, [result]) == (
        "::error file=x%2Cy.elf,title=a%2Cb%3Ac%3A fail::50%25\\n::set-output::x\\r\n"
    )


@pytest.mark.parametrize("line", ["::error::x", "  ::add-mask::x", "x ##[error]y", ":::x", "::::"])
def test_no_line_of_a_guest_is_a_command(line: str) -> None:
    assert "::" not in harmless(line)
    assert "##[" not in harmless(line)


def test_report_on_stdout_is_between_marks_that_stop_commands() -> None:
    parts: list[str] = []

    def report() -> None:
        with without_commands(parts.append):
            parts.append("::add-mask::x\n")
            raise HostOutputError("disk full")

    with pytest.raises(HostOutputError):
        report()
    token = parts[0].removeprefix("::stop-commands::").strip()
    assert len(bytes.fromhex(token)) == 16  # no guest guesses it
    assert parts[1:] == ["::add-mask::x\n", f"::{token}::\n"]


# --- Lines for people ------------------------------------------------------------------------------------


def plain(results: Sequence[TestResult], quiet: bool = False, **summary: object) -> str:
    lines: list[str] = []
    reporter = PlainReporter(lines.append, again=lambda test: f"kvmbox run '{test.image}'", quiet=quiet)
    tell(reporter, results, **summary)
    return "\n".join(lines) + "\n"


def test_plain_lines() -> None:
    assert plain(
        [a_result("good"), a_result("crash", Verdict.CRASH, "triple fault", CRASHED), ALL_KINDS[-1]]
    ) == (
        """\
3 tests
RUN        good
PASS       good  1.00 s
RUN        crash
CRASH      crash  1.00 s  triple fault
    hint: look at the IDT
    | one
    | two\\x1b[31m
    RIP=1
    RAX=2
    again: kvmbox run 'crash.elf'
SKIP       off  i386 only

failed:
  CRASH      crash  triple fault

1 passed, 1 failed (1 crash), 1 skipped; 2 boots in 2.00 s (1.0/s)
"""
    )


def test_path_cannot_steer_a_terminal() -> None:
    text = plain([a_result("a", Verdict.FAIL, image="\x1b[2J.elf").replaced(files=("\x9b2J/console.log",))])
    assert "    again: kvmbox run '\\x1b[2J.elf'\n" in text
    assert "    kept: \\x9b2J/console.log\n" in text


def test_quiet_lines_are_failures_and_the_sum() -> None:
    text = plain(ALL_KINDS, quiet=True)
    assert "RUN" not in text
    assert "PASS" not in text
    assert "CRASH      crash" in text


def test_session_that_proves_nothing_says_so() -> None:
    assert "nothing is proven" in plain([ALL_KINDS[-1]])
    assert "nothing is proven" not in plain([ALL_KINDS[0]])
    assert "ended early: interrupted" in plain([NOT_RUN], stopped="interrupted", interrupted=True)


def test_tail_of_a_console_is_short_and_says_so() -> None:
    assert tail(b"\r\n".join(b"%d" % number for number in range(30)), 3) == [
        "... (27 lines before)",
        "27",
        "28",
        "29",
    ]
    assert tail(b"x" * 1000) == ["x" * 200 + "..."]
    assert tail(b"") == tail(b"\r\n\r\n") == []


# --- The live table --------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_live_table_shows_what_runs_and_keeps_results(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rich")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    terminal = Terminal()
    times = iter(range(100))
    reporter = LiveReporter(
        make_console(terminal), clock=lambda: float(next(times)), again=lambda test: "again!"
    )
    tell(reporter, ALL_KINDS)
    shown = terminal.getvalue()
    assert "RUN  crash  " in shown
    assert "0/8, about 3.00 s left" in shown
    assert "\x1b[32mPASS\x1b[0m" in shown
    assert "\x1b[1;31mCRASH\x1b[0m" in shown
    assert "two\\x1b[31m" in shown
    assert "again: again!" in shown
    # The table is gone at the end, and the cursor is back.
    assert shown.rstrip().endswith("7 boots in 2.00 s (3.5/s)")
    assert shown.rfind("\x1b[?25h") > shown.rfind("\x1b[?25l")


def test_live_table_without_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rich")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    terminal = Terminal()
    tell(LiveReporter(make_console(terminal), clock=lambda: 0.0), ALL_KINDS)
    assert "\x1b[32m" not in terminal.getvalue()


# --- The sum ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verdicts", "interrupted", "status"),
    [
        ([Verdict.PASS], False, 0),
        ([Verdict.PASS, Verdict.SKIP, Verdict.TOLERATED], False, 0),
        ([Verdict.PASS, Verdict.FAIL], False, 12),
        ([Verdict.PASS, Verdict.FLAKY], False, 12),
        ([Verdict.PASS, Verdict.TIMEOUT], False, 12),
        ([Verdict.ERROR], False, 12),
        ([Verdict.CRASH, Verdict.NOT_RUN], False, 12),
        ([], False, NOTHING_TESTED),
        ([Verdict.SKIP], False, NOTHING_TESTED),
        ([Verdict.TOLERATED, Verdict.SKIP], False, NOTHING_TESTED),
        ([Verdict.NOT_RUN], False, NOTHING_TESTED),
        ([Verdict.PASS], True, 130),
        ([Verdict.FAIL], True, 130),
    ],
)
def test_exit_status(verdicts: list[Verdict], interrupted: bool, status: int) -> None:
    results = [a_result(str(number), verdict) for number, verdict in enumerate(verdicts)]
    assert a_summary(results, interrupted=interrupted).status == status


def test_zero_needs_a_pass_and_no_failure_whatever_else_there_is() -> None:
    for verdict in Verdict:
        summary = Summary((a_result("a", verdict), a_result("b")), 1.0)
        assert (summary.status == 0) == (not verdict.is_failure)
        assert (Summary((a_result("a", verdict),), 1.0).status == 0) == (verdict is Verdict.PASS)
