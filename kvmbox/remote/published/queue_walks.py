"""Which virtqueues of a device are to be walked, and when. Pure.

A device says once that it wants the chains of a queue, and how many at a time (`Walk`). From then on a walk
is due when the guest notifies, when the walk before has found as many as it looked for, and when a chain goes
back that there was no room for.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from kvmbox.wire.chains import MAX_CHAINS

_WALK: Final = Struct("<BBB")  # chains at a time; 1: due, 2: waits for room; pin


class QueueWalks:
    """The walks of `count` queues."""

    def __init__(self, count: int) -> None:
        self._wanted = [0] * count
        self.pins = [0] * count
        """By queue: the output pin that interrupts the guest."""
        self._due: dict[int, None] = {}
        self._waits: set[int] = set()

    def want(self, index: int, count: int, pin: int = 0) -> None:
        """The device wants the chains of a queue, `count` at a time, or none any more. `pin` interrupts."""
        self._wanted[index] = count
        self.pins[index] = pin
        if not count:
            self.stop(index)

    def stop(self, index: int) -> None:
        """The device wants no chains of this queue."""
        self._wanted[index] = 0
        self._due.pop(index, None)
        self._waits.discard(index)

    def wanted(self, index: int) -> int:
        """How many chains of a queue the device wants at a time; 0 for none, or no such queue."""
        return self._wanted[index] if index < len(self._wanted) else 0

    def notified(self, index: int) -> bool:
        """The guest notifies: whether the device wants chains of that queue."""
        if not self.wanted(index):
            return False
        self._is_due(index)
        return True

    def _is_due(self, index: int) -> None:
        self._due[index] = None
        self._waits.discard(index)

    def next(self, in_hand: list[int], most: int) -> tuple[int, int] | None:
        """The next walk: of which queue, and how many chains at most. None if none is due.

        `in_hand` says how many chains of each queue the device has, of `most` at most.
        """
        while self._due:
            index, _ = self._due.popitem()
            room = min(self._wanted[index], most - in_hand[index])
            if room > 0:
                return index, room
            self._waits.add(index)
        return None

    def found(self, index: int, count: int, looked_for: int) -> None:
        """A walk has found so many chains. If it looked for more, the guest will notify of the next one."""
        if count == looked_for and self._wanted[index]:
            self._is_due(index)

    def given_back(self, index: int) -> None:
        """The device has a chain less of that queue."""
        if index in self._waits:
            self._is_due(index)

    @property
    def is_any_due(self) -> bool:
        """Whether there is something to walk, maybe."""
        return bool(self._due)

    def state(self) -> bytes:
        """What is wanted, for `restore`."""
        return b"".join(
            [
                _WALK.pack(count, (index in self._due) | (index in self._waits) << 1, self.pins[index])
                for index, count in enumerate(self._wanted)
            ]
        )

    @property
    def state_size(self) -> int:
        """How many bytes `state` gives."""
        return _WALK.size * len(self._wanted)

    def restore(self, state: bytes) -> None:
        """Be as `state` says, which has `state_size` bytes. ValueError for what cannot be."""
        for index, (count, when, pin) in enumerate(_WALK.iter_unpack(state)):
            if count > MAX_CHAINS or when > 2 or (when and not count):
                raise ValueError(f"{count} chains of queue {index} at a time")
            self.want(index, count, pin)
            self._due.pop(index, None)
            if when == 1:
                self._due[index] = None
            elif when:
                self._waits.add(index)
