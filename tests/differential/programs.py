"""Seeded random programs for the chips, as lines of the qtest protocol.

A program is a list of steps. A step is one or more lines that are compared as a whole: the answers one by
one, under a mask where a bit of them is in the table of departures, and the interrupt messages together, for
two chips that both follow the data sheet may raise a line with different lines of one step.

What a program must not do, because QEMU departs from the data sheet there, is in departures.toml: each
restriction here names its entry.
"""

from __future__ import annotations

import calendar
import random
from dataclasses import dataclass, field
from typing import Final

from tests.differential.departures import PM_ON, Departure, departure


@dataclass(frozen=True, slots=True)
class Step:
    """Lines, and what of their answers counts.

    `masks` are the bits of each answer's value that count, or None for the whole text. `irq` is the line
    whose messages count, or None if none does.
    """

    lines: tuple[str, ...]
    masks: tuple[int | None, ...]
    irq: int | None


@dataclass(slots=True)
class Program:
    """The steps, and the departures that were avoided or masked on the way."""

    irq: int
    steps: list[Step] = field(default_factory=list)
    used: set[str] = field(default_factory=set)

    def do(self, *lines: str, mask: int | None = None, watch: bool = True) -> None:
        """One step; `mask` is that of its last line."""
        masks = (None,) * (len(lines) - 1) + (mask,)
        self.steps.append(Step(lines, masks, self.irq if watch else None))

    def because_of(self, key: str) -> Departure:
        """Note that a departure restricts the program."""
        self.used.add(key)
        return departure(key)

    @property
    def lines(self) -> list[str]:
        """All lines, in order."""
        return [line for step in self.steps for line in step.lines]


# --- UART --------------------------------------------------------------------------------------------------

_UART_LINES: Final = {0x3F8: 4, 0x2F8: 3}
_FCR_VALUES: Final = (0x00, 0x01, 0x01, 0x41, 0x81, 0xC1, 0xC7, 0x03, 0x05, 0x87)
_DIVISORS: Final = (1, 2, 3, 12, 96, 1047)


