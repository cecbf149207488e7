"""A picture that is waited for: --expect-picture FILE[,within=N][,region=X:Y:WxH], or the hash of one."""

from __future__ import annotations

import os
import re
from typing import Final

from kvmbox.base.errors import UsageError
from kvmbox.base.value_classes import Value
from kvmbox.parts.screen.picture import Picture

HASH: Final = "sha256:"
_FORM: Final = re.compile(
    r"(?P<path>.+?)(,within=(?P<within>[0-9.eE-]+))?(,region=(?P<region>\d+:\d+:\d+x\d+))?", re.DOTALL
)
_WORD: Final = re.compile(",(within|region)=")
_DIGEST: Final = re.compile(rf"{HASH}[0-9a-f]{{64}}")


class WantedPicture(Value):
    """What the screen has to show.

    `path` is an image file, or `HASH` and the hash of the pixels; `within` says by how much the screen may
    differ (`Picture.difference`), and `region` which part of it counts: column, row, width, height.
    """

    path: str
    within: float = 0.0
    region: tuple[int, int, int, int] | None = None

    @property
    def is_hash(self) -> bool:
        """Whether there is no file."""
        return self.path.startswith(HASH)


def parse(value: str | os.PathLike[str]) -> WantedPicture:
    """A value of --expect-picture. Raises UsageError."""
    found = _FORM.fullmatch(os.fspath(value))
    if found is not None:
        try:
            within = float(found["within"] or 0)
        except ValueError:
            within = -1.0
        column, row, width, height = map(int, re.findall(r"\d+", found["region"] or "0:0:1x1"))
        region = (column, row, width, height) if found["region"] else None
        wanted = WantedPicture(found["path"], within, region)
        fits = not wanted.is_hash or (_DIGEST.fullmatch(wanted.path) and not within)
        if 0 <= within <= 1 and min(width, height) > 0 and not _WORD.search(wanted.path) and fits:
            return wanted
    raise UsageError(
        f"--expect-picture '{value}' is not FILE[,within=N][,region=X:Y:WxH] or sha256:HASH[,region=X:Y:WxH]",
        hint="N is from 0, equal, to 1: wanted.png,within=0.01,region=0:0:64x16; "
        "HASH is 64 digits of 0-9 and a-f",
    )


class Watch:
    """Compares what is on the screen with the file, which is read now. Raises StartError; UsageError for a
    region that is not in it.
    """

    def __init__(self, wanted: WantedPicture) -> None:
        where = "" if wanted.region is None else ",region={}:{}:{}x{}".format(*wanted.region)
        self.sign = f"the picture '{wanted.path}{where}'".encode("utf-8", "replace")
        """The words for it among the texts that are expected."""
        self._wanted = wanted
        self._picture: Picture | None = None
        if wanted.is_hash:
            import hashlib  # noqa: F401  (a confined VMM cannot load its shared object later)
        else:
            whole = Picture.load(wanted.path)
            self._picture = whole if wanted.region is None else whole.region(*wanted.region)

    def shows(self, picture: Picture | None) -> bool:
        """Whether this is it."""
        region = self._wanted.region
        if picture is None:
            return False
        if region is not None:
            try:
                picture = picture.region(*region)
            except UsageError:
                return False
        if self._picture is None:
            return picture.sha256 == self._wanted.path.removeprefix(HASH)
        return self._picture.difference(picture) <= self._wanted.within
