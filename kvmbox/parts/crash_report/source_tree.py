"""The directories of --source: lines of source files, for reports.

Names of source files come from debug information, which may be that of a hostile image, and the directory may
be what somebody has submitted. So a file is opened name by name (`beneath`): nothing outside the directory
can be reached.

A compiler may have run in another place. So a path is tried with fewer and fewer of its leading directories:
/build/kernel/mm/fault.c is kernel/mm/fault.c in the directory, or mm/fault.c, or fault.c.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from typing import Final

from kvmbox.base.errors import StartError
from kvmbox.explain.demangled_names import printable
from kvmbox.host.files.path_below import DIRECTORY, open_beneath

MOST_PARTS: Final = 64
"""How many names a path may have."""

MOST_BYTES: Final = 16 << 20
"""The bytes of all source files that are read, together."""

MOST_SHOWN: Final = 160
"""The characters of a line."""

_FILE: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY


class SourceTree:
    """Directories with source files; the first one that has a file counts."""

    def __init__(self, directories: Sequence[str]) -> None:
        """Open them. Raises StartError."""
        self._roots: list[tuple[str, int]] = []
        self._known: dict[str, list[bytes]] = {}
        self._bytes_left = MOST_BYTES
        for directory in directories:
            try:
                root = os.open(directory, DIRECTORY)
            except (OSError, ValueError) as error:
                self.close()
                why = error.strerror if isinstance(error, OSError) else "it is no path"
                raise StartError(
                    f"cannot open --source '{directory}': {why}", hint="name a directory with source files"
                ) from error
            self._roots.append((os.path.realpath(directory), root))

    @property
    def directories(self) -> list[str]:
        """Their paths, without symbolic links."""
        return [path for path, _ in self._roots]

    def line(self, path: str, number: int) -> str | None:
        """Line `number`, from 1, of the file that the compiler called `path`, fit for a terminal."""
        if path not in self._known:
            self._known[path] = self._lines(path)
        lines = self._known[path]
        if not 1 <= number <= len(lines):
            return None
        text = printable(lines[number - 1].decode("utf-8", "replace").strip().expandtabs())
        return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}…"

    def close(self) -> None:
        """Close the directories. Idempotent."""
        while self._roots:
            os.close(self._roots.pop()[1])

    def _lines(self, path: str) -> list[bytes]:
        for directory, root in self._roots:
            for names in _candidates(path, directory):
                descriptor = _open(root, names)
                if descriptor is None:
                    continue
                try:
                    return self._read(descriptor)
                finally:
                    os.close(descriptor)
        return []

    def _read(self, descriptor: int) -> list[bytes]:
        try:
            about = os.fstat(descriptor)
            if not stat.S_ISREG(about.st_mode) or about.st_size > self._bytes_left:
                return []
            found = bytearray()
            # The file may grow meanwhile; what it has had at first is enough.
            while len(found) < about.st_size and (
                piece := os.read(descriptor, min(about.st_size - len(found), 1 << 20))
            ):
                found += piece
        except OSError:
            return []
        self._bytes_left -= len(found)
        return bytes(found).split(b"\n")


def _candidates(path: str, directory: str) -> Iterator[list[str]]:
    """The names, one for each step, by which a path is looked for in `directory`."""
    if path.startswith(f"{directory}/"):
        yield _names(path[len(directory) :])
    names = _names(path)
    if len(names) <= MOST_PARTS:
        for first in range(len(names)):
            yield names[first:]


def _names(path: str) -> list[str]:
    """The parts of a path; .. takes the part before away, as far as there is one."""
    found: list[str] = []
    for name in path.split("/"):
        if name == "..":
            del found[-1:]
        elif name not in ("", "."):
            found.append(name)
    return found


def _open(root: int, names: Sequence[str]) -> int | None:
    """A descriptor of a file below `root`, or None."""
    if not names or len(names) > MOST_PARTS:
        return None
    try:
        return open_beneath(root, names, _FILE)
    except (OSError, ValueError):
        return None
