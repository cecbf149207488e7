"""Whether anything can still wake the only vCPU of a machine: what its interrupt controllers let through.

A processor that is halted with interrupts off goes on for an NMI, an SMI or an INIT, and for nothing else
(Intel SDM volume 2, HLT; volume 3, "Masking Maskable Hardware Interrupts"). One that waits for a start-up IPI
goes on for that only (volume 3, "MP Initialization Protocol Algorithm"). The only vCPU cannot send itself any
while it sleeps, so what is left are the lines of devices:

- The I/O APIC sends what the delivery mode of the line's redirection entry says, unless the entry is masked
  (82093AA datasheet, 3.2.4). Fixed, lowest priority and ExtINT are maskable interrupts. Mode 110, start-up
  in an ICR, is reserved there; KVM delivers it.
- The local APIC's LINT0 has the output of the PICs behind it, and its entry in the local vector table has the
  same modes (SDM volume 3, "Local Vector Table"). The other entries have no line of a device: nothing here
  drives LINT1 or the thermal sensor, KVM's performance counters stand still with the vCPU, and the timer's
  interrupt is always maskable.

An entry that is not masked counts, whether its line will ever rise or not, and whatever its destination is: a
wait that could end must not be called endless.
"""

from __future__ import annotations

from typing import Final

from kvmbox.kvm import uapi
from kvmbox.kvm.irq_routing import PIC_PINS, ioapic_pin_of, pic_pin_of

MASKED: Final = 1 << 16
MODE_SHIFT: Final = 8
MODE_BITS: Final = 0b111

# Delivery modes, of redirection entries and of the local vector table.
SMI: Final = 0b010
NMI: Final = 0b100
INIT: Final = 0b101
STARTUP: Final = 0b110

LVT_LINT0: Final = 0x350
"""Offset of the register in the local APIC's page (SDM volume 3, "Local APIC Register Address Map")."""


def may_wake_halted(
    ioapic: uapi.kvm_ioapic_state, lapic: uapi.kvm_lapic_state, *, nmi_blocked: bool = False
) -> bool:
    """Whether a device's line could end a HLT with interrupts off. `nmi_blocked`: an NMI is being handled."""
    modes = _modes(ioapic)
    lint0 = int.from_bytes(bytes(lapic)[LVT_LINT0 : LVT_LINT0 + 4], "little")
    if not lint0 & MASKED:
        modes.add(_mode(lint0))
    return bool(modes & ({SMI, INIT} if nmi_blocked else {SMI, NMI, INIT}))


def may_start(ioapic: uapi.kvm_ioapic_state) -> bool:
    """Whether a device's line could start a vCPU that waits for a start-up IPI."""
    return STARTUP in _modes(ioapic)


def is_masked(
    gsi: int, pics: tuple[uapi.kvm_pic_state, uapi.kvm_pic_state], ioapic: uapi.kvm_ioapic_state
) -> bool:
    """Whether no controller passes on interrupt line `gsi` now: the PICs, master first, and the I/O APIC."""
    pic_pin, ioapic_pin = pic_pin_of(gsi), ioapic_pin_of(gsi)
    in_pics = pic_pin is None or bool(pics[pic_pin // PIC_PINS].imr >> pic_pin % PIC_PINS & 1)
    return in_pics and (ioapic_pin is None or bool(ioapic.redirtbl[ioapic_pin] & MASKED))


def _modes(ioapic: uapi.kvm_ioapic_state) -> set[int]:
    """The delivery modes of the entries that are not masked."""
    return {_mode(entry) for entry in ioapic.redirtbl if not entry & MASKED}


def _mode(entry: int) -> int:
    return entry >> MODE_SHIFT & MODE_BITS
