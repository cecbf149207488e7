"""The table of the effects of `contract.pci_effects`.

A device process loads it, and the VMM of a machine with PCI. To another VMM they are unknown effects.
"""

from __future__ import annotations

from kvmbox.contract.pci_effects import Control, Decode, Message, Route
from kvmbox.wire.effect_kinds import ARGUMENT, LEVEL, PIN, WORD_BEHIND, EffectKind, add

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

# The formatter would give each cell a line of its own.
# fmt: off
TABLE: Final = (
    EffectKind(22, "DECODE", "decode", Decode,
               ((PIN, "device and function"), (ARGUMENT, "index of the base address register"),
                (WORD_BEHIND, "address"), (LEVEL, "1: it decodes, 0: it does not")),
               grants=("PciBus",), after_write=True),
    EffectKind(23, "ROUTE", "route", Route,
               ((PIN, "PCI interrupt, 0 to 3"), (ARGUMENT, "ISA interrupt"),
                (LEVEL, "1: it goes there, 0: it goes nowhere")),
               grants=("PciBus",), after_write=True),
    EffectKind(24, "CONTROL", "control", Control,
               ((PIN, "device and function"),
                (ARGUMENT, "1: no INTx, 2: MSI-X is on, 4: all of its vectors are masked")),
               grants=("PciBus",), after_write=True),
    EffectKind(25, "MESSAGE", "message", Message,
               ((PIN, "the model's output pin, or device and function"), (WORD_BEHIND, "address"),
                (ARGUMENT, "data"), (LEVEL, "1: a rise is sent, 0: it is kept")),
               grants=("Vectors", "PciBus"), after_write=True),
)
# fmt: on

add(TABLE)
