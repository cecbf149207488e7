"""Waiting for a text on the screen, by a program."""

from __future__ import annotations

import threading

import pytest

from kvmbox.base.errors import ExpectError
from kvmbox.parts.screen.picture import Picture
from kvmbox.parts.screen.screens import expect, expect_similar


def test_expect_finds_what_comes_and_what_is_left_at_the_end() -> None:
    texts = iter(["", "boot", "boot\nlogin: "])
    assert expect(lambda: (next(texts),), threading.Event(), r"log\w+", None).group() == "login"
    ended = threading.Event()
    ended.set()
    assert expect(lambda: ("left",), ended, "left", None).start() == 0


def test_expect_looks_into_each_form_of_the_text() -> None:
    forms = ("$", "$" + 79 * " ")
    assert expect(lambda: forms, threading.Event(), r"^\$ ", None).group() == "$ "
    assert expect(lambda: forms, threading.Event(), r"^\$$", None).group() == "$"


@pytest.mark.parametrize(
    ("text", "told"), [("boot", r"it shows 'boot'$"), ("", r"it is blank$")], ids=["text", "blank"]
)
def test_expect_tells_what_was_there_instead(text: str, told: str) -> None:
    ended = threading.Event()
    with pytest.raises(ExpectError, match=r"'login' was not seen on the screen within 0 s; " + told):
        expect(lambda: (text, 80 * " "), ended, "login", 0.0)
    ended.set()
    with pytest.raises(ExpectError, match=r"before the guest ended; " + told) as caught:
        expect(lambda: (text, 80 * " "), ended, "login", None)
    assert caught.value.output == text.encode()


BLACK, GREY = Picture(2, 1, bytes(6)), Picture(2, 1, bytes([51] * 6))


def test_picture_is_looked_for_until_it_is_similar() -> None:
    pictures = iter([None, GREY, BLACK])
    assert expect_similar(lambda: next(pictures), threading.Event(), BLACK, None) is BLACK
    assert expect_similar(lambda: GREY, threading.Event(), BLACK, None, within=0.2) is GREY
    half = Picture(2, 1, bytes(3) + b"\xff" * 3)
    assert expect_similar(lambda: half, threading.Event(), BLACK, None, region=(0, 0, 1, 1)) is half


@pytest.mark.parametrize(
    ("shown", "region", "told"),
    [
        (None, None, "it shows no graphics"),
        (GREY, None, r"it differs by 0.2 \(2 x 1 pixels\)"),
        (Picture(1, 1, bytes(3)), (1, 0, 1, 1), "is not in a picture of 1 x 1"),
    ],
)
def test_picture_that_does_not_come_is_told_of(
    shown: Picture | None, region: tuple[int, int, int, int] | None, told: str
) -> None:
    with pytest.raises(ExpectError, match=f"the picture was not seen on the screen within 0 s; .*{told}"):
        expect_similar(lambda: shown, threading.Event(), BLACK, 0.0, region=region)
