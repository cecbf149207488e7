"""The page of a session: what a reader sees, and what of a guest a browser takes for text."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvmbox.host.console.last_lines import HEAD, KEPT
from kvmbox.parts.screen.mode import MODE_3
from kvmbox.parts.screen.screen import Screen
from kvmbox.tools.smoke.report.html import HtmlReporter, Span, timeline
from kvmbox.tools.smoke.suite.test_case import TestResult, Verdict
from tests.support.browser import DARK, PHONE, dom_of, violations_of
from tests.support.html_page import Page
from tests.support.smoke import a_result, seen, tell

CRASHED = seen(6, b"one\r\ntwo\r\n", reason="triple fault", crash_report="RIP=1\nRAX=2", summary="RIP=1")


def written(*results: TestResult, before: dict[str, Verdict] | None = None, **summary: object) -> str:
    parts: list[str] = []
    ticks = iter(range(1000))
    reporter = HtmlReporter(
        parts.append,
        clock=lambda: next(ticks) / 10,
        again=lambda test: f"kvmbox run {test.image}",
        before=before or {},
    )
    tell(reporter, results, **summary)
    (text,) = parts
    return text


def test_page_tells_what_became_of_each_test() -> None:
    page = Page(
        written(
            a_result("good", observation=seen(0, b"hello\r\n")),
            a_result("crash", Verdict.CRASH, "triple fault", CRASHED),
            a_result("off", Verdict.SKIP, "i386 only"),
            before={"suite/crash": Verdict.PASS, "suite/good": Verdict.PASS},
        )
    )
    page.assert_policy_holds()
    page.assert_accessible()
    for words in (
        *("1 passed, 1 failed (1 crash), 1 skipped", "2 boots in", "crash (1)"),
        *("one\ntwo", "RIP=1", "RAX=2", "i386 only", "kvmbox run crash.elf", "hello"),
    ):
        assert words in page.text
    assert page.text.count("last time") == 1  # the one that has changed
    entries = [one for one in page.of("details") if "data-kind" in one]
    assert [(one["data-kind"], "open" in one) for one in entries] == [
        ("crash", True),  # failures come first, and are open
        ("pass", False),
        ("skip", False),
    ]


def test_page_is_whole_where_nothing_was_booted() -> None:
    page = Page(written(stopped="interrupted"))
    page.assert_policy_holds()
    assert "no test" in page.text
    assert "ended early: interrupted" in page.text
    assert not page.of("svg")


HOSTILE = st.text(
    alphabet="<>&\"'/=`!-\x00\x1b\u202e\ud800\n\r\t script]onload", max_size=60
) | st.sampled_from(
    [
        "</pre></details><script>alert(1)</script>",
        '"><img src=x onerror=alert(1)>',
        "<!--",
        "]]>",
        "</title><svg onload=alert(1)>",
    ]
)


@settings(max_examples=200)
@given(name=HOSTILE, reason=HOSTILE, console=HOSTILE, report=HOSTILE)
def test_nothing_of_a_guest_is_markup(name: str, reason: str, console: str, report: str) -> None:
    """The page has the same elements and attributes as that of a harmless guest."""

    def make(*texts: str) -> Page:
        name, reason, console, report = (f"x{text}x" for text in texts)
        output = console.encode("utf-8", "surrogatepass")
        observation = seen(6, output, reason, crash_report=report, summary="x", hint=reason)
        return Page(written(a_result(name, Verdict.CRASH, reason, observation)))

    page = make(name, reason, console, report)
    page.assert_policy_holds()
    page.assert_accessible()
    assert page.shape == make("", "", "", "").shape


def test_boots_at_the_same_time_have_lanes_of_their_own() -> None:
    spans = [
        Span("a", Verdict.PASS, 0.0, 2.0),
        Span("b", Verdict.CRASH, 1.0, 3.0),
        Span("c", Verdict.PASS, 2.0, 4.0),
    ]
    page = Page(timeline(spans, 4.0))
    bars = [one for one in page.of("rect") if one["class"] != "lane"]
    assert [(one["class"], one["x"], one["y"]) for one in bars] == [
        ("pass", "70.0", "2"),
        ("fail", "302.5", "22"),
        ("pass", "535.0", "2"),
    ]


def test_long_console_has_both_ends_and_says_what_is_cut() -> None:
    printed = b"begin " + b"x" * (HEAD + KEPT) + b" end"
    page = Page(written(a_result("long", Verdict.FAIL, "why", seen(0, printed))))
    page.assert_accessible()
    assert f"{len(printed) - HEAD - KEPT} bytes of the console are left out here" in page.text
    assert len(page.of("pre")) == 2
    assert "begin x" in page.text
    assert "x end" in page.text


@pytest.mark.thorough
@pytest.mark.parametrize("options", [(), (PHONE, DARK)])
def test_axe_finds_nothing_that_is_not_accessible(tmp_path: Path, options: tuple[str, ...]) -> None:
    screen = Screen(b"A\x1e" * 16384, MODE_3).as_json()
    results = [
        a_result("good", observation=seen(0, b"hello", screen=screen)),
        a_result("crash", Verdict.CRASH, "triple fault", CRASHED),
        a_result("long", Verdict.FAIL, "why", seen(0, b"x" * 100_000, screen=screen)),
    ]
    (tmp_path / "page.html").write_text(written(*results), encoding="utf-8")
    assert violations_of(tmp_path / "page.html", *options) == []


@pytest.mark.thorough
def test_browser_runs_no_script_but_the_page_s_own(tmp_path: Path) -> None:
    attack = b"<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
    results = [a_result(f"test {number}", Verdict.FAIL, "why", seen(0, attack)) for number in range(20)]
    (tmp_path / "page.html").write_text(written(*results), encoding="utf-8")
    shown = dom_of(tmp_path / "page.html")
    page = Page(shown)
    assert "20 of 20 shown" in page.text  # the page's own script has run
    assert "<title>kvmbox smoke" in shown
    assert not page.of("img")
