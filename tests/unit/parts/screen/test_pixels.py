"""Pictures in the pixels of a terminal: by kitty's protocol and by sixels, decoded again."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Iterable
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmbox.host.console.output_stream import OutputStream
from kvmbox.host.console.overlay_output import ERASE, DrawnStream
from kvmbox.parts.screen.kitty import Kitty
from kvmbox.parts.screen.live_text import LiveText
from kvmbox.parts.screen.picture import Picture
from kvmbox.parts.screen.pixels import MOST_FRAME, Drawing, Pixels, Window
from kvmbox.parts.screen.sixel import Sixel
from kvmbox.parts.screen.terminal_graphics import KITTY, pixels_on, way_of
from tests.support.terminal_pictures import KittyScreen, sixel_pictures

LARGE: Final = Window(51, 100, 1000, 1020)
KINDS: Final = [Kitty, Sixel]


def drawer(kind: type[Pixels], window: Window = LARGE, said: list[str] | None = None) -> Pixels:
    return kind(lambda: window, ([] if said is None else said).append, lambda: 0.0)


def drawn(pixels: Pixels, picture: Picture) -> Drawing:
    drawing = pixels.drawing(picture, is_last=True)
    assert drawing is not None
    assert drawing.picture == picture
    return drawing


def shown(data: bytes) -> Picture:
    """The only picture in `data`."""
    screen = KittyScreen()
    screen.take(data)
    (picture,) = [*screen.images.values(), *sixel_pictures(data)]
    return picture


def noise(width: int, height: int, levels: range = range(256)) -> Picture:
    chance = random.Random(1)
    return Picture(width, height, bytes(chance.choices(levels, k=3 * width * height)))


@st.composite
def pictures(draw: st.DrawFn, levels: st.SearchStrategy[int]) -> list[Picture]:
    """Some pictures of few colours each, most of them of one size, and with rows that are the same."""
    found = []
    sizes = st.tuples(st.integers(1, 24), st.integers(1, 20))
    size = draw(sizes)
    for _ in range(draw(st.integers(1, 4))):
        width, height = draw(st.just(size) | sizes)
        colors = draw(st.lists(st.tuples(levels, levels, levels).map(bytes), min_size=1, max_size=20))
        row = st.lists(st.sampled_from(colors), min_size=width, max_size=width).map(b"".join)
        rows = draw(st.lists(row, min_size=1, max_size=height))
        found.append(Picture(width, height, b"".join(rows[y % len(rows)] for y in range(height))))
    return found


# --- The protocols ----------------------------------------------------------------------------------------


@given(pictures(st.integers(0, 255)))
def test_kitty_shows_each_picture_alone_and_unchanged(sequence: list[Picture]) -> None:
    pixels, screen = drawer(Kitty), KittyScreen()
    for picture in sequence:
        if picture in screen.images.values():  # it is drawn again only if it was erased
            screen.take(pixels.erase)
        screen.take(drawn(pixels, picture).data)
        assert list(screen.images.values()) == [picture]
    screen.take(pixels.erase)
    assert not screen.images


@given(pictures(st.integers(0, 255)))
def test_sixels_show_each_picture_with_levels_in_per_cent(sequence: list[Picture]) -> None:
    pixels = drawer(Sixel)
    for picture in sequence:
        (seen,) = sixel_pictures(drawn(pixels, picture).data)
        assert (seen.width, seen.height) == (picture.width, picture.height)
        assert all(abs(one - other) <= 2 for one, other in zip(seen.rgb, picture.rgb, strict=True))


@given(pictures(st.integers(0, 255)))
def test_no_picture_is_more_than_base64_sixels_and_numbers(sequence: list[Picture]) -> None:
    command = rb"\x1b_G[a-zA-Z0-9=,]*(;[A-Za-z0-9+/=]*)?\x1b\\"
    sixels = rb'\x1bP0;1q"1;1;\d+;\d+[#;!$\-\d?-~]*\x1b\\'
    for pixels, grammar in ((drawer(Kitty), command), (drawer(Sixel), sixels)):
        for picture in sequence:
            assert re.fullmatch(b"(" + grammar + b")+", drawn(pixels, picture).data)
        assert re.fullmatch(b"(" + grammar + b")*", pixels.erase)


def test_sixels_of_too_many_colours_have_the_nearest_of_six_levels() -> None:
    picture = noise(60, 60)
    seen = shown(drawn(drawer(Sixel), picture).data)
    assert set(seen.rgb) == {0, 51, 102, 153, 204, 255}
    assert all(abs(one - other) <= 26 for one, other in zip(seen.rgb, picture.rgb, strict=True))


@pytest.mark.parametrize(("colors", "is_exact"), [(256, True), (257, False)])
def test_sixels_have_256_colours(colors: int, *, is_exact: bool) -> None:
    picture = Picture(
        colors, 1, bytes(level for color in range(colors) for level in (color % 200, color // 200, 0))
    )
    seen = shown(drawn(drawer(Sixel), picture).data)
    differences = [abs(one - other) for one, other in zip(seen.rgb, picture.rgb, strict=True)]
    assert (max(differences) <= 2) == is_exact


def test_sixels_of_pictures_with_ever_new_colours_stay_exact() -> None:
    pixels = drawer(Sixel)
    for red in range(4):
        picture = Picture(200, 1, bytes(level for x in range(200) for level in (60 * red, x, 0)))
        seen = shown(drawn(pixels, picture).data)
        assert all(abs(one - other) <= 2 for one, other in zip(seen.rgb, picture.rgb, strict=True))


def test_sixels_are_exact_again_when_the_mode_changes() -> None:
    pixels = drawer(Sixel)
    drawn(pixels, noise(60, 60))
    assert shown(drawn(pixels, Picture(1, 1, b"\x40\x40\x40")).data).rgb == b"\x40\x40\x40"


# --- Size and time ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("window", "size", "lines"),
    [
        (Window(51, 100, 1000, 1020), (64, 48), 3),
        (Window(51, 3, 30, 1020), (22, 16), 1),  # too wide: every third pixel
        (Window(3, 100, 1000, 60), (32, 24), 2),  # too high: one line is left for the output
        (Window(3, 100), (32, 24), 2),  # as many as of a VT340
        (Window(1, 1, 8, 16), (8, 6), 1),  # the least of them
    ],
)
def test_picture_without_room_has_fewer_pixels(
    kind: type[Pixels], window: Window, size: tuple[int, int], lines: int
) -> None:
    said: list[str] = []
    picture = Picture(64, 48, bytes(3 * 64 * 47) + b"\x00\xff\x00" * 64)
    pixels = drawer(kind, window, said)
    for _ in range(2):
        drawing = drawn(pixels, picture.replaced())
        seen = shown(drawing.data)
        assert (seen.width, seen.height, drawing.lines) == (*size, lines)
    assert len(said) == (size != (64, 48))


def test_pixels_that_are_left_are_those_at_each_step() -> None:
    picture = Picture(
        4, 3, bytes(3 * x + color + 100 * y for y in range(3) for x in range(4) for color in range(3))
    )
    seen = shown(drawn(drawer(Kitty, Window(51, 1, 3, 1020)), picture).data)
    assert seen == Picture(2, 2, bytes((0, 1, 2, 6, 7, 8, 200, 201, 202, 206, 207, 208)))


@pytest.mark.parametrize("kind", KINDS)
def test_frame_that_is_too_long_has_fewer_pixels(kind: type[Pixels]) -> None:
    drawing = drawn(drawer(kind), noise(800, 600))
    seen = shown(drawing.data)
    assert len(drawing.data) <= MOST_FRAME
    assert seen.width in (400, 267)


@pytest.mark.parametrize("kind", KINDS)
def test_drawing_takes_a_part_of_the_time(kind: type[Pixels]) -> None:
    now = [0.0]

    def clock() -> float:
        now[0] += 0.001
        return now[0]

    pixels = kind(lambda: LARGE, print, clock)
    old, new = noise(256, 256, range(2)), noise(256, 256, range(3))
    found = None
    calls = 0
    while found is None:
        now[0] += 0.020
        before, found = now[0], pixels.drawing(new if calls else old)
        assert now[0] - before <= 0.010
        calls += 1
    assert calls > 1
    assert found.picture is old
    assert pixels.drawing(old) is found  # again, as output has erased it: no work
    now[0] += 0.020
    assert pixels.drawing(new) is None
    last = noise(256, 256, range(4))
    assert shown(drawn(pixels, last).data).width == 256


@pytest.mark.parametrize("kind", KINDS)
def test_last_picture_that_takes_too_long_has_fewer_pixels(kind: type[Pixels]) -> None:
    now = [0.0]

    def clock() -> float:
        now[0] += 0.2
        return now[0]

    last = noise(512, 512, range(256))
    assert shown(drawn(kind(lambda: LARGE, print, clock), last).data).width < 512
    assert now[0] < 30


def test_picture_for_a_terminal_that_has_hung_up_is_drawn_for_one_of_the_usual_size() -> None:
    master, slave = os.openpty()
    try:
        pixels = pixels_on(slave, KITTY, print)
        os.close(master)
        assert pixels is not None
        assert shown(drawn(pixels, noise(8, 4)).data) == noise(8, 4)
    finally:
        os.close(slave)


@pytest.mark.parametrize(
    ("left", "result", "calls"), [([9, 5, 0], 0, 3), ([9, 9], 9, 2), ([0], 0, 1), (range(99, 0, -1), 90, 10)]
)
def test_last_flush_goes_on_while_the_terminal_takes_something(
    left: Iterable[int], result: int, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rest, made = iter(left), []

    def flush(_stream: OutputStream, seconds: float) -> int:
        made.append(seconds)
        return next(rest)

    monkeypatch.setattr(OutputStream, "flush", flush)
    assert DrawnStream("terminal", -1, failed=lambda error: None).flush(1.0) == result
    assert made == [1.0] * calls


# --- On the terminal --------------------------------------------------------------------------------------


def test_picture_is_drawn_over_one_of_its_size_and_at_last_for_good() -> None:
    live = LiveText(24, 80, drawer(Kitty))
    assert live.erase != ERASE
    erase, room = live.erase, b"\x1bD\x1bD\x1b[2A"
    one, other = Drawing(noise(2, 3), 2, b"<1>"), Drawing(noise(4, 3), 2, b"<2>")
    assert live.picture(one, at_line_start=True) == room + erase + b"\x1b7<1>\x1b8"
    assert live.picture(one, at_line_start=True) == room + b"\x1b7<1>\x1b8"
    assert live.picture(other, at_line_start=True) == room + erase + b"\x1b7<2>\x1b8"
    assert live.frame([], at_line_start=True) == erase
    assert live.picture(one, at_line_start=False) == b"\x1bD" * 3 + b"\x1b[3A" + erase + b"\x1b7\n<1>\x1b8"
    assert live.picture(one, at_line_start=False, is_last=True, is_drawn=True) == b"\n\n\n"
    last = live.picture(one, at_line_start=False, is_last=True)
    assert last == b"\x1bD" * 3 + b"\x1b[3A" + b"\x1b7\n<1>\x1b8\n\n\n"
    assert live.erase == ERASE


# --- What a terminal has ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("way", "environment"),
    [
        ("blocks", {}),
        ("blocks", {"TERM": "xterm-256color"}),
        ("kitty", {"TERM": "xterm-kitty", "XTERM_VERSION": "XTerm(398)"}),
        ("kitty", {"TERM": "xterm-ghostty"}),
        ("kitty", {"TERM": "xterm-256color", "TERM_PROGRAM": "WezTerm"}),
        ("kitty", {"TERM": "xterm-256color", "TERM_PROGRAM": "ghostty"}),
        ("kitty", {"TERM": "xterm-256color", "KITTY_WINDOW_ID": "1"}),
        ("kitty", {"TERM": "xterm-256color", "KONSOLE_VERSION": "221203"}),
        ("blocks", {"TERM": "xterm-256color", "KONSOLE_VERSION": "211201"}),
        ("sixel", {"TERM": "foot", "KITTY_WINDOW_ID": "1"}),
        ("sixel", {"TERM": "mlterm-256color"}),
        ("blocks", {"TERM": "tmux-256color", "KITTY_WINDOW_ID": "1"}),
        ("blocks", {"TERM": "screen", "KONSOLE_VERSION": "221203"}),
        ("blocks", {"TERM": "xterm-kitty", "TMUX": "/tmp/tmux,1,0"}),
        ("blocks", {"TERM": "xterm-256color", "KITTY_WINDOW_ID": "1", "VTE_VERSION": "7600"}),
    ],
)
def test_terminal_is_known_by_its_environment(way: str, environment: dict[str, str]) -> None:
    assert way_of(environment) == way