class _UartProgram:
    """One UART with its line settings; times are in sevenths of its character time-out."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.base = rng.choice(list(_UART_LINES))
        self.program = Program(_UART_LINES[self.base])
        self.word_mask = 0xFF
        self.seventh = 1
        program = self.program
        program.do("irq_intercept_in ioapic")
        program.because_of("uart-mcr-reset")
        self.write(4, 0x08)
        self.set_line()

    def write(self, offset: int, value: int) -> None:
        self.program.do(f"outb {self.base + offset:#x} {value:#x}")

    def read(self, offset: int, mask: int | None = None) -> None:
        self.program.do(f"inb {self.base + offset:#x}", mask=mask)

    def set_line(self) -> None:
        """A new speed and format, with nothing in the receiver whose time-out would run on."""
        self.write(2, 0x07)
        self.read(0)
        self.program.because_of("uart-word-length")  # characters are within the word
        self.program.because_of("uart-break")
        self.program.because_of("uart-stop-bits")
        self.program.because_of("uart-divisor-0")
        bits = self.rng.randrange(5, 9)
        stop = self.rng.randrange(2) if bits > 5 else 0
        parity = self.rng.choice((0, 0x08, 0x18, 0x28, 0x38))
        divisor = self.rng.choice(_DIVISORS)
        self.word_mask = (1 << bits) - 1
        lcr = bits - 5 | stop << 2 | parity
        self.write(3, 0x80 | lcr)
        self.write(0, divisor & 0xFF)
        self.write(1, divisor >> 8)
        self.read(0)
        self.read(1)
        self.write(3, lcr)
        character = (1 + bits + bool(parity) + 1 + stop) * divisor * 10**9 // 115200
        self.seventh = 4 * character // 7

    def wait(self) -> None:
        # Sums of these are even sevenths: no step ends near a time-out, where QEMU has lost nanoseconds.
        self.program.because_of("uart-time-cut")
        self.program.do(f"clock_step {self.rng.choice((2, 2, 4, 6, 8, 16)) * self.seventh}")

    def step(self) -> None:
        rng = self.rng
        choice = rng.randrange(41)
        if choice < 12:
            self.write(0, rng.randrange(256) & self.word_mask)
        elif choice < 16:
            self.program.because_of("uart-msr-deltas")  # no modem status interrupt
            self.write(1, rng.randrange(8))
        elif choice < 18:
            self.program.because_of("uart-fcr")
            self.write(2, rng.choice(_FCR_VALUES))
        elif choice < 20:
            self.write(4, rng.choice((0x18, 0x1F, 0x18, 0x1D, 0x08, 0x0B, 0x00, 0x10)))
        elif choice < 22:
            self.write(7, rng.randrange(256))
        elif choice < 23:
            self.read(6, self.program.because_of("uart-msr-deltas").mask)
        elif choice < 24:
            self.program.do(f"inw {self.base + 2:#x}")  # IIR and LCR
        elif choice < 36:
            self.read(rng.choice((0, 0, 0, 1, 2, 2, 2, 3, 4, 5, 5, 7)))
        elif choice < 40:
            self.wait()
        else:
            self.set_line()


def uart_program(seed: int, size: int) -> Program:
    """`size` lines at least, for COM1 or COM2."""
    uart = _UartProgram(random.Random(seed))
    while len(uart.program.lines) < size:
        for _ in range(200):
            uart.step()
    return uart.program


# --- PIT ---------------------------------------------------------------------------------------------------

_MODES: Final = (0, 2, 3)
_TIMES: Final = (1, 100, 838, 839)


class _PitProgram:
    """Three counters in modes that QEMU counts by the data sheet."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.modes = [3, 3, 3]
        self.program = Program(0)
        avoided = ("pit-modes-1-5", "pit-modes-4-5", "pit-modes-6-7", "pit-bcd", "pit-odd-count")
        for key in (*avoided, "pit-wake-up"):
            self.program.because_of(key)
        self.program.do("irq_intercept_in ioapic")
        self.program.because_of("pit-gate")
        self.program.do("outb 0x61 1")
        for counter in range(3):
            self.program_counter(counter)

    @property
    def watch(self) -> bool:
        """Whether the line of counter 0 can be compared."""
        if self.modes[0] == 2:
            self.program.because_of("pit-mode-2-line")
        return self.modes[0] != 2

    def read(self, counter: int) -> None:
        self.program.do(f"inb {0x40 + counter:#x}", watch=self.watch)

    def program_counter(self, counter: int) -> None:
        """Control word and count in one step."""
        for _ in range(3):
            self.read(counter)  # what is latched is read
        self.program.because_of("pit-control-word")
        self.program.because_of("pit-new-count")
        rng = self.rng
        mode, access = rng.choice(_MODES), rng.choice((1, 2, 3))
        count = [rng.randrange(2, 256) & ~1]
        if access == 3:
            count.append(rng.choice((0, 0, 1, 5, 255)))
            if rng.randrange(20) == 0:
                count = [0, 0]
        watched = self.watch
        self.modes[counter] = mode
        control = counter << 6 | access << 4 | mode << 1
        self.program.do(
            f"outb 0x43 {control:#x}",
            *(f"outb {0x40 + counter:#x} {byte:#x}" for byte in count),
            watch=watched and self.watch,
        )

    def wait(self) -> None:
        rng = self.rng
        time = rng.choice((*_TIMES, rng.randrange(1, 5000), rng.randrange(1, 200_000)))
        self.program.do(f"clock_step {time}", watch=self.watch)

    def read_back_status(self) -> None:
        counter = self.rng.randrange(3)
        for _ in range(3):
            self.read(counter)
        self.program.do(f"outb 0x43 {0xE0 | 2 << counter:#x}", watch=self.watch)
        mask = 0xFF & self.program.because_of("pit-null-count").mask
        if self.modes[counter] == 2:
            mask &= self.program.because_of("pit-mode-2-out").mask
        self.program.do(f"inb {0x40 + counter:#x}", mask=mask, watch=self.watch)

    def read_port_b(self) -> None:
        mask = self.program.because_of("pit-refresh").mask
        if self.modes[2] == 2:
            mask &= ~0x20
        self.program.do("inb 0x61", mask=mask, watch=self.watch)

    def step(self) -> None:
        rng = self.rng
        choice = rng.randrange(20)
        if choice == 0:
            self.program_counter(rng.randrange(3))
        elif choice < 8:
            self.wait()
        elif choice < 12:
            self.read(rng.randrange(3))
        elif choice < 14:
            self.program.do(f"outb 0x43 {rng.randrange(3) << 6:#x}", watch=self.watch)
        elif choice < 15:
            self.read_back_status()
        elif choice < 16:
            self.program.do(f"outb 0x43 {0xD0 | rng.randrange(8) << 1:#x}", watch=self.watch)
        elif choice < 17:
            self.program.do(f"inw {0x40 + rng.randrange(2):#x}", watch=self.watch)
        elif choice < 18:
            self.program.because_of("pit-port-b-mask-bits")
            self.program.do(f"outb 0x61 {rng.choice((1, 3)):#x}", watch=self.watch)
        else:
            self.read_port_b()


