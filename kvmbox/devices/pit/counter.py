"""One of the three counters of an 8254: control logic, count register, counting element, output latch.

Theory of operation
-------------------
As in the datasheet's block diagram, a program writes the count register (CR), which is loaded into the
counting element (CE), which is read directly or through the output latch (OL). The counter keeps what CE was
loaded with and when, never a running value: a read computes CE from the number of CLK pulses since.
`position` counts those pulses (pit_waveform); it is `base` at the time `epoch` and goes on from there while
`running`. `advance(now)` comes before every other method that depends on time.

A write, trigger or gate opening takes effect on the next CLK pulse (datasheet, "Mode Definitions"). The
phase of CLK cannot be seen from outside, so the next pulse is taken to come right after the cause: position
n is reached `time_of_pulse(n)` after it. The only trace of that pulse is the null count bit, still 1 at the
very nanosecond of the write. Within one count, periodic or not, the phase never moves again.

What loads CE, by mode (datasheet, modes 0 to 5):

    0, 4   a complete count, also while GATE is low; in mode 0 the first of two bytes stops counting, OUT low
    1, 5   a trigger (rising edge of GATE); a count written meanwhile waits for it
    2      the first count after a control word; later ones at the end of the cycle, or a trigger
    3      the first count after a control word; later ones at the end of the half-cycle, or a trigger

GATE low freezes CE in modes 0, 2, 3 and 4, and holds OUT high in modes 2 and 3. Between a control word and
its count CE keeps what it had, and OUT the level that the mode starts with.
"""

from __future__ import annotations

