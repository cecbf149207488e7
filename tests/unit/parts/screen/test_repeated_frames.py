"""Which rows of the screen were printed before, by a BIOS."""

from __future__ import annotations

import pytest

from kvmbox.parts.screen.repeated_frames import without_repeated


def left(rows: list[str], printed: bytes) -> list[str]:
    return without_repeated(rows, printed, 80)


@pytest.mark.parametrize(
    "printed",
    [b"boot\r\nok", b"boot\nok\n", b"booo\x08t\r\n\aok", b"loot\rb\nok", b"x\nboot  \r\nok"],
)
def test_lines_that_were_printed_are_left_out(printed: bytes) -> None:
    assert left(["boot", "ok", "", "new"], printed) == ["new"]


def test_line_at_another_column_is_the_same() -> None:
    assert left(["      boot"], b"boot\n") == []


def test_line_that_is_wider_than_the_screen_is_several_rows() -> None:
    assert left(["a" * 80, "b" * 10, "c"], b"a" * 80 + b"b" * 10 + b"\n") == ["c"]


def test_part_of_a_line_is_another_row() -> None:
    assert left(["boot", "boot ok"], b"boot ok\n") == ["boot"]


def test_empty_rows_belong_to_the_row_before() -> None:
    assert left(["bios", "", "a", "", "b", "", "bios", ""], b"bios") == ["a", "", "b"]


def test_characters_are_compared_as_they_look() -> None:
    assert left(["┌─☺"], b"\xda\xc4\x01\r\n") == []