def pit_program(seed: int, size: int) -> Program:
    """`size` lines at least."""
    pit = _PitProgram(random.Random(seed))
    while len(pit.program.lines) < size:
        for _ in range(200):
            pit.step()
    return pit.program


# --- RTC ---------------------------------------------------------------------------------------------------

_YEARS: Final = (
    *(1600, 1700, 1899, 1975, 1999, 2000, 2004, 2011, 2023, 2080, 2099, 2100, 2200, 2261, 2400, 2600),
)
_SECOND: Final = 10**9


class _RtcProgram:
    """A clock that is set, watched and left alone; with periodic interrupts in every second program."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.periodic = bool(rng.randrange(2))
        self.twelve_hours = bool(rng.randrange(2))
        self.program = Program(8)
        for key in ("rtc-pf", "rtc-12h-alarm", "rtc-weekday", "rtc-dse", "rtc-cmos"):
            self.program.because_of(key)
        self.rate = 6 if self.periodic else 0
        self.register_b = 0x02 | (0x40 if self.periodic else 0)
        self.may_match_soon = False
        self.just_cleared = False
        self.program.do("irq_intercept_in ioapic")
        self.write(0x0A, 0x20)
        # Counter 0 stands: its interrupts, thousands of them in a long step, are not the RTC's.
        self.program.do("outb 0x43 0x10", "outb 0x40 1", "clock_step 2000000", watch=False)
        self.write(0x0A, 0x20 | self.rate)
        self.write(0x0B, self.register_b)
        self.read(0x0C)

    def write(self, index: int, value: int) -> None:
        if index in (1, 3, 5, 0x0A, 0x0B):
            self.clear_update_flag()
        if self.rng.randrange(4) == 0:
            self.program.do(f"outw 0x70 {value << 8 | index:#x}")
        else:
            self.program.do(f"outb 0x70 {index:#x}", f"outb 0x71 {value:#x}")

    def read(self, index: int) -> None:
        self.program.do(f"outb 0x70 {index | self.rng.choice((0, 0x80)):#x}", "inb 0x71")

    def clear_update_flag(self) -> None:
        """QEMU looks for the next alarm now: if that might be a minute away, UF must be clear."""
        self.program.because_of("rtc-alarm-now")
        if self.may_match_soon and not self.just_cleared:
            self.read(0x0C)
            self.just_cleared = True

    def coded(self, value: int) -> int:
        return value if self.register_b & 4 else value // 10 << 4 | value % 10

    def hour(self, value: int) -> int:
        if self.register_b & 2:
            return self.coded(value)
        return self.coded((value - 1) % 12 + 1) | (0x80 if value >= 12 else 0)

    def set_time(self) -> None:
        """Date and time, in any order: the clock must be standing."""
        rng = self.rng
        year, month = rng.choice(_YEARS), rng.randint(1, 12)
        day = rng.choice((1, 28, calendar.monthrange(year, month)[1]))
        values = [
            (0x00, self.coded(rng.choice((0, 1, 57, 58, 59)))),
            (0x02, self.coded(rng.choice((0, 1, 30, 58, 59)))),
            (0x04, self.hour(rng.choice((0, 1, 9, 11, 12, 13, 22, 23)))),
            (0x07, self.coded(day)),
            (0x08, self.coded(month)),
            (0x09, self.coded(year % 100)),
            (0x32, self.coded(year // 100)),
        ]
        rng.shuffle(values)
        for index, value in values:
            self.write(index, value)

    def set_alarm(self) -> None:
        rng = self.rng
        self.may_match_soon = True
        second = self._alarm_byte(1, rng.choice((0, 59, rng.randint(0, 59))))
        minute = self._alarm_byte(3, rng.choice((0, 1, 30, 59)))
        hour = self._alarm_byte(5, rng.randint(0, 23))
        self.may_match_soon = not second and (minute or hour)

    def _alarm_byte(self, index: int, value: int) -> bool:
        """Write one byte of the alarm; whether it is a don't-care."""
        # Bytes that no time equals are QEMU's own business, and so are the hours of a 12-hour alarm.
        self.program.because_of("rtc-impossible-alarm")
        any_value = self.rng.random() < 0.5 or not self.register_b & 2
        self.write(index, self.rng.choice((0xC0, 0xFF, 0xD5)) if any_value else self.coded(value))
        return any_value

    def change_format(self) -> None:
        formats = (0, 2, 4, 6) if self.twelve_hours else (2, 6)
        self.register_b = self.register_b & ~6 | self.rng.choice(formats)

    def wait(self) -> None:
        rng = self.rng
        times = (
            *(1, 244_140, 244_141, 999_755_860, 500_000_000, _SECOND, 60 * _SECOND),
            *(rng.randrange(1, 10**6), rng.randrange(1, 2 * _SECOND), rng.randrange(1, 30) * _SECOND),
        )
        self.program.do(f"clock_step {rng.choice(times)}")
        self.just_cleared = False

    def step(self) -> None:
        choice = self.rng.random()
        if choice < 0.35:
            self.wait()
        elif choice < 0.6:
            self.read(self.rng.choice((0, 2, 4, 6, 7, 8, 9, 0x32)))
        elif choice < 0.7:
            self.read(0x0A)
        elif choice < 0.8:
            self.read(0x0C)
        elif choice < 0.82:
            self.read(self.rng.choice((0x0B, 0x0D)))
        elif choice < 0.85:
            self._set_under_set()
        elif choice < 0.88:
            self._set_under_divider_reset()
        elif choice < 0.92:
            self.set_alarm()
        elif choice < 0.96:
            self.register_b = self.register_b & ~0x38 | self.rng.choice((0, 0x10, 0x20, 0x30, 8))
            self.write(0x0B, self.register_b)
        elif choice < 0.98:
            self._use_ram()
        elif self.periodic:
            self._change_rate()

    def _set_under_set(self) -> None:
        self.program.because_of("rtc-set-flags")  # no time passes under SET
        self.program.because_of("rtc-running-write")
        self.write(0x0B, self.register_b | 0x80)
        if self.rng.random() < 0.5:
            self.change_format()
            self.write(0x0B, self.register_b | 0x80)
        self.set_time()
        self.set_alarm()
        self.write(0x0B, self.register_b)

    def _set_under_divider_reset(self) -> None:
        if self.periodic:
            self.program.because_of("rtc-divider-periodic")
            return
        self.program.because_of("rtc-divider-under-set")
        self.change_format()
        self.write(0x0B, self.register_b)
        self.write(0x0A, 0x70 | self.rate)
        self.set_time()
        self.set_alarm()
        self.write(0x0A, 0x20 | self.rate)

    def _use_ram(self) -> None:
        index = self.rng.choice((*range(0x40, 0x58), *range(0x60, 0x80)))
        self.write(index, self.rng.randrange(256))
        self.read(index)

    def _change_rate(self) -> None:
        self.rate = self.rng.choice(range(3, 16))
        self.clear_update_flag()
        self.program.because_of("rtc-due-at-once")
        self.program.do(f"outw 0x70 {(0x20 | self.rate) << 8 | 0x0A:#x}", "clock_step 1")
        self.just_cleared = False
        if self.rng.random() < 0.3:
            self.write(0x0B, self.register_b & ~0x40)
            self.read(0x0C)
            self.write(0x0B, self.register_b)


