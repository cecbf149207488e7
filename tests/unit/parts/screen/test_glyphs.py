"""Characters of code page 437 as text that is safe on a terminal."""

from __future__ import annotations

from kvmbox.parts.screen.glyphs import GLYPHS, text_of


def test_each_code_is_one_character_that_can_be_printed() -> None:
    assert len(GLYPHS) == 256
    assert all(character.isprintable() for character in GLYPHS)


def test_codes_are_those_of_the_code_page() -> None:
    assert text_of(bytes(range(0x20, 0x7F))) == bytes(range(0x20, 0x7F)).decode("ascii")
    assert text_of(b"\x00\x01\x1b\x7f\x80\xb3\xdb\xe1\xfe\xff") == " ☺←⌂Ç│█ß■ "
    assert text_of(bytearray(b"\x0d\x0a")) == "♪◙"
