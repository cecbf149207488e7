"""The history: what is kept, and files that are none."""

from __future__ import annotations

import pytest

from kvmbox.tools.smoke.report.history import History
from kvmbox.tools.smoke.suite.test_case import Verdict
from tests.support.smoke import a_result, seen


def test_results_come_back_as_written() -> None:
    results = [
        a_result("a", observation=seen(seconds=1.23456)),
        a_result("b", Verdict.CRASH),
        a_result("c", Verdict.FLAKY),
        a_result("d", Verdict.TOLERATED),
        a_result("e", Verdict.SKIP),
        a_result("f", Verdict.NOT_RUN),
    ]
    history = History.parse(History().with_results(results).as_text())
    assert history.seconds == {"suite/a": 1.235, "suite/b": 1.0, "suite/c": 1.0, "suite/d": 1.0}
    assert history.failed == {"suite/b", "suite/c"}


def test_what_did_not_run_keeps_what_is_known() -> None:
    first = History().with_results([a_result("a", Verdict.FAIL), a_result("b")])
    second = first.with_results([a_result("a", Verdict.NOT_RUN), a_result("b", Verdict.TIMEOUT)])
    assert second.failed == {"suite/a", "suite/b"}
    assert first.failed == {"suite/a"}


def test_empty_history_comes_back() -> None:
    assert History.parse(History().as_text()) == History()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no history"),
        ("[]", "no history"),
        ("{}", "no history"),
        ("[" * 100_000, "no history"),
        ('{"kvmbox-smoke-history": 1, "tests": []}', "no history"),
        ('{"kvmbox-smoke-history": 2, "tests": {}}', "its version is 2"),
        ('{"kvmbox-smoke-history": 1, "tests": {"a": 3}}', "'a' is no table"),
        ('{"kvmbox-smoke-history": 1, "tests": {"a": {"verdict": "pass"}}}', "seconds of 'a'"),
        ('{"kvmbox-smoke-history": 1, "tests": {"a": {"seconds": -1, "verdict": "pass"}}}', "seconds of 'a'"),
        (
            '{"kvmbox-smoke-history": 1, "tests": {"a": {"seconds": NaN, "verdict": "pass"}}}',
            "seconds of 'a'",
        ),
        ('{"kvmbox-smoke-history": 1, "tests": {"a": {"seconds": 1, "verdict": "good"}}}', "verdict of 'a'"),
        ('{"kvmbox-smoke-history": 1, "tests": {"a": {"seconds": 1, "verdict": []}}}', "verdict of 'a'"),
    ],
)
def test_file_that_is_no_history_is_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        History.parse(text)
