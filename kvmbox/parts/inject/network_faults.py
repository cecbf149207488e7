"""Faults of a network: frames that are lost, damaged, or late, in both directions.

They are between an interface's port and its wire: so the guest and its peer see them, and no capture of the
interface does. Each frame is one event. A late frame waits here, `MOST_LATE` of a direction at most; of more,
the frame is lost.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from kvmbox.parts.inject.device_faults import DeviceFaults
from kvmbox.parts.inject.fault_table import CORRUPT, FRAME_DELAY, LOSS

MOST_LATE: Final = 1024


class FaultyWire:
    """`wire` with the `faults` of a network: see `parts.net.wires.Wire`."""

    def __init__(self, wire: Any, faults: DeviceFaults, now: Callable[[], int] = time.monotonic_ns) -> None:
        self._wire = wire
        self._faults = faults
        self._now = now
        self._leaving: deque[tuple[int, bytes]] = deque()
        self._coming: deque[tuple[int, bytes]] = deque()
        self._is_full = False  # the wire has not taken a late frame whose time has come

    def __getattr__(self, name: str) -> Any:
        return getattr(self._wire, name)

    @property
    def leaves_at(self) -> int | None:
        """See Wire."""
        return self._leaving[0][0] if self._leaving and not self._is_full else None

    @property
    def comes_at(self) -> int | None:
        """See Wire."""
        return self._coming[0][0] if self._coming else None

    @property
    def unsent(self) -> bytes:
        """See Wire: what the wire has no room for is sent when it has."""
        return self._leaving[0][1] if self._is_full and self._leaving else self._wire.unsent

    def send(self, frame: bytes) -> bool:
        """See Wire."""
        if self._faults.wanted(FRAME_DELAY) is None:
            found = self._frame(frame)
            return found is None or bool(self._wire.send(found))
        self._hold(self._leaving, frame)
        return True

    def flush(self) -> bool:
        """See Wire. What has been late for long enough is sent. Raises CutError and OSError."""
        self._is_full = False
        while not self._is_full and self._leaving and self._leaving[0][0] <= self._now():
            late = self._leaving.popleft()
            self._is_full = not self._wire.send(late[1])
            if self._is_full:
                self._leaving.appendleft(late)
        return bool(self._wire.flush())

    def receive(self) -> list[bytes]:
        """See Wire."""
        frames: list[bytes] = self._wire.receive()
        if self._faults.wanted(FRAME_DELAY) is None:
            return [found for frame in frames if (found := self._frame(frame)) is not None]
        for frame in frames:
            self._hold(self._coming, frame)
        ready = []
        while self._coming and self._coming[0][0] <= self._now():
            ready.append(self._coming.popleft()[1])
        return ready

    def _frame(self, frame: bytes) -> bytes | None:
        """What becomes of a frame, or None."""
        self._faults.access()
        if self._faults.happens(LOSS):
            return None
        if self._faults.happens(CORRUPT) and frame:
            place = len(frame) // 2
            return frame[:place] + bytes((frame[place] ^ 1,)) + frame[place + 1 :]
        return frame

    def _hold(self, late: deque[tuple[int, bytes]], frame: bytes) -> None:
        found = self._frame(frame)
        if found is not None and len(late) < MOST_LATE:
            wanted = self._faults.wanted(FRAME_DELAY)
            is_hit = self._faults.happens(FRAME_DELAY)
            delay = wanted.delay or 0 if wanted is not None and is_hit else 0
            late.append((self._now() + delay, found))
