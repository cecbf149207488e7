"""What the built-in BIOS does not provide, as sentences for a person.

The BIOS, or any guest that writes to its port, sends numbers (`devices.bios.report_port`). Each missing
service is named once, and at most `MOST` of them are. The text is made of the numbers alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from kvmbox.base.judge import Judge
from kvmbox.base.outcome import DEVICE_FAILED, GUEST_CRASHED, Outcome
from kvmbox.devices.bios.report_port import ENDING, REPORT, WHAT

MOST: Final = 64
"""How many missing services are named in one run."""

# Kinds: guests/bios/bios.h has the same.
SERVICE: Final = 0x00
FUNCTION: Final = 0x01
TRAP: Final = ENDING
UNHANDLED: Final = ENDING + 1
NO_BOOT: Final = ENDING + 2

_EXCEPTIONS: Final = {
    0: "divide error",
    1: "debug",
    3: "breakpoint",
    4: "overflow",
    5: "bound range exceeded",
    6: "invalid opcode",
    7: "no coprocessor",
    8: "double fault or IRQ 0",
    9: "IRQ 1",
    10: "IRQ 2",
    11: "IRQ 3",
    12: "stack fault or IRQ 4",
    13: "general protection or IRQ 5",
    14: "IRQ 6",
    15: "IRQ 7",
    16: "coprocessor error",
}
"""Intel SDM volume 3, table 21-6 (real-address mode); IRQs as a PC's BIOS sets the 8259As up."""

_INSTEAD: Final = {
    0x10: "print to COM1 (port 0x3f8) or to the debug console (port 0xe9) instead",
    0x13: "put all that the guest needs into its image",
    0x14: "program COM1 (port 0x3f8) instead",
    0x15: "a Multiboot or ELF kernel is told the memory map",
    0x16: "read from COM1 (port 0x3f8) instead",
    0x1A: "read the RTC (ports 0x70 and 0x71) instead",
}


def sentence(at: int, what: int) -> str:
    """What a report says: `at` is CS << 16 | IP, `what` is kind << 24 | vector << 16 | AX."""
    kind, vector, ax = what >> 24 & 0xFF, what >> 16 & 0xFF, what & 0xFFFF
    place = f"{((at >> 16 & 0xFFFF) << 4) + (at & 0xFFFF):#x}"
    if kind == NO_BOOT:
        return "the guest called int 0x18: there is nothing to boot from"
    if kind == UNHANDLED:
        name = f" ({_EXCEPTIONS[vector]})" if vector in _EXCEPTIONS else ""
        return f"interrupt {vector:#04x}{name} is not handled, at {place}"
    if kind == FUNCTION:
        return f"int {vector:#04x} AX={ax:#06x} is not provided, at {place}"
    return f"int {vector:#04x} AH={ax >> 8:#04x} is not provided, at {place}"


def _hint(what: int) -> str | None:
    kind, vector = what >> 24 & 0xFF, what >> 16 & 0xFF
    if kind != TRAP:
        return None
    instead = f"; or {_INSTEAD[vector]}" if vector in _INSTEAD else ""
    return f"there is no BIOS here; --bios builtin provides one{instead}"


class BiosReports:
    """Takes reports, on any thread."""

    def __init__(self, judge: Judge, note: Callable[[str], None]) -> None:
        """`note` tells the person a line, and does not block."""
        self._judge = judge
        self._note = note
        self._named: set[int] = set()
        self._at = 0

    def take(self, data: bytes) -> None:
        """A report has come, on the thread that holds the device's channel. Never blocks."""
        if len(data) != REPORT.size:  # no model sends that: what its process says does not count
            return
        self._at, what = REPORT.unpack(data)
        if what >> 24 >= ENDING:
            return  # `stop` follows
        service = what >> 16 << 8 | (what & 0xFFFF if what >> 24 == FUNCTION else what >> 8 & 0xFF) << 24
        if service in self._named or len(self._named) > MOST:
            return
        self._named.add(service)
        full = len(self._named) > MOST
        self._note("further missing BIOS services are not named" if full else sentence(self._at, what))

    def stop(self, offset: int, size: int, value: int) -> None:
        """The device asks for the end of the run, in the reply to this write of the guest."""
        if (offset, size) == (WHAT, 4) and value >> 24 >= ENDING:
            self._judge.ends(Outcome(GUEST_CRASHED, sentence(self._at, value), error=True, hint=_hint(value)))
            return
        self._judge.decide(
            Outcome(
                DEVICE_FAILED, "the device process of the BIOS report asks for a stop unasked", error=True
            )
        )
