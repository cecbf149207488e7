"""A picture: its pixels, its hash, its PNG file."""

from __future__ import annotations

import base64
import io
import random
from pathlib import Path

import pytest

from kvmbox.base.errors import StartError, UsageError
from kvmbox.parts.screen.mode import MODE_3
from kvmbox.parts.screen.picture import MOST_PNG, Picture
from kvmbox.parts.screen.screen import Screen

RED, GREEN, BLACK = (255, 0, 0), (0, 254, 0), (0, 0, 0)
DOTS = Picture(3, 2, bytes((*RED, *GREEN, *BLACK, *BLACK, *BLACK, *RED)))


def test_pixels_are_numbered_from_the_upper_left_one() -> None:
    assert [DOTS.pixel(x, y) for y in range(2) for x in range(3)] == [RED, GREEN, BLACK, BLACK, BLACK, RED]
    with pytest.raises(UsageError, match=r"^a region of 1 x 1 at \(3, 0\) is not in a picture of 3 x 2$"):
        DOTS.pixel(3, 0)


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
    png = base64.b64encode(DOTS.png()).decode()
    assert screen.as_json()["picture"] == {"width": 3, "height": 2, "sha256": DOTS.sha256, "png": png}


def test_picture_that_makes_too_long_a_file_is_told_without_it() -> None:
    noise = Picture(512, 512, random.Random(1).randbytes(3 * 512 * 512))
    assert len(noise.png()) > MOST_PNG
    assert noise.as_json()["png"] is None


def test_region_has_its_pixels() -> None:
    assert DOTS.region(1, 0, 2, 2) == Picture(2, 2, bytes((*GREEN, *BLACK, *BLACK, *RED)))
    assert DOTS.region(0, 0, 3, 2) == DOTS


@pytest.mark.parametrize("region", [(2, 0, 2, 1), (0, 1, 1, 2), (-1, 0, 1, 1), (0, -1, 1, 1), (0, 0, 0, 1)])
def test_region_that_is_not_all_there_is_refused(region: tuple[int, int, int, int]) -> None:
    with pytest.raises(UsageError, match="is not in a picture of 3 x 2"):
        DOTS.region(*region)


def test_difference_is_the_mean_of_the_levels() -> None:
    assert DOTS.difference(DOTS) == 0
    assert Picture(1, 1, bytes(3)).difference(Picture(1, 1, b"\xff\xff\xff")) == 1
    assert Picture(2, 1, bytes(6)).difference(Picture(2, 1, bytes((0, 51, 0, 0, 0, 0)))) == pytest.approx(
        1 / 30
    )
    assert DOTS.difference(Picture(2, 3, DOTS.rgb)) == 1


def test_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    pytest.importorskip("PIL.Image")
    path = tmp_path / "dots.png"
    path.write_bytes(DOTS.png())
    assert Picture.load(path) == DOTS
    path.write_bytes(b"no picture")
    with pytest.raises(StartError, match=r"cannot read the picture '.*dots.png'"):
        Picture.load(path)
    with pytest.raises(StartError, match="No such file"):
        Picture.load(tmp_path / "nothing")
