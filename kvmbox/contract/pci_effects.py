"""The effects of PCI: where base address registers decode, and how interrupts travel.

The VMM owns the bus. What a model says here is a wish: the VMM looks whether the place was granted, and
whether nothing else is there (`remote.bus.pci_fabric`).
"""

from __future__ import annotations

from kvmbox.contract.model import Effect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

INTX_OFF: Final = 1 << 0
MSIX_ON: Final = 1 << 1
MSIX_MASKED: Final = 1 << 2


class Decode(Effect):
    """Base address register `bar` of `function` decodes from `address` on: `enabled` is 1, or not any more.

    `function` is the number of device and function as configuration addresses have it (device << 3 | number).
    """

    __slots__ = ("address", "bar", "enabled", "function")
    __match_args__ = ("function", "bar", "address", "enabled")

    def __init__(self, function: int, bar: int, address: int, enabled: int) -> None:
        self.function = function
        self.bar = bar
        self.address = address
        self.enabled = enabled


class Route(Effect):
    """The interrupt router passes PCI interrupt `pin` (0 to 3: A to D) to ISA interrupt `line`; with
    `enabled` 0 to none.
    """

    __slots__ = ("enabled", "line", "pin")
    __match_args__ = ("pin", "line", "enabled")

    def __init__(self, pin: int, line: int, enabled: int) -> None:
        self.pin = pin
        self.line = line
        self.enabled = enabled


class Control(Effect):
    """How `function` interrupts: `flags` are `INTX_OFF`, `MSIX_ON` and `MSIX_MASKED`."""

    __slots__ = ("flags", "function")
    __match_args__ = ("function", "flags")

    def __init__(self, function: int, flags: int) -> None:
        self.function = function
        self.flags = flags


class Message(Effect):
    """A rise of output `pin` writes `data` to `address`. While `enabled` is 0 the rise is kept.

    Of the configuration spaces: `pin` is a function, whose INTx pin is a message as long as `enabled` is 1.
    """

    __slots__ = ("address", "data", "enabled", "pin")
    __match_args__ = ("pin", "address", "data", "enabled")

    def __init__(self, pin: int, address: int, data: int, enabled: int) -> None:
        self.pin = pin
        self.address = address
        self.data = data
        self.enabled = enabled
