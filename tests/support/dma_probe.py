"""A device for tests that uses guest memory in every way that a device may: the model, as a user writes one.

kvmbox does not have it: its text goes to the device process with HELLO. Registers have 4 bytes:

    0x00  ADDRESS   where in guest memory
    0x04  LENGTH    how many bytes
    0x08  OFFSET    where in the resource
    0x0c  COMMAND   what to do (below); reads as the number of commands begun
    0x10  STATUS    0 idle, 1 busy, 2 + status (`kvmbox.contract.model`) when the last command is done
    0x14  SUM       sum of all bytes that came, modulo 2^32
    0x18  LINK      how many links `CHASE` has followed

A command that is done raises the interrupt; a write to STATUS lowers it, and STATUS is idle again. What is
sent to guest memory by `WRITE` is the parameter `table`, from OFFSET on. `limit` is how many bytes one effect
may have, and so one READ or WRITE.
"""

from __future__ import annotations

from struct import Struct

from kvmbox.contract.model import (
    BAD_ADDRESS,
    DONE,
    Effect,
    IrqLine,
    MemoryRead,
    MemoryWrite,
    SnapshotError,
    Transfer,
)

ADDRESS, LENGTH, OFFSET, COMMAND, STATUS, SUM, LINK = range(0, 0x1C, 4)
IDLE, BUSY, RESULT = 0, 1, 2

READ = 1  # LENGTH bytes at ADDRESS are summed up
READ_TWICE = 2  # as two ranges that overlap: all of them, and the first half again
WRITE = 3  # LENGTH bytes of the table go to ADDRESS
LOAD = 4  # LENGTH bytes of the resource go to ADDRESS, the first half and the second half as two ranges
STORE = 5  # LENGTH bytes from ADDRESS go to the resource
CHASE = 6  # the 4 bytes at ADDRESS are the address of the next 4, until those are 0

MAX_LINKS = 12
"""What a chain of links may have. A device that follows any chain would let a guest keep it busy for ever."""

_SNAPSHOT = Struct("<4s9I")
_MAGIC = b"DMA\x01"


class DmaProbe:
    """See the module."""

    def __init__(self, *, table: bytes, limit: int) -> None:
        self._table = table
        self._limit = limit
        self._effects: list[Effect] = []
        self._power_on()

    def _power_on(self) -> None:
        self._registers = [0, 0, 0]  # ADDRESS, LENGTH, OFFSET
        self._status = IDLE
        self._tag = 0  # of the command under way; the number of commands
        self._sum = 0
        self._links = 0
        self._line = 0

    def read(self, now: int, offset: int, size: int) -> int:
        """See DeviceModel."""
        if size != 4 or offset % 4 or not 0 <= offset <= LINK:
            return (1 << 8 * size) - 1
        if offset < COMMAND:
            return self._registers[offset // 4]
        return {COMMAND: self._tag, STATUS: self._status, SUM: self._sum, LINK: self._links}[offset]

    def write(self, now: int, offset: int, size: int, value: int) -> None:
        """See DeviceModel."""
        if size != 4 or offset % 4:
            return
        if 0 <= offset < COMMAND:
            self._registers[offset // 4] = value
        elif offset == COMMAND and self._status != BUSY:
            self._begin(value)
        elif offset == STATUS and self._status != BUSY:
            self._status = IDLE
            self._drive(0)

    def _begin(self, command: int) -> None:
        address, length, offset = self._registers
        fits = min(length, self._limit)
        half = length // 2
        halves = [(address, half), (address + half, length - half)]
        self._tag += 1
        self._status = BUSY
        self._links = 0
        if command == READ:
            self._effects.append(MemoryRead(self._tag, [(address, fits)]))
        elif command == READ_TWICE:
            self._effects.append(MemoryRead(self._tag, [(address, fits // 2), (address, fits // 4)]))
        elif command == WRITE:
            self._effects.append(MemoryWrite(address, self._table[offset : offset + fits], self._tag))
        elif command == LOAD:
            self._effects.append(Transfer(self._tag, 0, offset, halves, 1))
        elif command == STORE:
            self._effects.append(Transfer(self._tag, 0, offset, halves, 0))
        elif command == CHASE:
            self._effects.append(MemoryRead(self._tag, [(address, 4)]))
            self._links = 1
        else:
            self._finish(DONE)

    def memory(self, now: int, tag: int, data: bytes | None) -> None:
        """See MemoryModel."""
        if tag != self._tag or self._status != BUSY:
            return  # asked for before a reset
        if data is None:
            self._finish(BAD_ADDRESS)
            return
        self._sum = self._sum + sum(data) & 0xFFFF_FFFF
        following = int.from_bytes(data, "little") if self._links else 0
        if following and self._links < MAX_LINKS:
            self._links += 1
            self._effects.append(MemoryRead(tag, [(following, 4)]))
        else:
            self._finish(DONE)

    def complete(self, now: int, tag: int, status: int) -> None:
        """See MemoryModel."""
        if tag == self._tag and self._status == BUSY:
            self._finish(status)

    def _finish(self, status: int) -> None:
        self._status = RESULT + status
        self._drive(1)

    def _drive(self, level: int) -> None:
        if level != self._line:
            self._line = level
            self._effects.append(IrqLine(0, level))

    def advance(self, now: int) -> None:
        """See DeviceModel. Time changes nothing."""

    def next_deadline(self) -> int | None:
        """See DeviceModel. Never."""
        return None

    def receive(self, now: int, data: bytes) -> int:
        """See DeviceModel. There is no host input."""
        return 0

    def reset(self, now: int) -> None:
        """See DeviceModel. The number of commands goes on, so that an old answer is no new one's."""
        tag = self._tag
        self._drive(0)
        self._power_on()
        self._tag = tag

    def take_effects(self) -> list[Effect]:
        """See DeviceModel."""
        effects, self._effects = self._effects, []
        return effects

    def snapshot(self) -> bytes:
        """See DeviceModel."""
        return _SNAPSHOT.pack(
            _MAGIC, *self._registers, self._status, self._tag, self._sum, self._links, self._line, self._limit
        )

    def restore(self, state: bytes) -> None:
        """See DeviceModel."""
        if len(state) != _SNAPSHOT.size or not state.startswith(_MAGIC):
            raise SnapshotError("no snapshot of a DMA probe")
        _, *registers, status, tag, total, links, line, limit = _SNAPSHOT.unpack(state)
        if limit != self._limit or line > 1:
            raise SnapshotError("a snapshot of another DMA probe")
        self._registers = registers
        self._status, self._tag, self._sum, self._links, self._line = status, tag, total, links, line
        self._effects = []
