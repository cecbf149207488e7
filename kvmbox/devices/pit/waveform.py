"""The arithmetic of one 8254 counter: OUT and the counting element, `position` CLK pulses after a load.

Theory of operation
-------------------
Once the counting element (CE) is loaded with an initial count N, the rest of its life is a pure function
of the mode, of N, and of the number of CLK pulses that it has counted since: its *position*. Position 0 is
the pulse that loads it. Nothing here knows of time, gates or ports (datasheet, "Mode Definitions"):

    mode  name                        OUT                                    CE
    0     interrupt on terminal count low, high from N on                    N … 0, then wraps
    1     hardware one-shot           low, high from N on                    N … 0, then wraps
    2     rate generator              low at N-1, high again at N, periodic  N … 1, N … 1, …
    3     square wave                 high (N+1)/2, low N/2, periodic        by twos, see below
    4, 5  triggered strobe            high, low at N only                    N … 0, then wraps

CE wraps through the modulus: 65536 in binary, 10000 in BCD. A written count of 0 stands for the modulus.
In mode 3, CE starts at N (even) or N-1 (odd) in each half and goes down by two: an even N shows N … 2 in both
halves, an odd N shows N-1 … 0 while OUT is high and N-1 … 2 while it is low.

N = 1 is illegal in modes 2 and 3 (the datasheet gives a minimum of 2). Here OUT then stays high: it is
safe, and a guest cannot ask for an edge on every pulse.

Time is converted here and nowhere else: elapsed pulses are floored, the time of a pulse is rounded up, both
as exact integers from one origin, so that no error adds up however long a counter runs.
"""

from __future__ import annotations

from kvmbox.contract.model import NANOSECONDS
from kvmbox.devices.pit.input_clock import CLK_HZ

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

BINARY_MODULUS: Final = 0x10000
BCD_MODULUS: Final = 10_000

INTERRUPT_ON_TERMINAL_COUNT: Final = 0
ONE_SHOT: Final = 1
RATE_GENERATOR: Final = 2
SQUARE_WAVE: Final = 3
SOFTWARE_STROBE: Final = 4
HARDWARE_STROBE: Final = 5


def pulses_within(elapsed_ns: int) -> int:
    """CLK pulses that are complete `elapsed_ns` after an origin (which is a pulse itself, number 0)."""
    return elapsed_ns * CLK_HZ // NANOSECONDS


def time_of_pulse(pulse: int) -> int:
    """The first nanosecond after an origin at which `pulses_within` reaches `pulse`."""
    return -(-pulse * NANOSECONDS // CLK_HZ)


def high_pulses(count: int) -> int:
    """Mode 3: the length of the half in which OUT is high; the longer one if `count` is odd."""
    return (count + 1) // 2


def out_level(mode: int, count: int, position: int) -> int:
    """OUT, 0 or 1, with CE loaded with `count` (1..modulus) and `position` pulses counted."""
    if mode == SQUARE_WAVE:
        return int(position % count < high_pulses(count))
    if mode == RATE_GENERATOR:
        return int(count == 1 or position % count != count - 1)
    if mode in (INTERRUPT_ON_TERMINAL_COUNT, ONE_SHOT):
        return int(position >= count)
    return int(position != count)


def rising_edges(mode: int, count: int, position: int) -> int:
    """How many times OUT has gone from low to high by `position`, since position 0."""
    if mode in (RATE_GENERATOR, SQUARE_WAVE):
        return position // count if count > 1 else 0
    if mode in (INTERRUPT_ON_TERMINAL_COUNT, ONE_SHOT):
        return int(position >= count)
    return int(position > count)


def next_rising_edge(mode: int, count: int, position: int) -> int | None:
    """The next position at which `rising_edges` counts one more; None if none follows by counting alone."""
    if mode in (RATE_GENERATOR, SQUARE_WAVE):
        return (position // count + 1) * count if count > 1 else None
    edge = count if mode in (INTERRUPT_ON_TERMINAL_COUNT, ONE_SHOT) else count + 1
    return edge if position < edge else None


def next_transition(mode: int, count: int, position: int) -> int | None:
    """The next position at which OUT changes, or None if it will not by counting alone."""
    if mode in (RATE_GENERATOR, SQUARE_WAVE):
        if count == 1:
            return None
        falls_at = high_pulses(count) if mode == SQUARE_WAVE else count - 1
        phase = position % count
        return position - phase + (falls_at if phase < falls_at else count)
    if position < count:
        return count
    if position == count and mode in (SOFTWARE_STROBE, HARDWARE_STROBE):
        return count + 1
    return None


def cycle_end(mode: int, count: int, position: int) -> int:
    """Modes 2 and 3: the next position at which CE is reloaded from CR.

    The end of the cycle in mode 2, of the half-cycle in mode 3.
    """
    phase = position % count
    if mode == SQUARE_WAVE and phase < high_pulses(count):
        return position - phase + high_pulses(count)
    return position - phase + count


def counting_element(mode: int, count: int, position: int, modulus: int) -> int:
    """The number in CE, 0..modulus-1, as a number (see `to_bcd` for how a BCD counter shows it)."""
    if mode == SQUARE_WAVE:
        phase = position % count
        high = high_pulses(count)
        return ((count & ~1) - 2 * (phase if phase < high else phase - high)) % modulus
    if mode == RATE_GENERATOR:
        return (count - position % count) % modulus
    return (count - position) % modulus


def to_bcd(number: int) -> int:
    """Four decimal digits of `number` (0..9999), a nibble each."""
    return number % 10 | number // 10 % 10 << 4 | number // 100 % 10 << 8 | number // 1000 << 12


def from_bcd(register: int) -> int:
    """The number in four BCD digits. Digits above 9 are undefined; here they weigh 10..15, modulo 10000."""
    return (
        (register & 15) + 10 * (register >> 4 & 15) + 100 * (register >> 8 & 15) + 1000 * (register >> 12)
    ) % BCD_MODULUS
