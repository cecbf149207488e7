"""Where QEMU 10.0 departs from the data sheets: a table that docs/qtest.md names, with a proof for each.

Random programs avoid a departure, or mask the bits that differ; nothing else is excused. Each entry has a
witness: lines on which both servers differ as the entry says. If QEMU mends its ways, or kvmbox takes them
over, the witness fails, and the entry has to go.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

Said = tuple[str, ...]
"""What a server sends: interrupt messages and answers, each a line."""


@dataclass(frozen=True, slots=True)
class Departure:
    """One departure. `mask` are the bits that still count in answers that show it.

    `lines` are sent to both servers, after `irq_intercept_in`; `ours` and `theirs` is what comes for the
    last of them.
    """

    key: str
    subject: str
    datasheet: str
    qemu: str
    lines: Said
    ours: Said
    theirs: Said
    mask: int = 0xFF

    @property
    def chip(self) -> str:
        """uart, pit, rtc, pm, hpet or kbd."""
        return self.key.partition("-")[0]


_COM1_OUT2: Final = "outb 0x3fc 0x08"
_DIVISOR_1: Final = ("outb 0x3fb 0x83", "outb 0x3f8 1", "outb 0x3f9 0", "outb 0x3fb 0x03")


def _rtc(*values: tuple[int, int]) -> Said:
    """The lines that write the registers."""
    return tuple(f"outw 0x70 {value << 8 | index:#06x}" for index, value in values)


_STOP_PIT: Final = ("outb 0x43 0x10", "outb 0x40 1", "clock_step 1000000")

PM_ON: Final = (*("outl 0xcf8 0x80000b40", "outl 0xcfc 0x601", "outl 0xcf8 0x80000b80", "outb 0xcfc 1"),)
"""QEMU's PIIX4 has its PM block where firmware puts it, by PCI configuration: 0x600. kvmbox has no PCI."""

_EDGE_16: Final = f"writeq 0xfed00100 {4 | 16 << 9:#x}"

