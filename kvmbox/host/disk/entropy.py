"""The host's entropy as a store: random bytes at any offset, none of which are kept."""

from __future__ import annotations

import errno
import os
from typing import Final

ENTROPY: Final = "entropy"
"""Name of the store."""
SIZE: Final = 1 << 62


class EntropyStore:
    """See `remote.published.medium.MediumStore`. Its bytes never have to be waited for."""

    writes_now = True

    def read(self, _offset: int, size: int) -> bytes:
        """`size` random bytes."""
        return os.urandom(size)

    read_now = read

    def write(self, _offset: int, _data: bytes) -> None:
        """Always refused."""
        raise OSError(errno.EROFS, "entropy is read-only")

    def flush(self) -> None:
        """There is nothing to store."""
