"""KVM's ring of coalesced writes, with any indices and entries.

What must hold: the devices get the writes in the order of the ring, each once, but for those that another one
to the same latch follows at once; a read that is owed, behind all of them; nothing behind one at which a
device fails; and of a ring that cannot be, nothing that is not in it.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from types import SimpleNamespace
from typing import Any, Final, cast

from kvmbox.base.errors import DeviceProcessError, UnknownExitError
from kvmbox.base.layout import PAGE_SIZE
from kvmbox.kvm import uapi
from kvmbox.run.vcpu.coalesced_ring import BYTE_TO_PORT, ENTRIES, RING_WORD
from tests.fuzz.frames import Liar
from tests.fuzz.plants import Parts
from tests.fuzz.targets import Fault
from tests.support.dice import Dice
from tests.support.fake_room import FakeRoom

DEVICES: Final = ((0x80, 1, 1), (0xE9, 1, 1), (0x70, 2, 1), (0x3C4, 4, 2))
"""First port, how many, and the size that the device takes as one: 1 gives pairs, 2 gives rows."""
PORTS: Final = tuple(first + at for first, count, _ in DEVICES for at in range(count))
LATCH: Final = 0x70
ON_DEMAND: Final = 0xE9
"""The device whose process has not started."""
MOST: Final = 12
"""How many writes are in a ring, mostly."""

Write = tuple[int, int]
"""Port and byte."""


class RingTarget:
    """The ring of one machine, in one state after the other."""

    def __init__(self, parts: Parts) -> None:
        self.frames = self.accepted = 0
        self._parts = parts
        memory = bytearray((uapi.KVM_COALESCED_MMIO_PAGE_OFFSET + 1) * PAGE_SIZE)
        self._data = memoryview(memory)
        self._words = self._data.cast("Q")
        self._given: list[Write] = []
        self._reads: list[tuple[int, int]] = []  # first port and register
        self._left = -1  # how many gifts are taken before one fails; below 0: all
        self._zones: dict[int, Any] = {}
        self._proxies: list[Any] = []
        self._begin()

    def _begin(self, *, carries: bool = True, has_window: bool = False) -> None:
        zones = self._zones = {}
        self._proxies = []
        for first, count, size in DEVICES:
            channel = SimpleNamespace(is_started=first != ON_DEMAND)
            proxy: Any = SimpleNamespace(channel=channel, natural_sizes=frozenset((size,)))
            proxy.count = lambda *_counted: None
            proxy.with_index = lambda word, register, byte: (word + 1, register << 8 | byte)
            proxy.write_run = proxy.flush_run = self._gives(first, lambda _at: 0)
            proxy.write_pairs = proxy.flush_pairs = self._gives(first, lambda at: at % 2)
            proxy.write_row = proxy.flush_row = self._gives(first, lambda at: at)
            proxy.read_again = proxy.flush_read = self._reads_of(first)
            self._proxies.append(proxy)
            zones |= {first + at: (proxy, at) for at in range(count)}
        self._lock = cast(Any, threading.Lock())
        self._ring = self._parts.ring(
            *(self._words, self._data.cast("I"), self._data, zones),
            room=FakeRoom(),
            latches=(LATCH,),
            carries=carries,
            lock=self._lock,
        )
        self._alone: set[int] = set()
        self._has_window = has_window
        if has_window:
            self._ring.open_window(self)

    def _gives(self, first: int, place: Any) -> Any:
        def give(register: int, data: bytes) -> None:
            if self._left == 0:
                raise DeviceProcessError("fuzzed", "is gone")
            self._left -= 1
            self._given += [(first + register + place(at), byte) for at, byte in enumerate(data)]

        return give

    def _reads_of(self, first: int) -> Any:
        def read(register: int) -> None:
            if self._left == 0:
                raise DeviceProcessError("fuzzed", "is gone")
            self._reads.append((first, register))

        return read

    def give(self, first: int, _last: int, _ways: object) -> int:
        """See LateList: the oldest one, as it is."""
        if self._left == 0:
            raise DeviceProcessError("fuzzed", "is gone")
        self._left -= 1
        self._given.append(self._entry(first))
        self._set(first=(first + 1) % ENTRIES)
        return 1

    def _entry(self, number: int) -> Write:
        at = RING_WORD + 1 + 3 * number
        return self._words[at], self._words[at + 2] & 0xFF

    def _set(self, first: int | None = None, last: int | None = None) -> None:
        ring = self._words[RING_WORD]
        kept = (ring & 0xFFFF_FFFF) if first is None else first
        self._words[RING_WORD] = kept | ((ring >> 32) if last is None else last) << 32

    # --- A state --------------------------------------------------------------------------------------------

    def step(self, liar: Liar) -> None:
        """One state of the ring. Raises Fault."""
        dice: Any = liar.dice
        way = dice.byte()
        if way > 240:
            self._begin(carries=bool(way & 1), has_window=way & 6 == 6)
        first = dice.randrange(ENTRIES)
        count = dice.byte() % MOST if way < 200 else dice.randrange(ENTRIES)
        last = (first + count) % ENTRIES
        is_good = self._fill(dice, first, count, is_harmful=way % 8 == 7)
        if way % 16 == 3:
            first, last = dice.some(((ENTRIES, last), (first, ENTRIES), (first, 0xFFFF_FFFF)))
            is_good = False
        self._set(first, last)
        self._given.clear()
        self._reads.clear()
        self._left = dice.byte() % 4 if way % 16 == 5 else -1
        self.frames += 1
        if is_good and way % 4 == 1:
            self._look(dice, first, count)
        if is_good:
            self._take(dice, first, count)
        else:
            self._refuse(dice, first, last)

    def _fill(self, dice: Dice, first: int, count: int, *, is_harmful: bool) -> bool:
        """Whether the ring that is made is one that KVM would make."""
        is_good, port = True, dice.some(PORTS)
        for number in range(first, first + count):
            kind, shape = dice.byte(), BYTE_TO_PORT
            port = dice.some(PORTS) if kind < 80 else port ^ 1 if kind < 160 and port ^ 1 in PORTS else port
            place = port
            if is_harmful and kind % 16 == 9:
                place, shape = dice.some(
                    ((0x81, shape), (0x1_0080, shape), (1 << 63, shape), (port, 0), (port, 2), (port, 1))
                )
                is_good = False
            at = RING_WORD + 1 + 3 * (number % ENTRIES)
            self._words[at], self._words[at + 1], self._words[at + 2] = place, shape, dice.byte() | 0xAB00
        return is_good

    def _expected(self, first: int, count: int) -> list[Write]:
        """What the devices are to get, in their order."""
        numbers = [(first + at) % ENTRIES for at in range(count)]
        writes = [self._entry(number) for number in numbers]
        if self._has_window:
            return writes
        return [
            write
            for at, write in enumerate(writes)
            if write[0] != LATCH
            or at + 1 == count
            or writes[at + 1][0] != LATCH
            or numbers[at + 1] == 0  # a run ends where the ring does
        ]

    def _look(self, dice: Dice, first: int, count: int) -> None:
        """What the main thread looks for; what a read looks for, and may take along."""
        writes = self._expected(first, count)
        if self._ring.waits_for_start is not any(port == ON_DEMAND for port, _ in writes):
            raise Fault(f"{first}, {count} writes: {writes} wait for a process, or not")
        device = dice.some(self._proxies)
        port, byte = self._entry((first + count - 1) % ENTRIES)
        owner, register = self._zones[port] if count else (None, 0)
        expected = (register, byte) if owner is device else None
        newest = self._ring.newest(device)
        if count and newest is not None and newest != expected:
            raise Fault(f"{first}, {count} writes: the newest is {newest}, not {expected}")
        if newest is not None and dice.byte() & 1 and self._ring.owe(device, newest[0]):
            if self._ring.owe(device, newest[0]):
                raise Fault(f"{first}, {count} writes: a second read behind them")
            return
        allowed = dice.byte() % 3
        self._ring.let_post(port, allowed)
        (self._alone.add if allowed == 1 else self._alone.discard)(port)
        if self._left < 0:
            taken = self._ring.carry_along(device, 0x11)
            if taken != (0x11, 0):
                if (
                    count != 1
                    or expected is None
                    or port in self._alone
                    or taken != (0x12, register << 8 | byte)
                ):
                    raise Fault(f"{first}, {count} writes: {taken} is carried along")
                self._given.append((port, byte))

    def _take(self, dice: Dice, first: int, count: int) -> None:
        expected = self._expected(first, count)
        ring = self._ring
        owing, reads = ring.owing, []
        if (
            owing is not None
            and owing[2] == (first + count) % ENTRIES
            and ring.pending
            and not self._has_window
        ):
            reads = [(DEVICES[self._proxies.index(owing[0])][0], owing[1])]
        try:
            if dice.byte() & 1:
                ring.drain()
            else:
                with self._lock:
                    if ring.flush():
                        raise Fault("another thread has the lock")
                ring.flush()
        except DeviceProcessError as error:
            if self._given != expected[: len(self._given)] or not ring.pending or self._left:
                raise Fault(f"{first}, {count} writes: {self._given}, and then {error}") from error
            self._left, given = -1, len(self._given)
            self._fails_again(error, given)
            self._begin()
            return
        except Exception as error:
            raise Fault(f"{first}, {count} writes: raised {error!r}") from error
        self.accepted += 1
        if self._given != expected:
            raise Fault(f"{first}, {count} writes: gave {self._given}, not {expected}")
        if self._reads != reads:
            raise Fault(f"{first}, {count} writes: {self._reads} behind them, not {reads}")
        if ring.pending:
            raise Fault(f"{first}, {count} writes: not emptied")

    def _fails_again(self, error: DeviceProcessError, given: int) -> None:
        for act in (self._ring.drain, self._ring.flush):
            try:
                act()
            except DeviceProcessError as again:
                if again is not error or len(self._given) != given:
                    raise Fault(f"after {error}: {again}, {self._given[given:]}") from again
            else:
                raise Fault(f"nothing fails after {error}")

    def _refuse(self, dice: Dice, first: int, last: int) -> None:
        """A ring that cannot be."""
        self._ring.newest(dice.some(self._proxies))
        with suppress(UnknownExitError):
            assert self._ring.waits_for_start in (False, True)
        in_ring = [self._entry(number) for number in range(ENTRIES)]
        try:
            (self._ring.drain if dice.byte() & 1 else self._ring.flush)()
        except UnknownExitError:
            if not set(self._given) <= set(in_ring):
                raise Fault(f"{first} to {last}: {self._given} before it was refused") from None
        except DeviceProcessError:
            self._begin()
        except Exception as error:
            raise Fault(f"{first} to {last}: raised {error!r}") from error
        else:
            if first != last and not self._has_window:
                raise Fault(f"{first} to {last}: gave {self._given}")

    def close(self) -> None:
        """Nothing is open."""
