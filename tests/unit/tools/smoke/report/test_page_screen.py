"""The screen of a boot on a page: what a reader gets, within what bounds, and what is no screen."""

from __future__ import annotations

import base64
import builtins
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvmbox.devices.vga.model import VgaText
from kvmbox.parts.screen.mode import MODE_3, mode_of
from kvmbox.parts.screen.picture import Picture
from kvmbox.parts.screen.screen import Screen
from kvmbox.tools.smoke.report import page_screen
from kvmbox.tools.smoke.report.page_screen import Screens
from tests.support.html_page import Page

DOTS = Picture(2, 1, b"\xff\0\0\0\xff\0")
MEMORY = "".join(f"{one}\x1e" for one in "Hello <b>").encode("latin-1").ljust(1 << 15, b"\0")


def shown(screen: dict[str, Any] | None) -> Page:
    return Page(Screens().shown(screen, level=3))


def as_json(picture: Picture | None = None) -> dict[str, Any]:
    found = Screen(MEMORY, mode_of(VgaText()), picture).as_json()
    if picture is not None:
        found["picture"]["png"] = base64.b64encode(picture.png()).decode()
    return found


def picture_in(page: Page) -> bytes:
    (image,) = page.of("img")
    return base64.b64decode((image["src"] or "").removeprefix("data:image/png;base64,"))


def test_graphics_are_the_picture_itself() -> None:
    page = shown(as_json(DOTS))
    assert picture_in(page) == DOTS.png()
    assert page.of("img")[0]["alt"] == "a picture of 2 x 1 pixels"


def test_text_is_drawn_as_the_machine_itself_draws_it() -> None:
    pytest.importorskip("PIL")
    page = shown(as_json())
    assert picture_in(page) == Screen(MEMORY, MODE_3).png()
    assert page.of("img")[0]["alt"] == "text on the screen: Hello <b>"


def test_text_is_text_where_nothing_draws_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without_pillow(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "PIL":
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without_pillow)
    page = shown(as_json())
    assert not page.of("img")
    assert "Hello <b>" in page.text


def test_page_with_too_many_pictures_says_which_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    data = as_json(DOTS)
    monkeypatch.setattr(page_screen, "MOST_PICTURES", len(data["picture"]["png"]))
    screens = Screens()
    assert Page(screens.shown(data, level=2)).of("img")
    second = Page(screens.shown(data, level=2))
    assert not second.of("img")
    assert "a picture of 2 x 1 pixels, which is left out" in second.text


def test_picture_that_was_too_long_to_be_told_is_told_of() -> None:
    data = as_json(DOTS)
    data["picture"]["png"] = None
    assert "which is too large for this page" in shown(data).text


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda one: st.lists(one, max_size=3) | st.dictionaries(st.text(max_size=9), one, max_size=3),
    max_leaves=5,
)
FIELDS = ("rows", "attributes", "columns", "cursor", "graphics", "picture")


@settings(max_examples=200)
@given(st.fixed_dictionaries(dict.fromkeys(FIELDS, JSON)), st.booleans())
def test_what_is_no_screen_is_no_failure_and_no_markup(changed: dict[str, Any], graphics: bool) -> None:
    """Each field in turn is anything at all."""
    for name in FIELDS:
        page = shown(as_json(DOTS if graphics else None) | {name: changed[name]})
        assert {tag for tag, _ in page.elements} <= {"h3", "img", "pre", "p"}
    for name in ("width", "height", "png"):
        data = as_json(DOTS)
        data["picture"][name] = changed["rows"]
        assert {tag for tag, _ in shown(data).elements} <= {"h3", "img", "p"}


def test_lists_in_lists_without_end_are_no_screen() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert not shown(as_json(None) | {"rows": [deep]}).text
