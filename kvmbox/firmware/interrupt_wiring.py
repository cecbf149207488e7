"""What ACPI and MP tables both tell of interrupts and APICs: they must not contradict each other.

KVM's in-kernel controllers are wired as on a PC: IRQ n of the 8259s is also pin n of the I/O APIC, but IRQ 0
is pin 2, which has nothing else to carry (IRQ 2 is the cascade of the 8259s).
"""

from __future__ import annotations

from typing import Final

ISA_IRQS: Final = 16
CASCADE_IRQ: Final = 2
TIMER_IRQ: Final = 0
TIMER_PIN: Final = 2
LEVEL_IRQS: Final = (5, 9, 10, 11)
"""Active high and level triggered, as kvmbox drives its lines and as PCs declare what PCI may share."""

CONFORMS: Final = 0
LEVEL_ACTIVE_HIGH: Final = 0b1101
"""The flags of an interrupt: as its bus has them, or other ones. MP tables (MultiProcessor Specification 1.4,
section 4.3.4) and the MADT (ACPI Specification 6.5, section 5.2.12.5) spell them alike.
"""

NMI_PIN: Final = 1
"""LINT1 of every local APIC; LINT0 has the 8259's output."""

ALL_LOCAL_APICS: Final = 0xFF

IO_APIC_ID: Final = 0
"""What the register of KVM's I/O APIC says after a reset. Its four bits have no place for an id behind those
of 32 local APICs. The APICs share no bus, so a local APIC may have the same id, as in QEMU.
"""


def pin(irq: int) -> int:
    """The pin of the I/O APIC that an ISA interrupt reaches; its global system interrupt, too."""
    return TIMER_PIN if irq == TIMER_IRQ else irq


def flags(irq: int) -> int:
    """Polarity and trigger mode of an ISA interrupt."""
    return LEVEL_ACTIVE_HIGH if irq in LEVEL_IRQS else CONFORMS
