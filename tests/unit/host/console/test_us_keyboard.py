"""A US keyboard: texts, chords and terminal input as changes of keys."""

from __future__ import annotations

import pytest

from kvmbox.base.errors import UsageError
from kvmbox.devices.ps2.keyboard import KEY_NUMBERS, RELEASED
from kvmbox.host.console.us_keyboard import NAMED_KEYS, KeyReader, chord, typed

SHIFT, CTRL, ALT = "2c", "3a", "3c"


def held(changes: bytes) -> set[int]:
    """The keys that are pressed when all of it is over."""
    pressed: set[int] = set()
    for change in changes:
        (pressed.discard if change & RELEASED else pressed.add)(change & ~RELEASED)
    return pressed


@pytest.mark.parametrize(
    ("text", "changes"),
    [
        ("a", "1f 9f"),
        ("A", "2c 1f 9f ac"),
        ("1", "02 82"),
        ("!", "2c 02 82 ac"),
        ("=", "0d 8d"),
        ("p", "1a 9a"),
        ("\\", "1d 9d"),
        ("'", "29 a9"),
        ("/", "37 b7"),
        ("?", "2c 37 b7 ac"),
        (" ", "3d bd"),
        ("\n", "2b ab"),
        ("\r", "2b ab"),
        ("\t", "10 90"),
        ("\b", "0f 8f"),
        ("\x7f", "0f 8f"),
        ("\x1b", "6e ee"),
        ("\x03", "3a 30 b0 ba"),
        ("\x1c", "3a 1d 9d ba"),
        ("\x00", "3a 2c 03 83 ac ba"),
        ("ls", "27 a7 20 a0"),
        ("", ""),
    ],
)
def test_text_is_typed_by_these_keys(text: str, changes: str) -> None:
    assert typed(text).hex(" ") == changes


def test_every_ascii_character_is_typed_by_keys_of_the_keyboard_that_are_released_again() -> None:
    for code in range(128):
        changes = typed(chr(code))
        assert changes
        assert {change & ~RELEASED for change in changes} <= KEY_NUMBERS
        assert not held(changes)


def test_printable_characters_have_strokes_of_their_own() -> None:
    assert len({typed(chr(code)) for code in range(0x20, 0x7F)}) == 0x5F


@pytest.mark.parametrize("text", ["é", "ls\x80", "\U0001f600"])
def test_character_without_a_key_is_refused_by_name(text: str) -> None:
    with pytest.raises(UsageError, match=r"no key for '\\"):
        typed(text)


@pytest.mark.parametrize(
    ("keys", "changes"),
    [
        ("enter", "2b ab"),
        ("f1", "70 f0"),
        ("f12", "7b fb"),
        ("a", "1f 9f"),
        ("-", "0c 8c"),
        ("minus", "0c 8c"),
        ("ctrl-c", "3a 30 b0 ba"),
        ("ctrl-alt-delete", "3a 3c 4c cc bc ba"),
        ("Shift-F1", "2c 70 f0 ac"),
        ("keypad_0", "63 e3"),
        ("keypad_9", "65 e5"),
        ("left", "4f cf"),
    ],
)
def test_chord_presses_keys_together(keys: str, changes: str) -> None:
    assert chord(keys).hex(" ") == changes


@pytest.mark.parametrize("keys", ["", "f13", "ctrl-", "--", "A", "ctrl+c", "\n", "ctrl-ctrl", "é", "a-a"])
def test_chord_that_there_is_not_is_refused(keys: str) -> None:
    with pytest.raises(UsageError):
        chord(keys)


def test_named_keys_are_keys_of_the_keyboard() -> None:
    assert set(NAMED_KEYS.values()) <= KEY_NUMBERS


@pytest.mark.parametrize(
    ("data", "changes"),
    [
        (b"a", "1f 9f"),
        (b"\r", "2b ab"),
        (b"\x1b", "6e ee"),
        (b"\x1b\x1b", "6e ee 6e ee"),
        (b"\x1b[A", "53 d3"),
        (b"\x1bOB", "54 d4"),
        (b"\x1b[C\x1b[D", "59 d9 4f cf"),
        (b"\x1b[1;5A", "3a 53 d3 ba"),
        (b"\x1b[1;8C", "2c 3c 3a 59 d9 ba bc ac"),
        (b"\x1bOP", "70 f0"),
        (b"\x1b[15~", "74 f4"),
        (b"\x1b[24~", "7b fb"),
        (b"\x1b[3~", "4c cc"),
        (b"\x1b[Z", "2c 10 90 ac"),
        (b"\x1b[[B", "71 f1"),
        (b"\x1bx", "3c 2f af bc"),
        (b"\x1b\r", "6e ee 2b ab"),
    ],
)
def test_reader_takes_what_terminals_send(data: bytes, changes: str) -> None:
    reader = KeyReader()
    assert reader.feed(data).hex(" ") == changes
    assert reader.dropped == 0


@pytest.mark.parametrize("data", [b"\x1b[1;5A", b"\x1bOP", b"\x1b[[C", b"\x1b[24~"])
def test_reader_takes_a_sequence_in_pieces(data: bytes) -> None:
    # An escape alone is a key, so the first piece has two bytes.
    for at in range(2, len(data)):
        reader = KeyReader()
        assert reader.feed(data[:at]) + reader.feed(data[at:]) == KeyReader().feed(data)


@pytest.mark.parametrize(
    ("data", "dropped"),
    [("aéb".encode(), 1), (b"a\xffb", 1), ("a😀b".encode(), 1), (b"a\x1b[Yb", 1), (b"a\x1b[99~b", 1)],
)
def test_reader_drops_and_counts_what_no_key_types(data: bytes, dropped: int) -> None:
    reader = KeyReader()
    assert reader.feed(data) == typed("ab")
    assert reader.dropped == dropped


def test_reader_holds_no_more_than_a_sequence() -> None:
    # Longer than any sequence: it is taken for Alt and what follows.
    reader = KeyReader()
    assert reader.feed(b"\x1b[" + b"1" * 16) == b""
    assert reader.feed(b"1").startswith(bytes.fromhex("3c 1b 9b bc"))


@pytest.mark.parametrize("first", range(256))
def test_reader_takes_any_bytes_and_leaves_no_key_held(first: int) -> None:
    for second in range(256):
        data = bytes((0x1B, first, second, 0x41))
        changes = KeyReader().feed(data)
        assert not held(changes)
        assert {change & ~RELEASED for change in changes} <= KEY_NUMBERS
