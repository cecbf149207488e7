"""A disk that uses windows, as small as one can be: what tests of windows have behind a channel.

Its registers: 0 is the data, of 2 or 4 bytes. 1 takes a count of sectors, 2 the first sector, 3 a command:
`READ`, `WRITE`, `FLUSH` or `NONE`. A read of 3 gives `READY` if the guest may move data, `IDLE` if there is
nothing to do, a status << 4 if something has failed, else `BUSY`. Each sector is a window of its own, and the
next one is opened when one has been moved. What the model itself answers at the data register is `OWN`. With
`LATER` a command begins at the next access to the data register that reaches the model, as a packet does.
"""

from __future__ import annotations

from kvmbox.contract.bulk_data import QUIET_END, QUIET_START, RISES, Flush, Window
from kvmbox.contract.model import DONE, MOVED, Effect, IrqLine, SnapshotError

SECTOR = 512
READ, WRITE, FLUSH, NONE, LATER = 1, 2, 3, 4, 8
BUSY, READY, IDLE = 1, 2, 3
OWN = 0x5A5A5A5A
FLUSH_TAG = 0x200
"""No window has it: theirs are the sector plus one."""


class WindowDisk:
    """See the module."""

    def __init__(self) -> None:
        self.count = self.sector = self.left = self.command = 0
        self.state = IDLE
        self.later = 0
        self.written: list[int] = []
        """What was written to the data register, and reached the model."""
        self._effects: list[Effect] = []

    def read(self, now: int, offset: int, size: int) -> int:
        del now
        if offset == 0:
            self._begin_later()
        return self.state if offset == 3 else OWN & ((1 << 8 * size) - 1)

    def write(self, now: int, offset: int, size: int, value: int) -> None:
        del now, size
        if offset == 0:
            self.written.append(value)
            self._begin_later()
        elif offset == 1:
            self.count = value & 0xFF
        elif offset == 2:
            self.sector = value & 0xFF
        elif value == FLUSH:
            self.command, self.state, self.left = FLUSH, BUSY, 0
            self._effects += [Window(1, 0, 0, 0, 1), Flush(FLUSH_TAG, 0)]
        elif value == NONE:
            self.command, self.state, self.left = NONE, IDLE, 0
            self._effects.append(Window(1, 0, 0, 0, 1))
        elif value in (READ | LATER, WRITE | LATER):
            self.later = value - LATER
        elif value in (READ, WRITE):
            self._begin(value)

    def _begin_later(self) -> None:
        later, self.later = self.later, 0
        if later:
            self._begin(later)

    def _begin(self, command: int) -> None:
        self.command, self.left = command, self.count
        self._effects.append(Window(1, 0, 0, 0, 1))
        self._next()

    def _next(self) -> None:
        self.state = IDLE if not self.left else READY if self.command == WRITE else BUSY
        if self.left:
            to_guest = int(self.command == READ)
            if to_guest and self.sector & 1:  # the others say nothing of that
                to_guest |= QUIET_START | RISES | (QUIET_END if self.left == 1 else 0)
            self._effects.append(Window(self.sector + 1, 0, self.sector * SECTOR, SECTOR, to_guest))

    def complete(self, now: int, tag: int, status: int) -> None:
        del now
        flushes = self.command == FLUSH and self.state == BUSY
        if tag != (FLUSH_TAG if flushes else self.sector + 1 if self.left else None):
            return
        if status not in (DONE, MOVED):
            self.state, self.left = status << 4, 0
        elif self.command == FLUSH:
            self.state = IDLE
        elif status == DONE and self.command == READ:
            self.state = READY
            self._effects.append(IrqLine(0, 1))
        elif status == MOVED and self.command == WRITE:
            self.state = BUSY
        else:
            self.left, self.sector = self.left - 1, self.sector + 1 & 0xFF
            self._next()

    def receive(self, now: int, data: bytes) -> int:
        raise AssertionError

    def advance(self, now: int) -> None:
        pass

    def reset(self, now: int) -> None:
        del now
        self.command, self.state, self.left = NONE, IDLE, 0

    def next_deadline(self) -> int | None:
        return None

    def take_effects(self) -> list[Effect]:
        effects, self._effects = self._effects, []
        return effects

    def snapshot(self) -> bytes:
        return bytes((self.count, self.sector, self.left, self.command, self.state))

    def restore(self, state: bytes) -> None:
        if len(state) != 5:
            raise SnapshotError
        self.count, self.sector, self.left, self.command, self.state = state
