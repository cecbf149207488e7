"""Where a PC wires its interrupt lines to.

A PC wires line 0, the timer's, to pin 2 of the I/O APIC, and lines 1 and 3 to 23 to the pin of their number.
There is no line 2, as the first PIC has the second one at that pin; nothing drives pin 0 of the I/O APIC
(MADT's "interrupt source override": ACPI 6.5, 5.2.12.5).
"""

from __future__ import annotations

from typing import Final

PIC_PINS: Final = 8

_CASCADE: Final = 2
_TIMER_LINE: Final = 0
_TIMER_PIN: Final = 2


def pic_pin_of(gsi: int) -> int | None:
    """The pin of the PICs that line `gsi` is wired to, from 8 on of the second one; None if there is none."""
    return gsi if gsi < 2 * PIC_PINS and gsi != _CASCADE else None


def ioapic_pin_of(gsi: int) -> int | None:
    """The pin of the I/O APIC that line `gsi` is wired to; None if there is none."""
    if gsi == _TIMER_LINE:
        return _TIMER_PIN
    return gsi if gsi != _TIMER_PIN else None
