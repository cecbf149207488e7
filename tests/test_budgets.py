"""The budgets that measure complexity: nothing grows over them, and known exceptions only shrink."""

from __future__ import annotations

import textwrap

import pytest

from tools import budgets


@pytest.fixture(scope="module")
def measured() -> budgets.Numbers:
    """Of kvmbox: it takes seconds."""
    found = budgets.measure(budgets.sources())
    return found | {budgets.SUMS: budgets.sums(found[budgets.RINGS])}


def test_nothing_is_over_its_budget_but_for_known_exceptions(measured: budgets.Numbers) -> None:
    assert budgets.excess(measured, budgets.known()) == []


def test_no_exception_allows_more_than_there_is(measured: budgets.Numbers) -> None:
    # `python -m tools.budgets --lower` writes the new numbers.
    assert budgets.idle(measured, budgets.known()) == []


def test_sums_have_limits(measured: budgets.Numbers) -> None:
    limits = budgets.known()[budgets.SUMS]
    assert limits.keys() == measured[budgets.SUMS].keys()
    assert limits["files of a folder"] == 25
    assert limits["arrows upward"] == limits["circles"] == 0
    over = {name: number + 1 for name, number in limits.items()}
    assert len(budgets.excess({budgets.SUMS: over}, budgets.known())) == len(limits)


@pytest.mark.kvm
def test_plain_run_loads_no_more_than_its_budget() -> None:
    assert budgets.excess({budgets.LOADED: {"run hello64": budgets.loaded().total()}}, budgets.known()) == []


@pytest.mark.parametrize(
    ("budget", "text"),
    [
        ("attributes of a class", "class Name:\n" + "".join(f"    a{n}: int\n" for n in range(16))),
        (
            "attributes of a class",
            "class Name:\n    def f(self):\n        " + ", ".join(f"self.a{n}" for n in range(16)) + " = x\n",
        ),
        ("lines of a function", "def name():\n" + "    f()\n" * 60),
        ("lines of a function", "class A:\n    def name(self):\n" + "        f()\n" * 60),
        ("imports of a module", "".join(f"import m{n}\n" for n in range(21))),
        (
            "imports of a module",
            "def f():\n" + "".join(f"    from kvmbox.kvm import {n}\n" for n in ("vm", "vcpu", "ioctl"))
            + "".join(f"    import m{n}\n" for n in range(18)),
        ),
    ],
)  # fmt: skip
def test_what_is_over_a_budget_is_found(budget: str, text: str) -> None:
    measured = budgets.measure({"kvmbox.new.module": text})
    (number,) = measured[budget].values()
    assert number == budgets.BUDGETS[budget] + 1
    empty: budgets.Numbers = {name: {} for name in measured}
    known: budgets.Numbers = measured | {budgets.RINGS: {"new": 100}}
    assert len(budgets.excess(measured, empty | {budgets.RINGS: {"new": 100}})) == 1
    assert budgets.excess(measured, known) == []
    assert len(budgets.excess(measured, empty | {budget: measured[budget]})) == 1  # the folder has no number


def test_what_is_within_its_budget_is_not_found() -> None:
    text = "import a\nif TYPE_CHECKING:\n" + "".join(f"    import m{n}\n" for n in range(30))
    text += "class A:\n" + "".join(f"    a{n}: int\n" for n in range(15)) + "def f():\n" + "    f()\n" * 59
    measured = budgets.measure({"kvmbox.module": text})
    assert measured == {name: {} for name in budgets.BUDGETS} | {
        budgets.RINGS: {budgets.TOP: 1 + 1 + 30 + 16 + 60}
    }


def test_exception_that_is_too_high_is_told_and_lowered() -> None:
    empty: budgets.Numbers = {name: {} for name in budgets.BUDGETS}
    measured = empty | {"lines of a function": {"a": 70, "b": 80}, budgets.RINGS: {"cli": 9}}
    known = empty | {"lines of a function": {"a": 75, "b": 80, "gone": 61}, budgets.RINGS: {"cli": 20}}
    assert [line.split()[4] for line in budgets.idle(measured, known)] == ["a", "gone"]
    assert budgets.lowered(measured, known) == measured | {budgets.RINGS: {"cli": 20}}


def test_limit_of_all_code_lines_is_lowered_and_that_of_words_stays() -> None:
    measured = {budgets.SUMS: {budgets.LINES: 5, "words that people write": 5}}
    known = {budgets.SUMS: {budgets.LINES: 9, "words that people write": 9}}
    assert budgets.lowered(measured, known) == {
        budgets.SUMS: {budgets.LINES: 5, "words that people write": 9}
    }


def test_code_lines_are_neither_comments_nor_texts_nor_blanks() -> None:
    text = '''
        """A module."""

        # A comment.
        A = (
            1,  # of one
        )
        """What A is."""


        def f():
            """Two
            lines."""
            return """
        code"""
        '''
    assert budgets.code_lines(textwrap.dedent(text)) == 6
