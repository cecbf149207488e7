"""A picture: its pixels, its hash, its PNG file."""

from __future__ import annotations

import io

import pytest

from kvmbox.parts.screen.mode import MODE_3
from kvmbox.parts.screen.picture import Picture
from kvmbox.parts.screen.screen import Screen

RED, GREEN, BLACK = (255, 0, 0), (0, 254, 0), (0, 0, 0)
DOTS = Picture(3, 2, bytes((*RED, *GREEN, *BLACK, *BLACK, *BLACK, *RED)))


def test_pixels_are_numbered_from_the_upper_left_one() -> None:
    assert [DOTS.pixel(x, y) for y in range(2) for x in range(3)] == [RED, GREEN, BLACK, BLACK, BLACK, RED]


def test_png_has_the_same_pixels() -> None:
    image = pytest.importorskip("PIL.Image")
    opened = image.open(io.BytesIO(DOTS.png()))
    assert (opened.mode, opened.size) == ("RGB", (3, 2))
    assert opened.tobytes() == DOTS.rgb


def test_hash_is_that_of_the_pixels() -> None:
    assert DOTS.sha256 == Picture(6, 1, DOTS.rgb).sha256
    assert DOTS.sha256 != Picture(3, 2, bytes(18)).sha256


def test_picture_is_blank_while_all_of_it_is_black() -> None:
    assert Picture(3, 2, bytes(18)).is_blank
    assert not DOTS.is_blank


def test_screen_with_a_picture_shows_that() -> None:
    screen = Screen(bytes(0x8000), MODE_3, DOTS)
    assert screen.png() == DOTS.png()
    assert screen.has_graphics
    assert not screen.is_blank
    assert screen != Screen(bytes(0x8000), MODE_3)
    assert screen.as_json()["picture"] == {"width": 3, "height": 2, "sha256": DOTS.sha256}