def rtc_program(seed: int, size: int) -> Program:
    """`size` lines at least."""
    rtc = _RtcProgram(random.Random(seed))
    while len(rtc.program.lines) < size:
        for _ in range(200):
            rtc.step()
    return rtc.program


# --- ACPI power management ---------------------------------------------------------------------------------

_PM_ENABLES: Final = (0, 0x0001, 0x0001, 0x0421, 0x0721, 0x0720)


def pm_program(seed: int, size: int) -> Program:
    """`size` lines at least. Sleep is left out, which ends QEMU."""
    rng = random.Random(seed)
    program = Program(irq=9)
    program.do("irq_intercept_in ioapic")
    program.do(*PM_ON, "outb 0x43 0x10", "outb 0x40 1", watch=False)  # the PIT is still from here on
    program.because_of("pm-power-on")
    program.do("outw 0x600 0xffff")
    sci_en = program.because_of("pm-sci-en").mask
    program.because_of("pm-reserved")
    program.because_of("pm-bytes")
    while len(program.lines) < size:
        match rng.randrange(8):
            case 0:
                program.do(
                    f"outw 0x600 {rng.choice((0x0001, 0x0001, 0x8731, 0xFFFE, rng.randrange(1 << 16)))}"
                )
            case 1:
                program.do(f"outw 0x602 {rng.choice(_PM_ENABLES)}")
            case 2:
                program.do(f"outw 0x604 {rng.randrange(1 << 16) & 0x1C02}")
            case 3:
                program.do("inw 0x604", mask=sci_en)
            case 4:
                program.do(rng.choice(("inw 0x600", "inw 0x602", "inl 0x600", "inb 0x600", "inb 0x602")))
            case 5:
                program.do("inl 0x608")
            case 6:
                program.do(f"clock_step {rng.randrange(1, 10**7)}")
            case _:
                program.do(f"clock_step {rng.randrange(1, 4 * 10**9)}")
    return program


