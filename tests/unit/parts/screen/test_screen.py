"""A screen as text and data."""

from __future__ import annotations

import json

from kvmbox.base import layout
from kvmbox.parts.screen.mode import CELLS, MODE_3, TextMode
from kvmbox.parts.screen.screen import Cursor, Screen


def mode(**changes: object) -> TextMode:
    return TextMode(**MODE_3.as_dict() | changes)


def memory(*texts: tuple[int, bytes], attribute: int = 7) -> bytes:
    """A text memory with these characters, each behind its place."""
    cells = bytearray(b" \x07" * CELLS)
    for place, text in texts:
        for number, code in enumerate(text):
            at = 2 * ((place + number) % CELLS)
            cells[at : at + 2] = bytes((code, attribute))
    return bytes(cells)


def test_rows_are_text_without_the_blanks_at_their_ends() -> None:
    screen = Screen(memory((0, b"one  "), (80 + 3, b"two")), MODE_3)
    assert screen.rows == ("one", "   two", *[""] * 23)
    assert screen.text == str(screen) == "one\n   two"
    assert not screen.is_blank
    assert (screen.columns, screen.has_graphics) == (80, False)


def test_forms_are_the_text_without_and_with_the_blanks_at_the_ends_of_rows() -> None:
    text, padded = Screen(memory((0, b"$"), (24 * 80 + 79, b"!")), MODE_3).forms
    assert text == "$" + 24 * "\n" + 79 * " " + "!"
    assert padded == "\n".join(["$".ljust(80), *[80 * " "] * 23, "!".rjust(80)])


def test_blank_is_what_has_nothing_to_see() -> None:
    assert Screen(bytes(layout.TEXT_SCREEN_SIZE), MODE_3).is_blank
    assert Screen(memory((5, b"\xff \x00")), MODE_3).is_blank


def test_colours_without_text_are_not_blank() -> None:
    assert not Screen(memory((5, b" "), attribute=0x10), MODE_3).is_blank
    assert not Screen(memory((5, b"\0"), attribute=0x70), MODE_3).is_blank
    assert Screen(memory((5, b" "), attribute=0x0F), MODE_3).is_blank  # white on black


def test_background_is_what_the_mode_makes_of_the_attribute() -> None:
    cells = memory((5, b" "), attribute=0x80)
    assert Screen(cells, MODE_3).is_blank  # it would blink
    assert not Screen(cells, mode(blinks=False)).is_blank  # it is grey
    black = tuple((0, 0, 0) for _ in range(16))
    assert Screen(memory((5, b" "), attribute=0x10), mode(colors=black)).is_blank
    assert not Screen(memory(), mode(colors=((0, 0, 42), *MODE_3.colors[1:]))).is_blank


def test_attributes_are_beside_the_characters() -> None:
    screen = Screen(memory((79, b"\xb3"), attribute=0x9E), MODE_3)
    assert screen.codes[0] == b" " * 79 + b"\xb3"
    assert screen.attributes[0] == b"\x07" * 79 + b"\x9e"


def test_start_and_pitch_choose_what_is_shown_and_memory_is_a_ring() -> None:
    cells = memory((0, b"lost"), (200, b"first"), (300, b"second"))
    assert Screen(cells, mode(start=200, pitch=100)).rows[:2] == ("first", "second")
    end = memory((CELLS - 2, b"round"), (CELLS - 2 + 80, b"next"))
    assert Screen(end, mode(start=CELLS - 2)).rows[:2] == ("round", "next")


def test_cursor_is_counted_from_the_start() -> None:
    empty = memory()
    assert Screen(empty, mode(start=160, cursor=160 + 80 + 5)).cursor == Cursor(1, 5)
    assert Screen(empty, mode(start=CELLS - 80, cursor=3)).cursor == Cursor(1, 3)
    for hidden in ({"cursor": None}, {"cursor": 25 * 80}, {"cursor": 90, "pitch": 100}):
        assert Screen(empty, mode(**hidden)).cursor is None
    assert Screen(empty, mode(cursor_lines=(14, 13))).cursor is None


def test_screens_are_equal_if_they_show_the_same() -> None:
    one = Screen(memory((0, b"a"), (3000, b"x")), MODE_3)
    assert one == Screen(memory((0, b"a"), (3000, b"y")), MODE_3)
    assert hash(one) == hash(Screen(memory((0, b"a")), MODE_3))
    assert one != Screen(memory((0, b"b")), MODE_3)
    assert one != Screen(memory((0, b"a")), mode(cursor=9))
    assert one != "a"


def test_json_is_text_attributes_and_cursor() -> None:
    data = json.loads(json.dumps(Screen(memory((0, b"a\x1b")), MODE_3).as_json()))
    assert data["rows"] == ["a←", *[""] * 24]
    assert data["attributes"] == ["07" * 80] * 25
    assert (data["columns"], data["cursor"], data["graphics"]) == (80, {"row": 0, "column": 0}, False)
