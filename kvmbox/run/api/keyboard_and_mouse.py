"""What a program does with the keyboard and the mouse of its guest: `Machine.type`, `press` and `mouse`."""

from __future__ import annotations

from kvmbox.host.console import mouse_events
from kvmbox.host.console.us_keyboard import chord, typed
from kvmbox.run.options.config import RunConfig

__all__ = ("Mouse", "chord", "typed")


class Mouse:
    """The PS/2 mouse. Nothing here waits, also before the start: what is done waits until the guest's mouse
    reports. Any thread may call any of it. UsageError for what the mouse cannot do.
    """

    def __init__(self, config: RunConfig) -> None:
        assert config.keyboard is not None
        self._sent = config.keyboard.mouse

    def move(self, dx: int, dy: int, *, at_once: bool = False) -> None:
        """Move by `dx` counts to the right and `dy` down: up to 255 in one report, or all `at_once`, so that
        the counters of the report overflow.
        """
        self._sent.send(mouse_events.moved(dx, dy, at_once=at_once))

    def press(self, button: str = "left") -> None:
        """Press and hold a button: left, right, middle, back, forward."""
        self._sent.send(mouse_events.pressed(button))

    def release(self, button: str = "left") -> None:
        """Release it."""
        self._sent.send(mouse_events.released(button))

    def click(self, button: str = "left") -> None:
        """Press it and release it."""
        self._sent.send(mouse_events.clicked(button))

    def wheel(self, notches: int) -> None:
        """Turn the wheel: away from the user if `notches` is positive."""
        self._sent.send(mouse_events.wheeled(notches))

    def act(self, text: str) -> None:
        """Do what a text says, as in a dialogue of a suite: "move 10 -5, click left, wheel 1"."""
        self._sent.send(mouse_events.acted(text))