from kvmbox.contract.model import NANOSECONDS
from kvmbox.devices.pit.input_clock import CLK_HZ
from kvmbox.devices.pit.waveform import (
    BCD_MODULUS,
    BINARY_MODULUS,
    HARDWARE_STROBE,
    INTERRUPT_ON_TERMINAL_COUNT,
    ONE_SHOT,
    RATE_GENERATOR,
    SOFTWARE_STROBE,
    SQUARE_WAVE,
    counting_element,
    cycle_end,
    from_bcd,
    high_pulses,
    next_rising_edge,
    next_transition,
    out_level,
    rising_edges,
    time_of_pulse,
    to_bcd,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, NamedTuple
else:
    from kvmbox.base.value_classes import NamedTuple

# Control word and status byte (datasheet, "Control Word Format" and "Status Byte").
CONTROL_BCD: Final = 0x01
CONTROL_MODE_SHIFT: Final = 1
CONTROL_RW_SHIFT: Final = 4
CONTROL_KEPT: Final = 0x3F  # D5..D0: what the status byte gives back as written
STATUS_NULL_COUNT: Final = 0x40

# RW1 RW0. NONE is the state after power-on only (as a control word it is the latch command); it acts as LSB.
RW_NONE: Final = 0
RW_LSB: Final = 1
RW_MSB: Final = 2
RW_WORD: Final = 3

# Null count: has the count in CR reached CE?
COUNT_LOADED: Final = 0
COUNT_WAITS: Final = 1  # for its first write, for a trigger or for the end of the cycle
COUNT_LOADS: Final = 2  # on the CLK pulse that follows `epoch`: no longer null when time has moved on

# M2 M1 M0: 6 and 7 alias 2 and 3 (M2 is "don't care" there).
_EFFECTIVE_MODE: Final = (0, 1, 2, 3, 4, 5, 2, 3)
_NEVER: Final = 1 << 80  # a position beyond any time

POWER_ON_CONTROL: Final = SQUARE_WAVE << CONTROL_MODE_SHIFT


def effective_mode(control: int) -> int:
    """The mode, 0..5, of a control word."""
    return _EFFECTIVE_MODE[control >> CONTROL_MODE_SHIFT & 7]


class CounterState(NamedTuple):
    """What a counter is made of: all that does not follow from the rest. See `Counter` for the meanings."""

    control: int
    gate: int
    null_count: int
    loaded: int
    loaded_count: int
    register: int
    epoch: int
    base: int
    residue: int
    write_lsb: int
    write_msb_next: int
    read_msb_next: int
    latch: int
    latch_bytes: int
    status: int
    status_latched: int


class Counter:
    """One counter. Times are ns; counts are numbers, 1..modulus, whatever the coding in the registers."""

    __slots__ = (
        "base",
        "control",
        "epoch",
        "gate",
        "latch",
        "latch_bytes",
        "loaded",
        "loaded_count",
        "mode",
        "modulus",
        "null_count",
        "position",
        "read_msb_next",
        "register",
        "reload_position",
        "residue",
        "running",
        "status",
        "status_latched",
        "write_lsb",
        "write_msb_next",
    )

    def __init__(self, now: int, gate: int) -> None:
        # The datasheet leaves power-on undefined. This is QEMU's choice, which guests without firmware
        # meet elsewhere too: mode 3, counting from 65536, byte access to the LSB.
        self.control = POWER_ON_CONTROL
        self.mode = SQUARE_WAVE
        self.modulus = BINARY_MODULUS
        self.gate = gate
        self.register = BINARY_MODULUS  # CR as a number, 0: no complete count since the control word
        self.null_count = COUNT_LOADED
        self.loaded = 1  # CE was loaded since the control word
        self.loaded_count = BINARY_MODULUS  # what it was loaded with
        self.running = gate
        self.epoch = now
        self.base = 0
        self.position = 0
        self.reload_position = _NEVER  # modes 2 and 3: where CR goes to CE, if a count waits for that
        self.residue = 0  # what CE shows while it is not loaded
        self.write_lsb = 0
        self.write_msb_next = 0
        self.read_msb_next = 0
        self.latch = 0
        self.latch_bytes = RW_NONE  # bytes of OL still to be read
        self.status = 0
        self.status_latched = 0

    def state(self, now: int) -> CounterState:
        """The counter's state at `now`, the time of the last `advance`."""
        null_count = self.null_count
        if null_count == COUNT_LOADS and now > self.epoch:
            null_count = COUNT_LOADED
        return CounterState(
            self.control,
            self.gate,
            null_count,
            self.loaded,
            self.loaded_count,
            self.register,
            self.epoch,
            self.base,
            self.residue,
            self.write_lsb,
            self.write_msb_next,
            self.read_msb_next,
            self.latch,
            self.latch_bytes,
            self.status,
            self.status_latched,
        )

    @classmethod
    def from_state(cls, state: CounterState, now: int) -> Counter:
        """The counter that had `state` at `now`. The state must be one that `snapshot` accepts."""
        counter = cls(now, state.gate)
        for name, value in state._asdict().items():
            setattr(counter, name, value)
        counter.mode = effective_mode(state.control)
        counter.modulus = BCD_MODULUS if state.control & CONTROL_BCD else BINARY_MODULUS
        counter.running = int(state.loaded and (state.gate or counter.mode in (ONE_SHOT, HARDWARE_STROBE)))
        counter.position = state.base
        counter.advance(now)
        if counter.running and counter.null_count == COUNT_WAITS and counter.is_periodic():
            counter.reload_position = cycle_end(counter.mode, counter.loaded_count, counter.position)
        return counter

    def is_periodic(self) -> bool:
        """Whether CE is reloaded without a trigger: modes 2 and 3."""
        return self.mode in (RATE_GENERATOR, SQUARE_WAVE)

    # --- Time ---------------------------------------------------------------------------------------

    def advance(self, now: int) -> None:
        """Bring `position` to `now`, which must not be before the last `now`. O(1)."""
        if self.running:
            self.position = self.base + (now - self.epoch) * CLK_HZ // NANOSECONDS
            if self.position >= self.reload_position:
                self._reload()

    def advance_and_count(self, now: int) -> int:
        """`advance` of a counter that runs, and how many rising edges OUT had on the way."""
        start, waiting_at = self.position, self.reload_position
        edges = -rising_edges(self.mode, self.loaded_count, start)
        target = self.base + (now - self.epoch) * CLK_HZ // NANOSECONDS
        if target >= waiting_at:
            # The edge of the reload itself belongs to the old count; the new one starts level.
            edges += rising_edges(self.mode, self.loaded_count, waiting_at)
        self.advance(now)
        return edges + rising_edges(self.mode, self.loaded_count, self.position)

    def next_change(self) -> int | None:
        """The time (ns) of the next change of OUT or reload of CE, or None if there will be none."""
        if not self.running:
            return None
        position = next_transition(self.mode, self.loaded_count, self.position)
        if position is None:
            # The illegal count 1 moves nothing, but a count may wait for the end of its cycle. In all other
            # cases that end is a change of OUT, too.
            if self.reload_position == _NEVER:
                return None
            position = self.reload_position
        return self.epoch + time_of_pulse(position - self.base)

    def next_rise(self) -> int | None:
        """The time (ns) of the next rising edge of OUT, or None if there is none, or none that is sure yet.

        In mode 3 a count that waits goes to CE in mid-cycle, and makes it another cycle.
        """
        if not self.running:
            return None
        position = next_rising_edge(self.mode, self.loaded_count, self.position)
        if position is None or self.reload_position < position:
            return None
        return self.epoch + time_of_pulse(position - self.base)

    def _reload(self) -> None:
        """The end of the (half-)cycle: the count that waits in CR goes to CE; the phase of CLK stays."""
        # Mode 3 reloads in mid-cycle too. After the high half comes the low half of the new count.
        after_high_half = self.mode == SQUARE_WAVE and self.reload_position % self.loaded_count != 0
        landing = high_pulses(self.register) if after_high_half else 0
        shift = landing - self.reload_position
        self.base += shift
        self.position += shift
        self.loaded_count = self.register
        self.reload_position = _NEVER
        self.null_count = COUNT_LOADED

    # --- What can be seen ---------------------------------------------------------------------------

    def out(self) -> int:
        """The level of OUT, 0 or 1, at the last `advance`."""
        if not self.loaded:
            return int(self.mode != INTERRUPT_ON_TERMINAL_COUNT)
        if not self.gate and self.is_periodic():
            return 1
        return out_level(self.mode, self.loaded_count, self.position)

    def counting_register(self) -> int:
        """CE as a program reads it, 16 bits, in BCD if so programmed."""
        number = self._element()
        return to_bcd(number) if self.control & CONTROL_BCD else number

    def status_byte(self, now: int) -> int:
        """OUT, null count, and the control word as written (datasheet, "Status Byte")."""
        null = self.null_count == COUNT_WAITS or (self.null_count == COUNT_LOADS and now == self.epoch)
        return self.out() << 7 | (STATUS_NULL_COUNT if null else 0) | self.control

    # --- What a program does ------------------------------------------------------------------------

    def write_control(self, control: int) -> None:
        """A control word for this counter (not a latch command): D5..D0 of it, RW not 0."""
        # CE is kept as a number below its old modulus; folding it keeps a BCD counter's digits decimal.
        number = self._element()
        self.control = control & CONTROL_KEPT
        self.mode = effective_mode(control)
        self.modulus = BCD_MODULUS if control & CONTROL_BCD else BINARY_MODULUS
        self._stop_unloaded(number % self.modulus)
        self.register = 0
        self.null_count = COUNT_WAITS
        self.write_msb_next = self.write_lsb = self.read_msb_next = 0
        self.latch = self.status = self.status_latched = 0
        self.latch_bytes = RW_NONE

    def write_count(self, now: int, value: int) -> bool:
        """One byte of a count; whether it completed the count."""
        access = self.control >> CONTROL_RW_SHIFT
        if access == RW_WORD:
            if not self.write_msb_next:
                self.write_lsb = value
                self.write_msb_next = 1
                if self.mode == INTERRUPT_ON_TERMINAL_COUNT and self.loaded:
                    self._stop_unloaded(self._element())
                return False
            self.write_msb_next = 0
            register = value << 8 | self.write_lsb
            self.write_lsb = 0
        else:
            register = value << 8 if access == RW_MSB else value
        number = from_bcd(register) if self.control & CONTROL_BCD else register
        self.register = number or self.modulus
        self.null_count = COUNT_WAITS
        if self.mode in (INTERRUPT_ON_TERMINAL_COUNT, SOFTWARE_STROBE) or (
            self.is_periodic() and not self.loaded
        ):
            self._load(now)
        elif self.is_periodic() and self.running:
            self.reload_position = cycle_end(self.mode, self.loaded_count, self.position)
        return True

    def set_gate(self, now: int, level: int) -> None:
        """The GATE input takes a level."""
        if level == self.gate:
            return
        self.gate = level
        if self.null_count == COUNT_LOADS and now > self.epoch:
            self.null_count = COUNT_LOADED
        if self.mode in (INTERRUPT_ON_TERMINAL_COUNT, SOFTWARE_STROBE):
            if self.loaded:
                self._count_from(now, self.position)
        elif level and self.register:
            self._load(now)
        elif not level and self.is_periodic():
            # OUT goes high at once; only a trigger starts the counter again, from CR.
            self._count_from(now, self.position)

    def latch_count(self) -> None:
        """Counter latch command, or read-back with COUNT: CE to OL, unless OL is still to be read."""
        if self.latch_bytes == RW_NONE:
            self.latch = self.counting_register()
            self.latch_bytes = self.control >> CONTROL_RW_SHIFT or RW_LSB

    def latch_status(self, now: int) -> None:
        """Read-back with STATUS, unless a status is still to be read."""
        if not self.status_latched:
            self.status = self.status_byte(now)
            self.status_latched = 1

    def read(self) -> int:
        """One byte: the latched status first, then the latched count, then CE itself."""
        if self.status_latched:
            status, self.status, self.status_latched = self.status, 0, 0
            return status
        if self.latch_bytes:
            return self._read_latch()
        access = self.control >> CONTROL_RW_SHIFT
        msb = access == RW_MSB
        if access == RW_WORD:
            msb = bool(self.read_msb_next)
            self.read_msb_next ^= 1
        register = self.counting_register()
        return register >> 8 if msb else register & 0xFF

    def _read_latch(self) -> int:
        # OL is read from its first byte on, apart from the flip-flop of direct reads.
        if self.latch_bytes == RW_WORD:
            self.latch_bytes = RW_MSB
            return self.latch & 0xFF
        byte = self.latch >> 8 if self.latch_bytes == RW_MSB else self.latch & 0xFF
        self.latch_bytes = RW_NONE
        self.latch = 0
        return byte

    def _element(self) -> int:
        if not self.loaded:
            return self.residue
        return counting_element(self.mode, self.loaded_count, self.position, self.modulus)

    # --- Loading and counting -----------------------------------------------------------------------

    def _load(self, now: int) -> None:
        """CR to CE on the CLK pulse right after `now`."""
        self.loaded_count = self.register
        self.loaded = 1
        self.residue = 0
        self.reload_position = _NEVER
        if self.null_count != COUNT_LOADED:
            self.null_count = COUNT_LOADS
        self._count_from(now, 0)

    def _count_from(self, now: int, position: int) -> None:
        """Go on from `position`, counting if GATE is high (it is when modes 1 and 5 get here: a trigger)."""
        self.epoch = now
        self.base = self.position = position
        self.running = self.gate

    def _stop_unloaded(self, residue: int) -> None:
        """CE stands at `residue` until a count is loaded."""
        self.residue = residue
        self.loaded = self.running = 0
        self.loaded_count = 1
        self.base = self.position = 0
        self.reload_position = _NEVER