# --- HPET --------------------------------------------------------------------------------------------------


class _HpetProgram:
    """One timer of the three, one-shot, on one route. Its counter begins anew before 2^32 ticks."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.timer = rng.randrange(3)
        self.route = rng.choice(range(16, 24))
        self.program = Program(irq=self.route)
        self.ticks = 0
        self.program.do("irq_intercept_in ioapic")
        self.program.do("outb 0x43 0x10", "outb 0x40 1", watch=False)
        self.program.because_of("hpet-passed")
        self.program.because_of("hpet-periodic")
        self.mask = self.program.because_of("hpet-routes").mask

    def write(self, offset: int, value: int, size: str = "q") -> None:
        self.program.do(f"write{size} {0xFED0_0000 + offset:#x} {value:#x}")

    def read(self, offset: int, size: str = "q", mask: int | None = None) -> None:
        self.program.do(f"read{size} {0xFED0_0000 + offset:#x}", mask=mask)

    def set_timer(self) -> None:
        """From a counter of zero, so that a comparator is never passed."""
        conf, comparator = 0x100 + 0x20 * self.timer, 0x108 + 0x20 * self.timer
        self.write(0x20, 7)
        self.write(0x10, 0)
        self.write(0xF0, 0)
        self.ticks = 0
        bits = 4 | self.rng.choice((0, 2)) | self.rng.choice((0, 0x100)) | self.route << 9
        first = self.rng.randrange(1, 10 ** self.rng.randrange(3, 9))
        self.write(conf, bits)
        self.write(comparator, first)
        self.write(0x10, 1, self.rng.choice("lq"))

    def step(self) -> None:
        match self.rng.randrange(8):
            case 0:
                self.set_timer()
            case 1 | 2:
                step = self.rng.randrange(1, 10 ** self.rng.randrange(1, 10))
                self.ticks += step // 10 + 1
                if self.ticks > 1 << 31:
                    self.set_timer()
                self.program.do(f"clock_step {step}")
            case 3:
                self.read(0xF0, self.rng.choice("lq"))
            case 4:
                self.read(0x108 + 0x20 * self.timer)
            case 5:
                self.read(0x20)
                self.write(0x20, self.rng.choice((1 << self.timer, 0, 7)))
            case 6:
                self.read(0x100 + 0x20 * self.timer, mask=self.mask)
            case _:
                self.read(self.rng.choice((0x00, 0x10)), self.rng.choice("lq"))


def hpet_program(seed: int, size: int) -> Program:
    """`size` lines at least."""
    hpet = _HpetProgram(random.Random(seed))
    hpet.set_timer()
    while len(hpet.program.lines) < size:
        hpet.step()
    return hpet.program


PROGRAMS: Final = {
    "uart": uart_program,
    "pit": pit_program,
    "rtc": rtc_program,
    "pm": pm_program,
    "hpet": hpet_program,
}
