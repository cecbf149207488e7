"""Looks at the screen by a program: who waits for what, whenever the guest ends."""

from __future__ import annotations

import threading

import pytest

from kvmbox.errors import DeviceProcessError, ExpectError
from kvmbox.parts.screen.screen import BLANK, Screen
from kvmbox.parts.screen.screens import Screens, expect
from kvmbox.run.standstill import Standstill


class Rig:
    """A main loop without vCPUs, whose turns come when somebody wants one."""

    def __init__(self) -> None:
        self.screens = Screens()
        self.called = threading.Semaphore(0)
        self.standstill = Standstill(self.called.release)
        self.looks = 0
        self.problem: DeviceProcessError | None = None
        self.answers: list[Screen | None] = []

    def read(self) -> Screen | None:
        self.looks += 1
        if self.problem is not None:
            raise self.problem
        return BLANK

    def attend(self) -> None:
        self.screens.attend(self.standstill, self.read)

    def ask(self) -> threading.Thread:
        """Ask on another thread, until that waits."""
        thread = threading.Thread(target=lambda: self.answers.append(self.screens.ask()), daemon=True)
        thread.start()
        return thread


def test_look_is_made_while_the_machine_stands_still() -> None:
    rig = Rig()
    rig.attend()
    assert not rig.screens.wants
    thread = rig.ask()
    assert rig.called.acquire(timeout=30)
    assert rig.screens.wants
    rig.screens.visit()
    thread.join(30)
    assert (rig.answers, rig.looks, rig.screens.wants) == ([BLANK], 1, False)


def test_look_while_the_machine_starts_waits_for_it() -> None:
    rig = Rig()
    thread = rig.ask()
    rig.attend()
    assert rig.called.acquire(timeout=30)
    rig.screens.visit()
    thread.join(30)
    assert rig.answers == [BLANK]


def test_whoever_waits_when_the_guest_ends_gets_what_it_has_left() -> None:
    rig = Rig()
    rig.attend()
    thread = rig.ask()
    assert rig.called.acquire(timeout=30)
    rig.problem = DeviceProcessError("vga", "is hung")
    with pytest.raises(DeviceProcessError):
        rig.screens.visit()
    assert rig.screens.wants  # nobody was answered
    rig.screens.end(BLANK)
    thread.join(30)
    assert rig.answers == [BLANK]
    assert rig.screens.ask() is BLANK
    assert not rig.screens.wants


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
