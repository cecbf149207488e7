"""The High Precision Event Timers (IA-PC HPET specification 1.0a): one counter, three comparators.

Theory of operation
-------------------
The main counter has 64 bits and a tick of 10 ns. While it is enabled, it is a start value and the guest time
that has passed since; while it is halted, it is the start value alone.

A comparator *matches* when the counter arrives at its value. A 32-bit timer compares the low half, so that it
matches again each 2^32 ticks. A periodic timer adds its period to the comparator at each match. The model
does not visit the matches one by one: from the first match and the distance of two, `_settle` computes how
many of them a span of time has had, which costs the same for any span.

A match of a level-triggered timer sets its status bit, and the bit holds the interrupt line high. A match of
an edge-triggered timer is a pulse. Timers may share a line: pulses on a line that is held high are no edges.

Output pins 0 and 1 are IRQ 0 and IRQ 8, to which timers 0 and 1 are wired in legacy replacement. The model
then takes these lines from the PIT and the RTC. The pins from 2 on are the I/O APIC's from 16 on.

Interrupts as messages (FSB) are not provided, and the capability bits say so.
"""

from __future__ import annotations

from struct import Struct

from kvmbox.contract.model import (
    NANOSECONDS,
    NO_RISE,
    IrqLine,
    ModelBase,
    RisesAt,
    SnapshotError,
    TakeLine,
    steady_for,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

# Offsets of the registers, each of 64 bits (2.3.1).
GCAP_ID: Final = 0x000
GEN_CONF: Final = 0x010
GINTR_STA: Final = 0x020
MAIN_CNT: Final = 0x0F0
TIMERS: Final = 0x100  # 0x20 bytes for each timer
TIMER_STRIDE: Final = 0x20
TIM_CONF: Final = 0x00
TIM_COMP: Final = 0x08
SIZE: Final = 0x400

TIMER_COUNT: Final = 3
TICK_NS: Final = 10

# General configuration (2.3.5).
ENABLE_CNF: Final = 1 << 0
LEG_RT_CNF: Final = 1 << 1

# Configuration and capabilities of a timer (2.3.8).
INT_TYPE_CNF: Final = 1 << 1  # 1: level-triggered
INT_ENB_CNF: Final = 1 << 2
TYPE_CNF: Final = 1 << 3  # 1: periodic
PER_INT_CAP: Final = 1 << 4
SIZE_CAP: Final = 1 << 5
VAL_SET_CNF: Final = 1 << 6
MODE32_CNF: Final = 1 << 8
INT_ROUTE_SHIFT: Final = 9
INT_ROUTE_CNF: Final = 0x1F << INT_ROUTE_SHIFT

FIRST_ROUTE: Final = 16
ROUTE_COUNT: Final = 8
LEGACY_PINS: Final = 2
"""Output pins before that of the first route."""

_PIN_COUNT: Final = LEGACY_PINS + ROUTE_COUNT
_ROUTES: Final = (1 << ROUTE_COUNT) - 1 << FIRST_ROUTE
_CONF_WRITABLE: Final = INT_TYPE_CNF | INT_ENB_CNF | TYPE_CNF | VAL_SET_CNF | MODE32_CNF | INT_ROUTE_CNF
_CONF_FIXED: Final = PER_INT_CAP | SIZE_CAP | _ROUTES << 32

# 2.3.4: the period in fs, vendor Intel, legacy replacement, a counter of 64 bits, the last timer, revision.
CAPABILITIES: Final = (
    TICK_NS * 1_000_000 << 32 | 0x8086 << 16 | 1 << 15 | 1 << 13 | TIMER_COUNT - 1 << 8 | 0x01
)

_64_BITS: Final = (1 << 64) - 1
_32_BITS: Final = (1 << 32) - 1
_LAST_NOW: Final = (1 << 63) - 1
_NEVER: Final = 1 << 63
"""Guest time, in ns, that does not come: 292 years."""

_MAGIC: Final = b"HPT\x01"  # the name and the version of the snapshot
_SNAPSHOT: Final = Struct("<4sQQQQBB")
_TIMER_SNAPSHOT: Final = Struct("<QQH")


class _Timer:
    """One timer: `conf` has its writable bits. Comparator and period are within `mask`."""

    __slots__ = ("comparator", "conf", "period")

    def __init__(self) -> None:
        self.conf = 0
        # 2.3.9: all ones, so that a timer that nobody has set does not match.
        self.comparator = _64_BITS
        self.period = 0

    @property
    def mask(self) -> int:
        """The bits that are compared."""
        return _32_BITS if self.conf & MODE32_CNF else _64_BITS

    @property
    def pin(self) -> int | None:
        """The output pin of its route, None if that is no valid one."""
        route = (self.conf & INT_ROUTE_CNF) >> INT_ROUTE_SHIFT
        return LEGACY_PINS + route - FIRST_ROUTE if _ROUTES >> route & 1 else None

    def first_match(self, count: int) -> int:
        """How many ticks from `count` on, at least one, until the counter arrives at the comparator."""
        return (self.comparator - count - 1 & self.mask) + 1

    @property
    def distance(self) -> int:
        """The ticks from one match to the next."""
        return self.period if self.conf & TYPE_CNF and self.period else self.mask + 1


class Hpet(ModelBase):
    """See the module.

    >>> hpet = Hpet()
    >>> hpet.write(0, GEN_CONF, 8, ENABLE_CNF)
    >>> hpet.read(1_000, MAIN_CNT, 8)
    100
    """

    def __init__(self, *, announce: int = 0) -> None:
        """`announce`: whether effects tell beforehand when a line will rise."""
        self._announces = announce
        self._announced = 0, NO_RISE
        """The output pin, and when it will rise."""
        super().__init__()
        self._now = 0
        self._levels = [0] * _PIN_COUNT
        self._taken = False
        self._power_on()

    def _power_on(self) -> None:
        self._config = 0
        self._status = 0
        self._start_ns = 0
        """When the counter, if it is enabled, was at `_start`."""
        self._start = 0
        self._settled = 0
        """The ticks from `_start_ns` on whose matches have been handled."""
        self._timers = [_Timer() for _ in range(TIMER_COUNT)]
        self._due = self._deadline = _NEVER
        """When the next match is, and the next one that the interrupt lines show."""

    # --- The contract ---------------------------------------------------------------------------------

    def read(self, now: int, offset: int, size: int) -> int:
        """See DeviceModel. Reserved registers read as zero."""
        self.advance(now)
        if size not in (1, 2, 4, 8):
            return 0
        if offset % size:
            value = 0
            for position in range(size):
                value |= self.read(now, offset + position, 1) << 8 * position
            return value
        mask = (1 << 8 * size) - 1
        if offset >= SIZE:
            return mask
        return self._register(offset & ~7) >> 8 * (offset & 7) & mask

    def steady(self, offset: int, size: int, value: int) -> int:
        """See SteadyModel. The capabilities and the period are constants."""
        return steady_for(NANOSECONDS) if offset + size <= 8 else 0

    def write(self, now: int, offset: int, size: int, value: int) -> None:
        """See DeviceModel. The specification knows accesses of 4 and 8 bytes (2.3.2): others are dropped."""
        self.advance(now)
        if size not in (4, 8) or offset % size:
            return
        self._settle()
        shift = 8 * (offset & 7)
        mask = (1 << 8 * size) - 1 << shift
        self._write_register(offset & ~7, value << shift & mask, mask)
        self._drive()
        self._arm()

    def advance(self, now: int) -> None:
        """See DeviceModel."""
        if now > self._now:
            self._now = min(now, _LAST_NOW)
            if self._now >= self._due:
                self._settle()
                self._drive()
                self._arm()

    def next_deadline(self) -> int | None:
        """See DeviceModel. The next match that changes an interrupt line."""
        return None if self._deadline >= _NEVER else self._deadline

    def receive(self, now: int, data: bytes) -> int:
        """See DeviceModel. It takes no input."""
        self.advance(now)
        return 0

    def reset(self, now: int) -> None:
        """See DeviceModel."""
        self.advance(now)
        self._power_on()
        self._drive()
        self._announce(0, NO_RISE)

    # --- Registers --------------------------------------------------------------------------------------

    def _register(self, offset: int) -> int:
        if offset == MAIN_CNT:
            return self._counter()
        if offset == GCAP_ID:
            return CAPABILITIES
        if offset == GEN_CONF:
            return self._config
        if offset == GINTR_STA:
            return self._status
        number, register = divmod(offset - TIMERS, TIMER_STRIDE)
        if 0 <= number < TIMER_COUNT:
            timer = self._timers[number]
            if register == TIM_CONF:
                return _CONF_FIXED | timer.conf
            if register == TIM_COMP:
                return timer.comparator
        return 0

    def _write_register(self, offset: int, bits: int, mask: int) -> None:
        """The guest writes those `bits` of a register that are in `mask`."""
        if offset == GEN_CONF:
            self._configure((self._config & ~mask | bits) & (ENABLE_CNF | LEG_RT_CNF))
        elif offset == GINTR_STA:
            self._status &= ~bits
        elif offset == MAIN_CNT:
            # 2.3.7: to be written while it is halted only.
            if not self._config & ENABLE_CNF:
                self._start = self._start & ~mask | bits
        else:
            number, register = divmod(offset - TIMERS, TIMER_STRIDE)
            if 0 <= number < TIMER_COUNT:
                if register == TIM_CONF:
                    self._configure_timer(number, bits, mask)
                elif register == TIM_COMP:
                    _write_comparator(self._timers[number], bits, mask)

    def _configure(self, config: int) -> None:
        if (config ^ self._config) & ENABLE_CNF:
            self._start = self._counter()
            self._start_ns = self._now
            self._settled = 0
        self._config = config

    def _configure_timer(self, number: int, bits: int, mask: int) -> None:
        timer = self._timers[number]
        conf = (timer.conf & ~mask | bits) & _CONF_WRITABLE
        if not conf & TYPE_CNF:
            conf &= ~VAL_SET_CNF
        if not _ROUTES >> ((conf & INT_ROUTE_CNF) >> INT_ROUTE_SHIFT) & 1:
            # 2.3.8: a route that there is not reads back as another value.
            conf &= ~INT_ROUTE_CNF
        timer.conf = conf
        timer.comparator &= timer.mask
        timer.period &= timer.mask
        if not conf & INT_TYPE_CNF:
            self._status &= ~(1 << number)

    # --- Time passes ------------------------------------------------------------------------------------

    def _ticks(self) -> int:
        """The ticks since `_start_ns`."""
        return (self._now - self._start_ns) // TICK_NS if self._config & ENABLE_CNF else 0

    def _counter(self) -> int:
        return self._start + self._ticks() & _64_BITS

    def _settle(self) -> None:
        """Handle the matches up to and including now: status bits, comparators and pulses."""
        ticks = self._ticks()
        elapsed = ticks - self._settled
        if not elapsed:
            return
        count = self._start + self._settled
        self._settled = ticks
        held: dict[int, int] = {}  # the tick at which a line that was low begins to be held high
        edges: list[tuple[int, int, int]] = []  # pin, first match, distance
        for number, timer in enumerate(self._timers):
            first, distance = timer.first_match(count), timer.distance
            if first > elapsed:
                continue
            if timer.conf & TYPE_CNF:
                matches = 1 + (elapsed - first) // distance
                timer.comparator = timer.comparator + matches * timer.period & timer.mask
            pin = self._pin(number)
            if not timer.conf & INT_TYPE_CNF:
                if pin is not None:
                    edges.append((pin, first, distance))
            elif not self._status >> number & 1:
                self._status |= 1 << number
                if pin is not None:
                    held[pin] = min(first, held.get(pin, first))
        pulses: dict[int, int] = {}
        for pin, first, distance in edges:
            last = -1 if self._levels[pin] else min(elapsed, held.get(pin, elapsed + 1) - 1)
            if first <= last:
                pulses[pin] = pulses.get(pin, 0) + 1 + (last - first) // distance
        for pin, count in pulses.items():
            self._effects += [IrqLine(pin, 1, count - 1), IrqLine(pin, 0)]

    def _arm(self) -> None:
        """Compute when the next match is."""
        self._due = self._deadline = _NEVER
        rise = 0, NO_RISE
        count = self._start + self._settled
        for number, timer in enumerate(self._timers if self._config & ENABLE_CNF else ()):
            at = self._start_ns + (self._settled + timer.first_match(count)) * TICK_NS
            self._due = min(self._due, at)
            pin = self._pin(number)
            if pin is not None and not self._status >> number & 1:
                self._deadline = min(self._deadline, at)
                if at < rise[1] and at <= _LAST_NOW and not self._levels[pin]:
                    rise = pin, at
        self._announce(*rise)

    def _announce(self, pin: int, at: int) -> None:
        """Tell the next rise of a line that is low, unless that has been told. A model has one at a time."""
        before = self._announced
        if not self._announces or (pin, at) == before:
            return
        self._announced = pin, at
        if before[1] != NO_RISE and before[0] != pin:
            self._effects.append(RisesAt(before[0], NO_RISE))
        if at != NO_RISE or before[0] == pin:
            self._effects.append(RisesAt(pin, at))

    # --- Interrupts -------------------------------------------------------------------------------------

    def _replaces(self) -> bool:
        """2.3.5: legacy replacement takes both bits."""
        return self._config & (ENABLE_CNF | LEG_RT_CNF) == ENABLE_CNF | LEG_RT_CNF

    def _pin(self, number: int) -> int | None:
        """The output pin that a timer may drive now."""
        timer = self._timers[number]
        if not timer.conf & INT_ENB_CNF or not self._config & ENABLE_CNF:
            return None
        return number if number < LEGACY_PINS and self._replaces() else timer.pin

    def _wanted(self) -> list[int]:
        """The levels of the output pins that the status bits ask for."""
        levels = [0] * _PIN_COUNT
        for number in range(TIMER_COUNT):
            pin = self._pin(number)
            if pin is not None and self._status >> number & 1:
                levels[pin] = 1
        return levels

    def _drive(self) -> None:
        """Bring lines to their levels. A line is low when it is taken, and when it is given back."""
        wanted, taken = self._wanted(), self._replaces()
        changes = [(pin, level) for pin, level in enumerate(wanted) if level != self._levels[pin]]
        self._effects += [IrqLine(pin, 0) for pin, level in changes if not level]
        if taken != self._taken:
            self._taken = taken
            self._effects += [TakeLine(pin, int(taken)) for pin in range(LEGACY_PINS)]
        self._effects += [IrqLine(pin, 1) for pin, level in changes if level]
        self._levels = wanted

    # --- Snapshots --------------------------------------------------------------------------------------

    def snapshot(self) -> bytes:
        """See DeviceModel."""
        return _SNAPSHOT.pack(
            _MAGIC, self._now, self._start_ns, self._start, self._settled, self._config, self._status
        ) + b"".join(
            [_TIMER_SNAPSHOT.pack(timer.comparator, timer.period, timer.conf) for timer in self._timers]
        )

    def restore(self, state: bytes) -> None:
        """See DeviceModel."""
        if len(state) != _SNAPSHOT.size + TIMER_COUNT * _TIMER_SNAPSHOT.size or not state.startswith(_MAGIC):
            raise SnapshotError("not a snapshot of an HPET, version 1")
        other = Hpet(announce=self._announces)
        _, other._now, other._start_ns, other._start, other._settled, other._config, other._status = (
            _SNAPSHOT.unpack_from(state)
        )
        fields = _TIMER_SNAPSHOT.iter_unpack(state[_SNAPSHOT.size :])
        for timer, (comparator, period, conf) in zip(other._timers, fields, strict=True):
            timer.comparator, timer.period, timer.conf = comparator, period, conf
        if not other._is_possible():
            raise SnapshotError("a state that an HPET cannot have")
        other._levels, other._taken = other._wanted(), other._replaces()
        other._arm()
        other._effects = []  # what holds now has been announced before
        if other._due <= other._now:
            raise SnapshotError("an HPET that has missed a match")
        self.__dict__ = other.__dict__  # all of it, now that all of it is good

    def _is_possible(self) -> bool:
        return (
            self._start_ns <= self._now <= _LAST_NOW
            and not self._config & ~(ENABLE_CNF | LEG_RT_CNF)
            and self._settled <= self._ticks()
            and not self._status >> TIMER_COUNT
            and all(
                not timer.conf & ~_CONF_WRITABLE
                and (timer.conf & TYPE_CNF or not timer.conf & VAL_SET_CNF)
                and (timer.pin is not None or not timer.conf & INT_ROUTE_CNF)
                and timer.comparator <= timer.mask
                and timer.period <= timer.mask
                and (timer.conf & INT_TYPE_CNF or not self._status >> number & 1)
                for number, timer in enumerate(self._timers)
            )
        )


def _write_comparator(timer: _Timer, bits: int, mask: int) -> None:
    """2.3.9.2.2: the period of a periodic timer, and its comparator, too, while VAL_SET_CNF is set."""
    mask &= timer.mask
    if not mask:
        return  # the upper half, in 32-bit mode
    bits &= mask
    if not timer.conf & TYPE_CNF or timer.conf & VAL_SET_CNF:
        timer.comparator = timer.comparator & ~mask | bits
    if timer.conf & TYPE_CNF:
        timer.period = timer.period & ~mask | bits
    timer.conf &= ~VAL_SET_CNF
