"""A picture that is waited for: --expect-picture FILE[,within=N]."""

from __future__ import annotations

import os

from kvmbox.errors import UsageError
from kvmbox.lean import Value
from kvmbox.parts.screen.picture import Picture


class WantedPicture(Value):
    """The image file, and by how much the screen may differ: see `Picture.difference`."""

    path: str
    within: float = 0.0


def parse(value: str | os.PathLike[str]) -> WantedPicture:
    """A value of --expect-picture. Raises UsageError."""
    path, comma, within = os.fspath(value).partition(",within=")
    try:
        wanted = WantedPicture(path, float(within if comma else 0))
    except ValueError:
        wanted = WantedPicture("")
    if not wanted.path or not 0 <= wanted.within <= 1:
        raise UsageError(
            f"--expect-picture '{value}' is not FILE or FILE,within=N",
            hint="N is from 0, equal, to 1: wanted.png,within=0.01",
        )
    return wanted


class Watch:
    """Compares what is on the screen with the file, which is read now. Raises StartError."""

    def __init__(self, wanted: WantedPicture) -> None:
        self.sign = f"the picture '{wanted.path}'".encode("utf-8", "replace")
        """The words for it among the texts that are expected."""
        self._picture = Picture.load(wanted.path)
        self._within = wanted.within

    def shows(self, picture: Picture | None) -> bool:
        """Whether this is it."""
        if picture is None or not self._within:
            return picture == self._picture
        return self._picture.difference(picture) <= self._within