DEPARTURES: Final = (
    # --- UART -------------------------------------------------------------------------------------------
    Departure(
        "uart-mcr-reset",
        "MCR after reset",
        "0 (table I)",
        "0x08, OUT2 set",
        lines=("inb 0x3fc",),
        ours=("OK 0x0000",),
        theirs=("OK 0x0008",),
    ),
    Departure(
        "uart-out2",
        "OUT2 and the interrupt line",
        "gates it outside loopback (PC wiring)",
        "no effect",
        lines=("outb 0x3fc 0", "outb 0x3f9 2"),
        ours=("OK",),
        theirs=("IRQ raise 4", "OK"),
    ),
    Departure(
        "uart-msr-deltas",
        "MSR deltas and modem status interrupt in loopback",
        "follow MCR (8.8, 8.9)",
        "none",
        lines=(_COM1_OUT2, "outb 0x3f9 8", "outb 0x3fc 0x18"),
        ours=("IRQ raise 4", "OK"),
        theirs=("OK",),
        mask=0xF0,
    ),
    Departure(
        "uart-word-length",
        "characters longer than the word, in loopback",
        "cut (8.1)",
        "kept",
        lines=("outb 0x3fb 0", "outb 0x3fc 0x18", "outb 0x3f8 0xff", "inb 0x3f8"),
        ours=("OK 0x001f",),
        theirs=("OK 0x00ff",),
    ),
    Departure(
        "uart-break",
        "set break in loopback",
        "one null character with BI (8.1, 8.8)",
        "nothing",
        lines=(*_DIVISOR_1, "outb 0x3fc 0x18", "outb 0x3fb 0x43", "clock_step 1000000", "inb 0x3fd"),
        ours=("OK 0x0071",),
        theirs=("OK 0x0060",),
    ),
    Departure(
        "uart-fcr",
        "FCR resets without bit 0",
        "not programmed (8.5)",
        "done",
        lines=("outb 0x3fc 0x18", "outb 0x3f8 0x41", "outb 0x3fa 0x02", "inb 0x3fd"),
        ours=("OK 0x0061",),
        theirs=("OK 0x0060",),
    ),
    Departure(
        "uart-stop-bits",
        "1.5 stop bits (5-bit words), in the character time-out",
        "4 × 7.5 bit times = 260,417 ns at 115,200 bit/s",
        "count as 2",
        lines=(
            *("outb 0x3fb 0x84", "outb 0x3f8 1", "outb 0x3f9 0", "outb 0x3fb 0x04", "outb 0x3fa 0xc1"),
            *("outb 0x3f9 1", "outb 0x3fc 0x18", "outb 0x3f8 1", "clock_step 265000"),
        ),
        ours=("IRQ raise 4", "OK 265000"),
        theirs=("OK 265000",),
    ),
    Departure(
        "uart-time-cut",
        "character time-out",
        "exact, to the next ns",
        "each of the four characters cut to whole ns",
        lines=(
            *(*_DIVISOR_1, "outb 0x3fa 0xc1", "outb 0x3f9 1", "outb 0x3fc 0x18", "outb 0x3f8 1"),
            "clock_step 347221",
        ),
        ours=("OK 347221",),
        theirs=("IRQ raise 4", "OK 347221"),
    ),
    Departure(
        "uart-divisor-0",
        "divisor 0",
        "not allowed; counts as 1",
        "the previous character time stays",
        lines=(
            *("outb 0x3fb 0x83", "outb 0x3f8 96", "outb 0x3f9 0", "outb 0x3f8 0", "outb 0x3fb 0x03"),
            *("outb 0x3fa 0xc1", "outb 0x3f9 1", "outb 0x3fc 0x18", "outb 0x3f8 1", "clock_step 400000"),
        ),
        ours=("IRQ raise 4", "OK 400000"),
        theirs=("OK 400000",),
    ),
    # --- PIT --------------------------------------------------------------------------------------------
    Departure(
        "pit-null-count",
        "status bit 6, null count",
        "1 until the count is loaded",
        "always 0",
        lines=("outb 0x43 0x36", "outb 0x43 0xe2", "inb 0x40"),
        ours=("OK 0x00f6",),
        theirs=("OK 0x00b6",),
        mask=0xBF,
    ),
    Departure(
        "pit-bcd",
        "BCD counting",
        "decimal",
        "binary",
        lines=("outb 0x43 0x91", "outb 0x42 0x20", "outb 0x61 1", "clock_step 9500", "inb 0x42"),
        ours=("OK 0x0009",),
        theirs=("OK 0x0015",),
    ),
    Departure(
        "pit-control-word",
        "control word",
        "OUT and CE react at once, latches are released",
        "nothing reacts until a count comes, latches stay",
        lines=("outb 0x43 0x36", "outb 0x40 0", "outb 0x40 0", "outb 0x43 0x30"),
        ours=("IRQ lower 0", "OK"),
        theirs=("OK",),
    ),
    Departure(
        "pit-new-count",
        "a new count in modes 2 and 3 without a control word; the first of two bytes in mode 0",
        "loaded at the end of the (half-)cycle; stops CE, OUT low",
        "at once; no effect",
        lines=(
            *("outb 0x43 0x14", "outb 0x40 100", "clock_step 9000", "outb 0x40 50", "clock_step 1000"),
            *("outb 0x43 0", "inb 0x40"),
        ),
        ours=("OK 0x0059",),
        theirs=("OK 0x0031",),
    ),
    Departure(
        "pit-modes-1-5",
        "modes 1 and 5",
        "wait for a trigger; counters 0 and 1 never get one",
        "start when the count is written; mode 1 is mode 0",
        lines=("outb 0x43 0x12", "outb 0x40 100", "clock_step 100000"),
        ours=("OK 100000",),
        theirs=("IRQ raise 0", "OK 100000"),
    ),
    Departure(
        "pit-modes-4-5",
        "OUT in modes 4 and 5",
        "high, low for one pulse at N",
        "low, high for one pulse at N",
        lines=("outb 0x43 0x18", "outb 0x40 100"),
        ours=("IRQ raise 0", "OK"),
        theirs=("OK",),
    ),
    Departure(
        "pit-modes-6-7",
        "modes 6 and 7",
        "alias 2 and 3",
        "OUT as mode 0, counts as mode 2",
        lines=("outb 0x43 0x1e", "outb 0x40 100"),
        ours=("IRQ raise 0", "OK"),
        theirs=("OK",),
    ),
    Departure(
        "pit-odd-count",
        "odd count in mode 3",
        "CE even: N − 1 … 0, N − 1 … 2",
        "CE odd at first: N, N − 2 …",
        lines=("outb 0x43 0x16", "outb 0x40 101", "clock_step 900", "inb 0x40"),
        ours=("OK 0x0062",),
        theirs=("OK 0x0063",),
    ),
    Departure(
        "pit-gate",
        "GATE 2 low",
        "stops modes 0, 2, 3 and 4; OUT high in 2 and 3",
        "ignored",
        lines=("outb 0x43 0x94", "outb 0x42 100", "clock_step 9000", "inb 0x42"),
        ours=("OK 0x0064",),
        theirs=("OK 0x005a",),
    ),
    Departure(
        "pit-mode-2-line",
        "interrupt line in mode 2",
        "high from the start; falls at kN − 1, rises at kN",
        "low until N + 1; falls at kN, rises at kN + 1",
        lines=("outb 0x43 0x14", "outb 0x40 100"),
        ours=("IRQ raise 0", "OK"),
        theirs=("OK",),
    ),
    Departure(
        "pit-mode-2-out",
        "OUT in mode 2 (status bit 7, port 0x61 bit 5)",
        "low for the pulse before the reload, otherwise high",
        "high for the pulse after it, otherwise low",
        lines=("outb 0x43 0x14", "outb 0x40 100", "clock_step 9000", "outb 0x43 0xe2", "inb 0x40"),
        ours=("OK 0x0094",),
        theirs=("OK 0x0014",),
        mask=0x7F,
    ),
    Departure(
        "pit-refresh",
        "refresh toggle (port 0x61 bit 4)",
        "by time",
        "changes at each read",
        lines=("inb 0x61",),
        ours=("OK 0x0020",),
        theirs=("OK 0x0030",),
        mask=0x2F,
    ),
    Departure(
        "pit-port-b-mask-bits",
        "port 0x61 bits 2 and 3",
        "read as written",
        "read 0",
        lines=("outb 0x61 0x0c", "inb 0x61", "inb 0x61"),
        ours=("OK 0x002c",),
        theirs=("OK 0x0020",),
    ),
    Departure(
        "pit-wake-up",
        "`clock_step` without a number",
        "(qtest) stops where OUT 0 changes",
        "also 1 ns before",
        lines=("clock_step",),
        ours=("IRQ raise 0", "IRQ lower 0", "OK 27462701"),
        theirs=("IRQ raise 0", "OK 27462700"),
    ),
    # --- RTC --------------------------------------------------------------------------------------------
    Departure(
        "rtc-pf",
        "PF without PIE",
        "set by every edge",
        "stays clear",
        lines=(*_rtc((0x0A, 0x26), (0x0B, 0x02)), "clock_step 100000000", "outb 0x70 0x0c", "inb 0x71"),
        ours=("OK 0x0040",),
        theirs=("OK 0x0000",),
    ),
    Departure(
        "rtc-due-at-once",
        "a periodic edge that a change of rate puts into the past",
        "(qtest) raised before the answer",
        "raised after the answer",
        lines=(
            *(*_STOP_PIT, *_rtc((0x0A, 0x2F)), "outb 0x70 0x0c", "inb 0x71", *_rtc((0x0B, 0x42))),
            *("clock_step 400000000", *_rtc((0x0A, 0x2D))),
        ),
        ours=("IRQ raise 8", "OK"),
        theirs=("OK",),
    ),
    Departure(
        "rtc-divider-periodic",
        "divider reset and the periodic interrupt",
        "no edges in reset; a period from its end to the first",
        "the periodic timer runs on",
        lines=(*_STOP_PIT, *_rtc((0x0B, 0x42), (0x0A, 0x76)), "clock_step 100000000"),
        ours=("OK 101000000",),
        theirs=("IRQ raise 8", "OK 101000000"),
    ),
    Departure(
        "rtc-set-flags",
        "UF and AF under SET",
        "no update, so neither",
        "set all the same",
        lines=(*_rtc((0x0B, 0x82)), "clock_step 2000000000", "outb 0x70 0x0c", "inb 0x71"),
        ours=("OK 0x0040",),
        theirs=("OK 0x0010",),
    ),
    Departure(
        "rtc-running-write",
        "a time byte written while the clock runs",
        "the byte is changed",
        "restarts the second; other bytes are those of the last read or update",
        lines=(
            *("clock_step 900000000", *_rtc((0x00, 0x30)), "clock_step 200000000", "outb 0x70 0"),
            "inb 0x71",
        ),
        ours=("OK 0x0031",),
        theirs=("OK 0x0030",),
    ),
    Departure(
        "rtc-divider-under-set",
        "divider reset and release under SET",
        "500 ms from the release to the first update",
        "the phase of the second as if there had been no reset",
        lines=(
            *("clock_step 900000000", *_rtc((0x0B, 0x82), (0x0A, 0x76), (0x0A, 0x26), (0x0B, 0x02))),
            *("clock_step 200000000", "outb 0x70 0", "inb 0x71"),
        ),
        ours=("OK 0x0020",),
        theirs=("OK 0x0021",),
    ),
    Departure(
        "rtc-12h-alarm",
        "alarm hours in 12-hour mode",
        "bit 7 is PM",
        "PM is that of the present hour; the bit is folded into the digits",
        lines=(
            *(*_STOP_PIT, *_rtc((0x0A, 0x76), (0x0B, 0x20), (0, 0), (2, 0), (4, 3), (1, 0), (3, 0))),
            *(*_rtc((5, 0x85), (0x0A, 0x26)), "clock_step 50400000000000"),  # 14 hours on, 5 PM is past
        ),
        ours=("IRQ raise 8", "OK 50400001000000"),
        theirs=("OK 50400001000000",),
    ),
    Departure(
        "rtc-impossible-alarm",
        "an alarm byte that no time equals",
        "never matches",
        "matches at some time all the same",
        lines=(*_STOP_PIT, *_rtc((0x0B, 0x22), (1, 0x7F), (3, 0xC0), (5, 0xC0)), "clock_step 120000000000"),
        ours=("OK 120001000000",),
        theirs=("IRQ raise 8", "OK 120001000000"),
    ),
    Departure(
        "rtc-weekday",
        "day of the week",
        "a counter of its own",
        "follows from the date; cannot be set",
        lines=(*_rtc((0x0B, 0x82), (6, 7), (0x0B, 0x02)), "outb 0x70 6", "inb 0x71"),
        ours=("OK 0x0007",),
        theirs=("OK 0x0003",),
    ),
    Departure(
        "rtc-dse",
        "daylight saving (DSE)",
        "last Sundays of April and October",
        "ignored",
        lines=(
            *_rtc((0x0B, 0x83), (0, 0x59), (2, 0x59), (4, 1), (7, 0x30), (8, 4), (9, 0x23), (6, 1)),
            *(*_rtc((0x0B, 0x03)), "clock_step 1000000000", "outb 0x70 4", "inb 0x71"),
        ),
        ours=("OK 0x0003",),
        theirs=("OK 0x0002",),
    ),
    Departure(
        "rtc-cmos",
        "RAM 0x37, and equipment, disk and boot bytes",
        "plain RAM",
        "0x37 is the century too; the others are filled in for the firmware",
        lines=("outb 0x70 0x37", "inb 0x71"),
        ours=("OK 0x0000",),
        theirs=("OK 0x0020",),
    ),
    Departure(
        "rtc-alarm-now",
        "a register written, UF set, in the very second that an alarm with don't-care minutes names",
        "matches a minute later",
        "matches a day later",
        lines=(
            *(*_STOP_PIT, "clock_step 40000000000", *_rtc((0x0B, 0x22), (1, 0x00), (3, 0xC0), (5, 0xC0))),
            "clock_step 60000000000",
        ),
        ours=("IRQ raise 8", "OK 100001000000"),
        theirs=("OK 100001000000",),
    ),
    # --- ACPI power management ----------------------------------------------------------------------------
    Departure(
        "pm-power-on",
        "TMR_STS at power-on",
        "0 (4.8.4.1.1: set by a carry)",
        "1",
        lines=(*PM_ON, "inw 0x600"),
        ours=("OK 0x0000",),
        theirs=("OK 0x0001",),
    ),
    Departure(
        "pm-sci-en",
        "SCI_EN without firmware",
        "1: always in ACPI mode",
        "0 until firmware writes to port 0xb2",
        lines=(*PM_ON, "inw 0x604"),
        ours=("OK 0x0001",),
        theirs=("OK 0x0000",),
        mask=0xFFFE,
    ),
    Departure(
        "pm-reserved",
        "reserved bits of PM1 enable",
        "0 (4.8.4.1.2)",
        "read as written",
        lines=(*PM_ON, "outw 0x602 0xffff", "inw 0x602"),
        ours=("OK 0x0721",),
        theirs=("OK 0xffff",),
    ),
    Departure(
        "pm-bytes",
        "the upper byte of a register",
        "accessible (4.8)",
        "reads 0",
        lines=(*PM_ON, "outw 0x602 0x0400", "inb 0x603"),
        ours=("OK 0x0004",),
        theirs=("OK 0x0000",),
    ),
    # --- HPET ---------------------------------------------------------------------------------------------
    Departure(
        "hpet-routes",
        "routes of the timers",
        "any; here 16 to 23",
        "2 alone is told, each one works",
        lines=("readq 0xfed00100",),
        ours=("OK 0x00ff000000000030",),
        theirs=("OK 0x0000000400000030",),
        mask=0xFFFF_FFFF,
    ),
    Departure(
        "hpet-passed",
        "a comparator that the counter has passed",
        "no match",
        "a match at once",
        lines=(
            *(*_STOP_PIT, _EDGE_16, "writeq 0xfed00010 1", "clock_step 1000000", "writeq 0xfed00108 5"),
            "clock_step 1000",
        ),
        ours=("OK 2001000",),
        theirs=("IRQ raise 16", "IRQ lower 16", "OK 2001000"),
    ),
    Departure(
        "hpet-periodic",
        "matches of a periodic timer",
        "one interrupt each (2.3.9.2.2)",
        "a second one at once, if the timer's handler is in time to the tick",
        lines=(
            *(*_STOP_PIT, f"writeq 0xfed00100 {0x4C | 16 << 9:#x}", "writeq 0xfed00108 20000"),
            *(
                "writeq 0xfed00108 100000000",
                "writeq 0xfed00010 1",
                "clock_step 200000",
                "clock_step 1000000",
            ),
        ),
        ours=("OK 2200000",),
        theirs=("IRQ raise 16", "IRQ lower 16", "OK 2200000"),
    ),
    # --- 8042 and keyboard --------------------------------------------------------------------------------
    Departure(
        "kbd-power-on",
        "command byte at power-on",
        "0x65, as a BIOS leaves it: translation, IRQ 1",
        "0x03, as before a BIOS",
        lines=("outb 0x64 0x20", "inb 0x60"),
        ours=("IRQ lower 1", "OK 0x0065"),
        theirs=("IRQ lower 1", "OK 0x0003"),
    ),
    Departure(
        "kbd-status",
        "status bits 2 and 3",
        "bit 2 follows that of the command byte, bit 3 tells commands from data",
        "bit 2 is set by the self-test and stays, bit 3 is always 1",
        lines=("outb 0x64 0xaa", "inb 0x60", "outb 0x64 0x60", "outb 0x60 0x41", "inb 0x64"),
        ours=("OK 0x0010",),
        theirs=("OK 0x001c",),
        mask=0xF3,
    ),
    Departure(
        "kbd-disable-line",
        "IRQ 1 at commands 0xAD and 0xAE while a byte was not read",
        "(follows the command byte) falls and rises",
        "stays until the byte is read",
        lines=("outb 0x60 0xee", "outb 0x64 0xad"),
        ours=("IRQ lower 1", "OK"),
        theirs=("OK",),
    ),
    Departure(
        "kbd-other-port",
        "a byte by 0xD2 after one by 0xD3 that was not read",
        "replaces it: status and lines follow",
        "replaces the value alone",
        lines=("outb 0x64 0xd3", "outb 0x60 1", "outb 0x64 0xd2", "outb 0x60 2", "inb 0x64"),
        ours=("OK 0x0015",),
        theirs=("OK 0x0039",),
    ),
    Departure(
        "kbd-unread",
        "a command to the keyboard while a byte of it was not read",
        "the byte stays in the output buffer",
        "the answer replaces it",
        lines=("outb 0x60 0xf2", "outb 0x60 0xee", "inb 0x60"),
        ours=("IRQ lower 1", "IRQ raise 1", "OK 0x00fa"),
        theirs=("IRQ lower 1", "OK 0x00ee"),
    ),
    Departure(
        "kbd-translation",
        "translation of answers",
        "when the controller takes the byte from the keyboard",
        "when the keyboard answers",
        lines=(
            *("outb 0x64 0x60", "outb 0x60 0x43", "outb 0x60 0xf2", "inb 0x60", "outb 0x64 0x60"),
            *("outb 0x60 0x03", "inb 0x60", "inb 0x60"),
        ),
        ours=("IRQ lower 1", "OK 0x0083"),
        theirs=("IRQ lower 1", "OK 0x0041"),
    ),
    Departure(
        "kbd-no-mouse",
        "command 0xD4",
        "nothing on the second port: 0xFE and time-out",
        "a mouse",
        lines=("outb 0x64 0xd4", "outb 0x60 0xf4", "inb 0x60"),
        ours=("OK 0x00fe",),
        theirs=("IRQ lower 12", "OK 0x00fa"),
    ),
    Departure(
        "kbd-resend",
        "command 0xFE of the keyboard",
        "the last byte once more",
        "0xFE",
        lines=("outb 0x60 0xee", "inb 0x60", "outb 0x60 0xfe", "inb 0x60"),
        ours=("IRQ lower 1", "OK 0x00ee"),
        theirs=("IRQ lower 1", "OK 0x00fe"),
    ),
    Departure(
        "kbd-no-command",
        "byte 0x00, where no option byte is due",
        "no command: 0xFE",
        "0xFA",
        lines=("outb 0x60 0", "inb 0x60"),
        ours=("IRQ lower 1", "OK 0x00fe"),
        theirs=("IRQ lower 1", "OK 0x00fa"),
    ),
    Departure(
        "kbd-key-types",
        "commands 0xF7 to 0xFD: key types of set 3",
        "0xFA for each of them and for each key that follows",
        "0xFE for 0xF7, 0xF8, 0xF9, 0xFB and 0xFD; one key for 0xFC",
        lines=("outb 0x60 0xf7", "inb 0x60"),
        ours=("IRQ lower 1", "OK 0x00fa"),
        theirs=("IRQ lower 1", "OK 0x00fe"),
    ),
    Departure(
        "kbd-option",
        "a command in the place of an option byte",
        "is done",
        "is the option byte",
        lines=("outb 0x60 0xed", "inb 0x60", "outb 0x60 0xee", "inb 0x60"),
        ours=("IRQ lower 1", "OK 0x00ee"),
        theirs=("IRQ lower 1", "OK 0x00fa"),
    ),
)

_BY_KEY: Final = {entry.key: entry for entry in DEPARTURES}


def departure(key: str) -> Departure:
    """The entry of that name."""
    return _BY_KEY[key]
