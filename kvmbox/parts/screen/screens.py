"""Waiting for a text on the screen of a machine that runs, for a program."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from typing import Final

from kvmbox.errors import ExpectError

LOOK_EVERY_S: Final = 0.05
"""How often `expect` looks."""


def expect(
    look: Callable[[], tuple[str, ...]],
    ended: threading.Event,
    pattern: str | re.Pattern[str],
    timeout: float | None,
) -> re.Match[str]:
    """Look until one of the forms of the text matches. Raises ExpectError when `timeout` seconds are over, or
    the guest has `ended`, without that.
    """
    wanted = re.compile(pattern)
    deadline = None if timeout is None else time.monotonic() + timeout
    while True:
        is_last = ended.is_set()  # before the look
        text, *others = look()
        for form in (text, *others):
            found = wanted.search(form)
            if found is not None:
                return found
        if is_last or (deadline is not None and time.monotonic() >= deadline):
            when = "before the guest ended" if is_last else f"within {timeout:g} s"
            told = f"shows {text!r}" if text else "is blank"
            raise ExpectError(
                f"{wanted.pattern!r} was not seen on the screen {when}; it {told}", output=text.encode()
            )
        ended.wait(LOOK_EVERY_S)
