"""The lock of a channel, whichever code makes it."""

from __future__ import annotations

from typing import Protocol


class Mutex(Protocol):
    """What a channel needs of `threading.Lock`."""

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """See threading.Lock."""
        ...

    def release(self) -> None:
        """See threading.Lock."""
        ...

    def __enter__(self) -> bool: ...

    def __exit__(self, *exception: object) -> None: ...
