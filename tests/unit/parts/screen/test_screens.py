"""Waiting for a text on the screen, by a program."""

from __future__ import annotations

import threading

import pytest

from kvmbox.errors import ExpectError
from kvmbox.parts.screen.screens import expect


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
