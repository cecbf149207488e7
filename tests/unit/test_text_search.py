"""--expect and --fail-on: the same decision, however the output is cut into pieces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmbox.host.matcher import ConsoleMatcher, Match


def test_expected_text_in_one_piece_decides() -> None:
    matcher = ConsoleMatcher([b"login:"], [])
    assert matcher.unfulfilled
    assert matcher.feed(b"boot\nlogin: ") is Match.EXPECTED
    assert not matcher.unfulfilled


def test_expected_text_across_pieces_decides() -> None:
    matcher = ConsoleMatcher([b"login:"], [])
    assert [matcher.feed(bytes([byte])) for byte in b"xlogin:"] == [Match.UNDECIDED] * 6 + [Match.EXPECTED]


def test_all_expected_texts_are_needed_in_any_order() -> None:
    matcher = ConsoleMatcher([b"one", b"two"], [])
    assert matcher.feed(b"two ") is Match.UNDECIDED
    assert matcher.missing == [b"one"]
    assert matcher.feed(b"one") is Match.EXPECTED


def test_texts_may_overlap() -> None:
    assert ConsoleMatcher([b"abc", b"bcd", b"c"], []).feed(b"abcd") is Match.EXPECTED


def test_text_given_twice_counts_once() -> None:
    assert ConsoleMatcher([b"ok", b"ok"], []).feed(b"ok") is Match.EXPECTED


def test_fatal_text_is_named() -> None:
    matcher = ConsoleMatcher([b"ok"], [b"BUG", b"panic"])
    assert matcher.feed(b"a panic") is Match.FAILED
    assert matcher.failure == b"panic"
    assert matcher.unfulfilled


def test_text_that_ends_first_decides() -> None:
    assert ConsoleMatcher([b"ok"], [b"panic"]).feed(b"ok panic") is Match.EXPECTED
    assert ConsoleMatcher([b"ok"], [b"panic"]).feed(b"panic ok") is Match.FAILED
    # `panic!!` begins first, `ic` ends first.
    assert ConsoleMatcher([b"ic"], [b"panic!!"]).feed(b"panic!!") is Match.EXPECTED


def test_fatal_text_before_the_last_expected_one_decides() -> None:
    assert ConsoleMatcher([b"one", b"two"], [b"BUG"]).feed(b"one BUG two") is Match.FAILED


def test_texts_that_end_together_count_as_expected() -> None:
    assert ConsoleMatcher([b"panic"], [b"ic"]).feed(b"panic") is Match.EXPECTED


def test_without_expected_texts_nothing_is_unfulfilled() -> None:
    matcher = ConsoleMatcher([], [b"BUG"])
    assert matcher.feed(b"all is well") is Match.UNDECIDED
    assert not matcher.unfulfilled


def test_text_of_one_byte_needs_no_memory_of_the_past() -> None:
    matcher = ConsoleMatcher([b"x"], [])
    assert matcher.feed(b"") is Match.UNDECIDED
    assert matcher.feed(b"ab") is Match.UNDECIDED
    assert matcher.feed(b"x") is Match.EXPECTED


@pytest.mark.parametrize(("expect", "fail_on"), [([b""], []), ([], [b""]), ([b"ok", b""], [])])
def test_empty_text_is_refused(expect: list[bytes], fail_on: list[bytes]) -> None:
    with pytest.raises(ValueError, match="empty text"):
        ConsoleMatcher(expect, fail_on)


# Two letters, so that texts are found, overlap and straddle pieces.
TEXTS = st.lists(st.text("ab", min_size=1, max_size=5).map(str.encode), max_size=3)


def decide(expect: list[bytes], fail_on: list[bytes], pieces: list[bytes]) -> tuple[Match, bytes | None]:
    matcher = ConsoleMatcher(expect, fail_on)
    for piece in pieces:
        found = matcher.feed(piece)
        if found is not Match.UNDECIDED:
            return found, matcher.failure
    return Match.UNDECIDED, matcher.failure


def by_definition(expect: list[bytes], fail_on: list[bytes], output: bytes) -> tuple[Match, bytes | None]:
    """The decision at the shortest beginning of the output that allows one."""
    for end in range(1, len(output) + 1):
        begin = output[:end]
        if expect and all(text in begin for text in expect):
            return Match.EXPECTED, None
        fatal = sorted(text for text in fail_on if text in begin)
        if fatal:
            return Match.FAILED, fatal[0]
    return Match.UNDECIDED, None


@given(TEXTS, TEXTS, st.lists(st.text("ab", max_size=6).map(str.encode), max_size=8))
def test_decision_is_that_of_the_definition_whatever_the_pieces(
    expect: list[bytes], fail_on: list[bytes], pieces: list[bytes]
) -> None:
    output = b"".join(pieces)
    wanted = by_definition(expect, fail_on, output)
    assert decide(expect, fail_on, pieces) == wanted
    assert decide(expect, fail_on, [output]) == wanted
    assert decide(expect, fail_on, [output[i : i + 1] for i in range(len(output))]) == wanted


# --- The screen -------------------------------------------------------------------------------------------


def test_text_on_the_screen_counts_as_one_that_was_printed() -> None:
    matcher = ConsoleMatcher([b"one", b"two"], [])
    assert matcher.look(b"boot") is Match.UNDECIDED
    assert matcher.look(b"one") is Match.UNDECIDED
    assert matcher.missing == [b"two"]
    assert matcher.feed(b"two") is Match.EXPECTED


def test_last_text_may_be_on_the_screen() -> None:
    matcher = ConsoleMatcher([b"one", b"two"], [])
    matcher.feed(b"one")
    assert matcher.look(b"two") is Match.EXPECTED
    assert not matcher.unfulfilled


def test_fatal_text_on_the_screen_counts_before_an_expected_one() -> None:
    matcher = ConsoleMatcher([b"ok"], [b"BUG", b"panic"])
    assert matcher.look(b"ok\n\npanic") is Match.FAILED
    assert matcher.failure == b"panic"
    assert matcher.unfulfilled


def test_output_and_screen_are_not_searched_together() -> None:
    matcher = ConsoleMatcher([b"login:"], [])
    matcher.feed(b"log")
    assert matcher.look(b"in:") is Match.UNDECIDED


def test_text_that_was_on_the_screen_at_first_counts_when_it_comes_again() -> None:
    matcher = ConsoleMatcher([b"old", b"new"], [b"BUG"])
    matcher.ignore(b"old BUG")
    assert matcher.look(b"old BUG new") is Match.UNDECIDED
    assert matcher.missing == [b"old"]
    assert matcher.look(b"") is Match.UNDECIDED
    assert matcher.look(b"old") is Match.EXPECTED
    assert matcher.look(b"BUG") is Match.FAILED
