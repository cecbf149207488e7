"""The file of --picture FILE: opened before the VMM confines itself, and written at the end of the run.

zlib is loaded with it, and of the extra `screen` what there is: a confined VMM loads no shared object.
"""

from __future__ import annotations

import os
import zlib  # noqa: F401 - see above
from typing import TYPE_CHECKING

from kvmbox.base.errors import StartError, UsageError
from kvmbox.host.files.atomic_file import Destination
from kvmbox.run.part import Lost

if TYPE_CHECKING:
    from kvmbox.parts.screen.screen import Screen
    from kvmbox.run.part import Opening


class PictureFile:
    """One picture to be. It appears under its name when all of it is written."""

    def __init__(self, path: str, opening: Opening) -> None:
        """Raises StartError."""
        self._path = path
        self._say = opening.say
        self._written = False
        self._destination = Destination(path, "--picture", StartError)
        self._rename, self._end = opening.caller.committer([self._destination])
        opening.prepare_pictures()

    def write(self, screen: Screen | None) -> Lost | None:
        """Write what is on the screen; why it is not written, if it is not."""
        from kvmbox.parts.screen.screen import BLANK

        try:
            data = (BLANK if screen is None else screen).png()
            os.ftruncate(self._destination.descriptor, 0)
            while data:
                data = data[os.write(self._destination.descriptor, data) :]
            os.fsync(self._destination.descriptor)
            self._rename(0)
        except (OSError, UsageError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            return Lost(f"cannot write --picture '{self._path}': {why}")
        self._written = True
        self._say(f"picture '{self._path}' written: {_size(screen)}")
        return None

    def close(self) -> None:
        """Remove what is not finished, and close the file. Idempotent."""
        self._end()
        if not self._written:
            self._destination.abandon()
        self._destination.close()


def _size(screen: Screen | None) -> str:
    if screen is None or screen.picture is None:
        return "text"
    return f"{screen.picture.width} x {screen.picture.height} pixels"
