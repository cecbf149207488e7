"""What `--cpu host` leaves out on PVM, as masks: what `cpu_models` makes of `backend_limits`, and a test
compares.

A plain run on PVM needs no names of features, and does not load them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from kvmbox.kvm.cpuid.leaves import EAX, EBX, ECX, EDX, Leaf

HIDDEN: Final = {
    (0x1, 0): {ECX: 0x3E98_320B},
    (0x7, 0): {EBX: 0xFD3B_4938, ECX: 0x1800_5FDA, EDX: 0x03C1_010C},
    (0x7, 1): {EAX: 0x00A0_0037, EDX: 0x0008_0530},
    (0x8000_0001, 0): {ECX: 0x2021_0860, EDX: 0x0800_0000},
}
"""By leaf and subleaf: the bits of each register."""

EMPTY: Final = (0x5, 0xD, 0x1D, 0x1E, 0x24)
"""The leaves that describe hidden features."""


def usual(claimed: Sequence[Leaf]) -> list[Leaf]:
    """The leaves that KVM claims, as `--cpu host` shows them."""
    shown = []
    for leaf in claimed:
        if leaf.function in EMPTY:
            registers = dict.fromkeys((EAX, EBX, ECX, EDX), 0)
        else:
            masks = HIDDEN.get((leaf.function, leaf.index), {})
            registers = {name: leaf.register(name) & ~mask for name, mask in masks.items()}
        shown.append(leaf.with_registers(registers) if registers else leaf)
    return shown
