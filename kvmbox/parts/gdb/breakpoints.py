"""Breakpoints and watchpoints of a client: which there are, and what of them is planted in guest memory.

A software breakpoint is the byte 0xCC (INT3), written over an instruction at a guest-physical address. A
planted byte is in memory only while CPUs run: `lift` takes all of them out whenever the machine stands still,
so whoever reads memory then (the client, a snapshot, a core file) reads the guest's own bytes. If the guest
has written to a planted byte, the guest's byte stays.

Hardware breakpoints and watchpoints use the debug registers DR0 to DR3 (SDM volume 3, 18.2: Debug Registers).
A software breakpoint that cannot be planted has a debug register as well.
"""

from __future__ import annotations

from typing import Final, Protocol

from kvmbox.base.value_classes import Value
from kvmbox.parts.gdb.refused import RefusedError

INT3: Final = b"\xcc"

SOFTWARE: Final = 0  # the digits of Z packets
HARDWARE: Final = 1
WRITE_WATCH: Final = 2
READ_WATCH: Final = 3
ACCESS_WATCH: Final = 4
NAMES: Final = {
    SOFTWARE: "swbreak",
    HARDWARE: "hwbreak",
    WRITE_WATCH: "watch",
    READ_WATCH: "rwatch",
    ACCESS_WATCH: "awatch",
}
"""What a stop reply calls a hit."""

SLOTS: Final = 4
MOST_PLANTED: Final = 1000
"""How many software breakpoints a client may have."""

_CONDITIONS: Final = {HARDWARE: 0b00, SOFTWARE: 0b00, WRITE_WATCH: 0b01, ACCESS_WATCH: 0b11}
_LENGTHS: Final = {1: 0b00, 2: 0b01, 4: 0b11, 8: 0b10}
_DR7_FIXED: Final = 1 << 10
_DR7_GLOBAL: Final = 0b10
_DR7_CONDITION_SHIFT: Final = 16
_DR7_LENGTH_SHIFT: Final = 18


class Memory(Protocol):
    """Guest-physical memory: see `memory.GuestMemory`."""

    def available(self, address: int, size: int) -> bytes:
        """The bytes that are there."""

    def contains(self, address: int, size: int) -> bool:
        """Whether it is RAM."""

    def write(self, address: int, data: bytes) -> None:
        """Store bytes in RAM."""


class Point(Value):
    """What a client has set: one of the kinds above, at a linear address, `size` bytes of data."""

    kind: int
    address: int
    size: int


class Breakpoints:
    """All of one client. Belongs to the main loop's thread, but for `is_planted`."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._planted: dict[Point, int] = {}  # and the guest-physical address
        self._slots: list[Point | None] = [None] * SLOTS
        # What was at the planted addresses; empty while the machine stands.
        self._saved: dict[int, bytes] = {}
        self._addresses: frozenset[int] = frozenset()

    @property
    def any_planted(self) -> bool:
        """Whether there are software breakpoints in memory, or will be."""
        return bool(self._planted)

    @property
    def any_slots(self) -> bool:
        """Whether a debug register is in use."""
        return any(self._slots)

    def add(self, point: Point, physical: int | None) -> None:
        """Set a breakpoint or watchpoint; again is harmless. `physical` is where a software breakpoint may be
        planted, None where it may not. RefusedError if it cannot be set.
        """
        if point in self._planted or point in self._slots:
            return
        if point.kind == SOFTWARE and physical is not None and self._memory.contains(physical, 1):
            if len(self._planted) >= MOST_PLANTED:
                raise RefusedError(f"there are {MOST_PLANTED} software breakpoints")
            self._planted[point] = physical
            self._note()
            return
        if point.kind == READ_WATCH:
            raise RefusedError("x86 has no watchpoints for reads only: use awatch")
        if point.kind >= WRITE_WATCH and (point.size not in _LENGTHS or point.address % point.size):
            raise RefusedError("a watchpoint has 1, 2, 4 or 8 bytes, and is aligned to its size")
        for slot, used in enumerate(self._slots):
            if used is None:
                self._slots[slot] = point
                return
        if point.kind == SOFTWARE:
            raise RefusedError(
                f"nothing can be planted at {point.address:#x} now (real mode, ROM, or not mapped), "
                f"and the {SLOTS} debug registers are in use"
            )
        raise RefusedError(f"the {SLOTS} debug registers are in use")

    def remove(self, point: Point) -> None:
        """Forget one; harmless if there is none."""
        self._planted.pop(point, None)
        self._slots = [None if used == point else used for used in self._slots]
        self._note()

    def clear(self) -> None:
        """Forget all of them. The machine stands still: nothing is planted."""
        self._planted.clear()
        self._slots = [None] * SLOTS
        self._note()

    def _note(self) -> None:
        self._addresses = frozenset(self._planted.values())

    # --- Guest memory -------------------------------------------------------------------------------------

    def plant(self, *, but: int | None = None) -> None:
        """The machine goes on: write the software breakpoints, but for one at guest-physical `but`."""
        for physical in self._addresses - {but}:
            found = self._memory.available(physical, 1)
            if found and physical not in self._saved and self._memory.contains(physical, 1):
                self._saved[physical] = found
                self._memory.write(physical, INT3)

    def lift(self) -> None:
        """The machine stands still: take the software breakpoints out of memory."""
        while self._saved:
            physical, own = self._saved.popitem()
            if self._memory.available(physical, 1) == INT3:
                self._memory.write(physical, own)

    def is_planted(self, physical: int | None) -> bool:
        """Whether a software breakpoint is there. Thread-safe."""
        return physical in self._addresses

    # --- Debug registers ----------------------------------------------------------------------------------

    def debug_registers(self, *, but: int | None = None) -> tuple[tuple[int, ...], int]:
        """DR0 to DR3 and DR7, without breakpoints (watchpoints stay) at linear address `but`."""
        dr7 = _DR7_FIXED
        for slot, point in enumerate(self._slots):
            if point is None or (point.kind <= HARDWARE and point.address == but):
                continue
            length = 0b00 if point.kind <= HARDWARE else _LENGTHS[point.size]
            dr7 |= _DR7_GLOBAL << 2 * slot
            dr7 |= _CONDITIONS[point.kind] << _DR7_CONDITION_SHIFT + 4 * slot
            dr7 |= length << _DR7_LENGTH_SHIFT + 4 * slot
        return tuple(0 if point is None else point.address for point in self._slots), dr7

    def hit_by(self, dr6: int) -> Point | None:
        """The first one that DR6 names (SDM volume 3, 18.2.3: B0 to B3)."""
        for slot, point in enumerate(self._slots):
            if point is not None and dr6 >> slot & 1:
                return point
        return None
