"""The look at a console while it is printed."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmbox.tools.smoke.execute.output_watch import WINDOW, OutputWatch
from kvmbox.tools.smoke.suite.test_case import Pattern, Step
from tests.support.smoke import literal, regex


def steps(*pairs: tuple[str | Pattern | None, bytes]) -> list[Step]:
    return [Step(Pattern(when) if isinstance(when, str) else when, send) for when, send in pairs]


def test_each_prompt_gets_its_answer_once() -> None:
    watch = OutputWatch(steps(("login:", b"root\n"), ("password:", b"x\n")))
    assert watch.begin() == b""
    assert [watch.feed(data) for data in (b"log", b"in: ", b"login: ", b"pass", b"word:", b"password:")] == [
        *(b"", b"root\n", b"", b"", b"x\n", b""),
    ]
    assert watch.steps_done == 2
    assert not watch.stop


def test_two_prompts_in_one_piece_are_both_answered_in_order() -> None:
    watch = OutputWatch(steps(("b", b"1"), ("a", b"2")))
    assert watch.feed(b"a b a") == b"12"


def test_prompt_before_the_one_that_is_due_does_not_count() -> None:
    watch = OutputWatch(steps(("b", b"1"), ("a", b"2")))
    assert watch.feed(b"a b") == b"1"
    assert watch.feed(b" a") == b"2"


def test_step_without_a_prompt_is_typed_at_once() -> None:
    watch = OutputWatch(steps((None, b"go"), ("x", b"1"), (None, b"2")))
    assert watch.begin() == b"go"
    assert watch.feed(b"x") == b"12"
    assert watch.steps_done == 3


def test_prompt_may_be_a_regular_expression_without_a_line_end() -> None:
    watch = OutputWatch(steps((regex(r"\w+@\w+[#$] $")[0], b"ls\n")))
    assert watch.feed(b"welcome\r\nroot@box") == b""
    assert watch.feed(b"# ") == b"ls\n"


def test_literal_text_may_span_lines() -> None:
    watch = OutputWatch(steps(("one\ntwo", b"1")), literal("three\nfour"))
    assert watch.feed(b"x\r\none\r") == b""
    assert watch.feed(b"\ntwo\r\nthree") == b"1"
    assert not watch.stop
    watch.feed(b"\r\nfour")
    assert watch.stop


@pytest.mark.parametrize(
    ("every", "single", "pieces", "stops_at"),
    [
        (literal("a", "b"), (), [b"a", b"x", b"b"], 2),
        (literal("a", "b"), (), [b"b", b"a"], 1),
        (literal("a", "b"), literal("c"), [b"a", b"c"], 1),
        ((), literal("c"), [b"ab", b"xc"], 1),
        ((), literal("abc"), [b"a", b"b", b"c"], 2),
        ((), (), [b"abc"], None),
        (regex("^a+$"), (), [b"aa", b"a", b"\n"], 2),
        (regex("^a+$"), (), [b"aa\r", b"\n"], 1),
        ((), regex("b"), [b"abc"], None),
        ((), regex("b"), [b"x\nabc", b"\n"], 1),
        ((), regex("^x"), [b"\n\n", b"yx\n", b"x\n"], 2),
    ],
)
def test_stop(
    every: Sequence[Pattern], single: Sequence[Pattern], pieces: list[bytes], stops_at: int | None
) -> None:
    watch = OutputWatch((), every, single)
    stops = []
    for piece in pieces:
        watch.feed(piece)
        stops.append(watch.stop)
    assert stops == [stops_at is not None and number >= stops_at for number in range(len(pieces))]


def test_search_of_a_very_long_line_is_bounded() -> None:
    watch = OutputWatch((), (), regex("a.*z"))
    watch.feed(b"a" + b"." * WINDOW)
    watch.feed(b"z\n")
    assert not watch.stop  # the line's beginning is out of sight
    watch.feed(b"a...z\n")
    assert watch.stop


@given(st.text("abc\r\n", max_size=30), st.data())
def test_pieces_make_no_difference(text: str, data: st.DataObject) -> None:
    dialogue = steps(("ab", b"1"), (regex("c")[0], b"2"), ("a\nb", b"3"))
    stop = (*literal("cc", "b\nb"), *regex("^a.c$"))
    whole = OutputWatch(dialogue, (), stop)
    typed = whole.feed(text.encode())
    pieces = OutputWatch(dialogue, (), stop)
    at = 0
    typed_in_pieces = b""
    while at < len(text):
        size = data.draw(st.integers(1, len(text) - at))
        typed_in_pieces += pieces.feed(text[at : at + size].encode())
        at += size
    assert (typed_in_pieces, pieces.stop, pieces.steps_done) == (typed, whole.stop, whole.steps_done)
