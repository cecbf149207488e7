"""Waiting for a text or a picture on the screen of a machine that runs, for a program."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable
from typing import Final, TypeAlias, TypeVar

from kvmbox.base.errors import ExpectError, UsageError
from kvmbox.parts.screen.picture import Picture

LOOK_EVERY_S: Final = 0.05
"""How often `expect` looks."""

_Found = TypeVar("_Found")
Seen: TypeAlias = tuple[_Found | None, str, bytes]
"""What a look has found, or None; and what was there instead, in words, and as the output of an error."""


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

    def see() -> Seen[re.Match[str]]:
        text, *others = look()
        for form in (text, *others):
            if (found := wanted.search(form)) is not None:
                return found, "", b""
        return None, f"shows {text!r}" if text else "is blank", text.encode()

    return _until(see, ended, repr(wanted.pattern), timeout)


def expect_similar(
    look: Callable[[], Picture | None],
    ended: threading.Event,
    similar_to: str | os.PathLike[str] | Picture,
    timeout: float | None,
    *,
    within: float = 0.0,
    region: tuple[int, int, int, int] | None = None,
) -> Picture:
    """Look until the picture differs from `similar_to`, a file or a picture, by `within` at most; returns it.

    `within` is from 0, equal, to 1: see `Picture.difference`. `region` is x, y, width and height of the part
    that counts. Raises ExpectError as `expect`, and StartError for a file that is no picture.
    """
    if not 0 <= within <= 1:
        raise UsageError(f"within={within} is not from 0 to 1", hint="0 is equal, 1 is anything")
    wanted = similar_to if isinstance(similar_to, Picture) else Picture.load(similar_to)
    wanted = wanted if region is None else wanted.region(*region)

    def see() -> Seen[Picture]:
        if (picture := look()) is None:
            return None, "shows no graphics", b""
        try:
            difference = wanted.difference(picture if region is None else picture.region(*region))
        except UsageError as error:
            return None, str(error), b""
        told = f"differs by {difference:.3g} ({picture.width} x {picture.height} pixels)"
        return picture if difference <= within else None, told, b""

    return _until(see, ended, "the picture", timeout)


def _until(
    look: Callable[[], Seen[_Found]], ended: threading.Event, what: str, timeout: float | None
) -> _Found:
    """Look until something is found. Raises ExpectError, which says what was there instead of `what`."""
    deadline = None if timeout is None else time.monotonic() + timeout
    while True:
        is_last = ended.is_set()  # before the look
        found, told, output = look()
        if found is not None:
            return found
        if is_last or (deadline is not None and time.monotonic() >= deadline):
            when = "before the guest ended" if is_last else f"within {timeout:g} s"
            raise ExpectError(f"{what} was not seen on the screen {when}; it {told}", output=output)
        ended.wait(LOOK_EVERY_S)
