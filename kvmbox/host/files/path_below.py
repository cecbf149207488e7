"""Files and directories below an open directory, reached name by name: no symbolic link is followed.

openat2 with RESOLVE_BENEATH would do the same, but a confined VMM may not call it: its flags are in memory,
and no filter sees there whether something is opened for writing.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final

DIRECTORY: Final = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
"""Flags of a directory that other things are opened in."""


def open_beneath(root: int, names: Sequence[str], flags: int) -> int:
    """Open the last of `names` with `flags`, in the directories of the names before. None is "..".

    Raises OSError, for a symbolic link too, and ValueError if a name is none.
    """
    at = root
    try:
        for name in names[:-1]:
            below = os.open(name, DIRECTORY | os.O_NOFOLLOW, dir_fd=at)
            if at != root:
                os.close(at)
            at = below
        return os.open(names[-1], flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
    finally:
        if at != root:
            os.close(at)
