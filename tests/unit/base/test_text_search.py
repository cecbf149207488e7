"""The search for texts: the same finds, however the output is cut into pieces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmbox.base.text_search import TextSearch


def searching(*texts: bytes) -> TextSearch:
    search = TextSearch()
    for text in texts:
        search.add(text)
    return search


def test_text_is_found_once_where_it_ends() -> None:
    search = searching(b"login:")
    assert search
    assert search.feed(b"boot\nlogin: login:") == [(11, [b"login:"])]
    assert not search
    assert search.feed(b"login:") == []


def test_text_across_pieces_is_found_in_the_last_one() -> None:
    search = searching(b"login:")
    assert [search.feed(bytes([byte])) for byte in b"xlogin:"] == [[]] * 6 + [[(1, [b"login:"])]]


def test_texts_are_found_in_the_order_of_their_ends() -> None:
    assert searching(b"bcd", b"c", b"abc").feed(b"abcd") == [(3, [b"c", b"abc"]), (4, [b"bcd"])]


def test_text_may_be_printed_by_one_port_or_by_all_together() -> None:
    search = searching(b"ok!", b"o1")
    assert search.feed(b"o", "COM1") == []
    assert search.feed(b"1", "COM2") == [(1, [b"o1"])]
    assert search.feed(b"k", "COM1") == []
    assert search.feed(b"2", "COM2") == []
    assert search.feed(b"!", "COM1") == [(1, [b"ok!"])]


def test_text_that_was_printed_before_it_is_searched_is_not_found() -> None:
    search = searching(b"longer than that")
    search.feed(b"early")
    search.add(b"early")
    assert search.feed(b" bird") == []
    assert search.feed(b", early") == [(7, [b"early"])]


@pytest.mark.parametrize("text", [b""])
def test_empty_text_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match="empty text"):
        searching(text)


# Two letters, so that texts are found, overlap and straddle pieces.
TEXTS = st.lists(st.text("ab", min_size=1, max_size=5).map(str.encode), max_size=4, unique=True)


@given(TEXTS, st.lists(st.text("ab", max_size=6).map(str.encode), max_size=8))
def test_finds_are_those_of_the_definition_whatever_the_pieces(
    texts: list[bytes], pieces: list[bytes]
) -> None:
    output = b"".join(pieces)
    wanted = {text: output.find(text) + len(text) for text in texts if text in output}
    found: dict[bytes, int] = {}
    search, done = searching(*texts), 0
    for piece in pieces:
        for end, names in search.feed(piece):
            found |= dict.fromkeys(names, done + end)
        done += len(piece)
    assert found == wanted


# --- The screen -------------------------------------------------------------------------------------------


def test_text_on_the_screen_counts_as_one_that_was_printed() -> None:
    search = searching(b"one", b"two")
    assert search.look(b"boot") == []
    assert search.look(b"one") == [b"one"]
    assert search.look(b"one two") == [b"two"]
    assert search.feed(b"one two") == []


def test_output_and_screen_are_not_searched_together() -> None:
    search = searching(b"login:")
    search.feed(b"log")
    assert search.look(b"in:") == []


def test_text_that_was_on_the_screen_at_first_counts_when_it_comes_again() -> None:
    search = searching(b"old", b"new")
    search.ignore(b"old")
    assert search.look(b"old new") == [b"new"]
    assert search.look(b"") == []
    assert search.look(b"old") == [b"old"]
