"""Intel 8254 programmable interval timer, and the PC's system control port B beside it.

Theory of operation
-------------------
Three counters on one CLK of 1,193,182 Hz. Counter 0's OUT is interrupt line 0; counter 1 has refreshed DRAM
once; counter 2's gate and OUT are in port 0x61. What a counter does is in pit_counter (control logic) and
pit_waveform (arithmetic); here are the ports, the interrupt line, and time.

    offset  port  read                              write
    0..2    0x40  status, count latch or count      a byte of a count
    3       0x43  0 (the datasheet: no operation)   control word, counter latch, read-back
    4       0x61  see below                         bit 0 gate 2, bit 1 speaker, bits 2-3 kept

    port 0x61, read:  7 6      5      4               3 2         1        0
                      0 0      OUT 2  refresh toggle  as written  speaker  gate 2

    port 0x43:        SC1 SC0  RW1 RW0  M2 M1 M0  BCD   RW 00: counter latch command
                      1 1      /COUNT /STATUS CNT2 CNT1 CNT0 0: read-back command

Counter 0's next change of OUT is computed when its programming changes, so until then time passes at the
cost of one comparison. A call that comes late finds any number of changes behind it and tells of them with
at most one pulse: the line goes low, high (with the number of further rising edges folded in), and to its
last level.

The refresh toggle is bit 4 changing every 18 CLK pulses (15.085 µs), which is what firmware programs into
counter 1; it is derived from time alone, since guests here run without that firmware.

After power-on OUT 0 is high but the interrupt line is low until the first count is written to counter 0 or
its OUT changes. docs/devices/pit.md lists what is modelled, and where this and QEMU part.
"""

from __future__ import annotations

from kvmbox.contract.model import NO_RISE, IrqLine, ModelBase, RisesAt
from kvmbox.devices.pit.counter import Counter
from kvmbox.devices.pit.snapshot import COUNTERS, MAX_TIME, PitState, pack, unpack
from kvmbox.devices.pit.waveform import pulses_within

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

CONTROL_WORD: Final = 3
SYSTEM_CONTROL_B: Final = 4

CONTROL_SC_SHIFT: Final = 6
CONTROL_RW: Final = 0x30  # 0: counter latch command
READ_BACK: Final = 3  # in SC1 SC0
READ_BACK_NOT_COUNT: Final = 0x20
READ_BACK_NOT_STATUS: Final = 0x10
READ_BACK_FIRST_COUNTER: Final = 0x02

CONTROL_B_GATE_2: Final = 0x01
CONTROL_B_WRITABLE: Final = 0x0F
CONTROL_B_REFRESH_SHIFT: Final = 4
CONTROL_B_OUT_2_SHIFT: Final = 5
REFRESH_PULSES: Final = 18

IRQ_PIN: Final = 0

_ALL_ONES: Final = {1: 0xFF, 2: 0xFFFF, 4: 0xFFFF_FFFF, 8: 0xFFFF_FFFF_FFFF_FFFF}
_RAISE: Final = IrqLine(IRQ_PIN, 1)
_LOWER: Final = IrqLine(IRQ_PIN, 0)
_NEVER: Final = MAX_TIME + 1


