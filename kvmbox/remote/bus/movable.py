"""A bus whose mappings change while the guest runs: that of a machine with PCI.

A change is one assignment of a list, so that whoever looks for a mapping sees the bus before it, or after it.
What a vCPU has learnt of the bus (`run.vcpu.exit_routes`) is out of date then. Each vCPU is told, and forgets
all of it before its next exit is routed. So the routed exit costs what it costs on other buses, and a write
that moves a mapping is over only when no CPU takes the old route any more.
"""

from __future__ import annotations

from collections.abc import Callable

from kvmbox.remote.bus.routing import Bus, Mapping


class MovingBus(Bus):
    """See the module. Changes are made under a lock of the caller."""

    def __init__(self, address_bits: int) -> None:
        super().__init__(address_bits)
        self._watchers: list[Callable[[], None]] = []

    def watch(self, changed: Callable[[], None]) -> bool:
        """See Bus."""
        self._watchers.append(changed)
        return True

    def forget_watchers(self) -> None:
        """The vCPUs that have asked are gone."""
        self._watchers = []

    def move(self, old: list[Mapping], new: list[Mapping]) -> bool:
        """Have `new` instead of `old`, or, if there is no room for `new`, nothing. Returns whether it is."""
        before = self._mappings
        self._mappings = [one for one in before if one not in old]
        try:
            for mapping in new:
                self.attach(mapping)
            fits = True
        except ValueError:
            self._mappings = [one for one in self._mappings if one not in new]
            fits = False
        for changed in self._watchers:
            changed()
        return fits