class Pit8254(ModelBase):
    """The 8254 at offsets 0..3 and port 0x61 at offset 4. Pin 0 is OUT of counter 0. A `DeviceModel`.

    Counter 0 in mode 0 counts 1192 of its clocks, which are 838 ns each, and raises its line:

    >>> pit = Pit8254()
    >>> for offset, value in ((3, 0x30), (0, 1192 & 0xFF), (0, 1192 >> 8)):
    ...     pit.write(0, offset, 1, value)
    >>> pit.take_effects(), pit.next_deadline()
    ([], 999010)
    >>> pit.advance(999010)
    >>> pit.take_effects()
    [IrqLine(pin=0, level=1, coalesced=0)]
    """

    __slots__ = (
        *("_announced", "_announces", "_control_b", "_counters", "_deadline"),
        *("_line", "_line_driven", "_now"),
    )

    def __init__(self, *, announce: int = 0) -> None:
        """`announce`: whether effects tell beforehand when the line will rise."""
        super().__init__()
        self._announces = announce
        self._announced = NO_RISE
        self._now = 0
        self._line = 0
        self._power_on()
        self._effects = []  # nobody is told before the first call

    def _power_on(self) -> None:
        self._counters = tuple(
            Counter(self._now, gate=int(index != COUNTERS - 1)) for index in range(COUNTERS)
        )
        self._control_b = 0
        self._line_driven = 0
        self._schedule()

    # --- The contract -------------------------------------------------------------------------------

    def read(self, now: int, offset: int, size: int) -> int:
        """The register at `offset`; the upper bytes of a wide access, and other offsets, are all ones."""
        if now > self._now:
            self._pass_time(now)
        if 0 <= offset < COUNTERS:
            counter = self._counters[offset]
            counter.advance(self._now)
            value = counter.read()
        elif offset == SYSTEM_CONTROL_B:
            value = self._read_control_b()
        elif offset == CONTROL_WORD:
            value = 0
        else:
            return _ALL_ONES.get(size, 0xFF)
        return value if size == 1 else _ALL_ONES.get(size, 0xFF) & ~0xFF | value

    def write(self, now: int, offset: int, size: int, value: int) -> None:
        """The low byte of `value` goes to the register at `offset`, if there is one."""
        if now > self._now:
            self._pass_time(now)
        value &= 0xFF
        if 0 <= offset < COUNTERS:
            self._write_count(offset, value)
        elif offset == CONTROL_WORD:
            self._write_control(value)
        elif offset == SYSTEM_CONTROL_B:
            self._control_b = value & CONTROL_B_WRITABLE
            counter = self._counters[2]
            counter.advance(self._now)
            counter.set_gate(self._now, value & CONTROL_B_GATE_2)

    def advance(self, now: int) -> None:
        """Let time pass; O(1)."""
        if now > self._now:
            self._pass_time(now)

    def next_deadline(self) -> int | None:
        """The time of the next change of OUT 0, rounded up to ns, or None."""
        return self._deadline if self._deadline != _NEVER else None

    def receive(self, now: int, data: bytes) -> int:
        """There is no host input."""
        self.advance(now)
        return 0

    def reset(self, now: int) -> None:
        """Back to power-on; the interrupt line goes low."""
        self.advance(now)
        self._set_line(0)
        self._power_on()

    def snapshot(self) -> bytes:
        """The whole state, versioned."""
        now = self._now
        for counter in self._counters:
            counter.advance(now)
        counters = tuple(counter.state(now) for counter in self._counters)
        return pack(PitState(now, self._control_b, self._line_driven, counters))

    def restore(self, state: bytes) -> None:
        """Become what `snapshot` saw; raises SnapshotError without effect."""
        restored = unpack(state)
        self._now = restored.now
        self._control_b = restored.control_b
        self._counters = tuple(Counter.from_state(counter, restored.now) for counter in restored.counters)
        self._line_driven = restored.line_driven
        self._line = self._counters[0].out() if restored.line_driven else 0
        self._schedule()
        self._effects = []  # what holds now has been announced before

    # --- Time and the interrupt line ----------------------------------------------------------------

    def _pass_time(self, now: int) -> None:
        self._now = now = min(now, MAX_TIME)
        if now < self._deadline:
            return
        counter = self._counters[0]
        before = counter.out()
        rises = counter.advance_and_count(now)
        after = counter.out()
        if rises or after != before:
            self._drive_line(before)
        if rises:
            self._set_line(0)
            self._effects.append(IrqLine(IRQ_PIN, 1, rises - 1) if rises > 1 else _RAISE)
            self._line = 1
        if self._line_driven:
            self._set_line(after)
        self._schedule()

    def _drive_line(self, level: int) -> None:
        self._line_driven = 1
        self._set_line(level)

    def _set_line(self, level: int) -> None:
        if level != self._line:
            self._line = level
            self._effects.append(_RAISE if level else _LOWER)

    def _schedule(self) -> None:
        """Counter 0's programming or its OUT has changed: when must `advance` be called next?"""
        change = self._counters[0].next_change()
        self._deadline = _NEVER if change is None else change
        if self._announces:
            rise = self._counters[0].next_rise()
            at = NO_RISE if rise is None or rise > MAX_TIME else rise
            if at != self._announced:
                self._announced = at
                self._effects.append(RisesAt(IRQ_PIN, at))

    # --- Registers ----------------------------------------------------------------------------------

    def _write_count(self, index: int, value: int) -> None:
        counter = self._counters[index]
        counter.advance(self._now)
        before = counter.out()
        complete = counter.write_count(self._now, value)
        if index == 0:
            if complete or counter.out() != before:
                self._drive_line(counter.out())
            self._schedule()

    def _write_control(self, value: int) -> None:
        index = value >> CONTROL_SC_SHIFT
        if index == READ_BACK:
            self._read_back(value)
            return
        counter = self._counters[index]
        counter.advance(self._now)
        if not value & CONTROL_RW:
            counter.latch_count()
            return
        before = counter.out()
        counter.write_control(value)
        if index == 0:
            if counter.out() != before:
                self._drive_line(counter.out())
            self._schedule()

    def _read_back(self, command: int) -> None:
        for index, counter in enumerate(self._counters):
            if command & READ_BACK_FIRST_COUNTER << index:
                counter.advance(self._now)
                if not command & READ_BACK_NOT_COUNT:
                    counter.latch_count()
                if not command & READ_BACK_NOT_STATUS:
                    counter.latch_status(self._now)

    def _read_control_b(self) -> int:
        counter = self._counters[2]
        counter.advance(self._now)
        refresh = pulses_within(self._now) // REFRESH_PULSES & 1
        return counter.out() << CONTROL_B_OUT_2_SHIFT | refresh << CONTROL_B_REFRESH_SHIFT | self._control_b
