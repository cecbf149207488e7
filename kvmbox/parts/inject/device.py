"""A device with faults, as the bus sees it: each access passes here, and none by a fast path."""

from __future__ import annotations

from collections.abc import Sequence

from kvmbox.parts.inject.device_faults import DeviceFaults
from kvmbox.parts.inject.fault_table import ALL_ONES, SPURIOUS_IRQ, VANISH
from kvmbox.parts.inject.line import FaultyLine
from kvmbox.remote.bus.routing import BusDevice


class FaultyDevice:
    """`device` with `faults`, whose pins are `lines`. Thread-safe if `device` is."""

    def __init__(self, device: BusDevice, faults: DeviceFaults, lines: Sequence[FaultyLine]) -> None:
        self.natural_sizes = device.natural_sizes
        self._device = device
        self._faults = faults
        self._lines = lines

    def read(self, offset: int, size: int) -> int:
        """What the guest reads."""
        faults = self._faults
        faults.access()
        if faults.lasts(VANISH) or faults.happens(ALL_ONES):
            value = (1 << 8 * size) - 1
        else:
            value = self._device.read(offset, size)
        self._end()
        return value

    def write(self, offset: int, size: int, value: int) -> None:
        """What the guest writes."""
        faults = self._faults
        faults.access()
        if not faults.lasts(VANISH):
            self._device.write(offset, size, value)
        self._end()

    def _end(self) -> None:
        if not self._lines:
            return
        for line in self._lines:
            line.access_ends()
        first = self._lines[0]
        if not first.is_high and not self._faults.is_gone and self._faults.happens(SPURIOUS_IRQ):
            first.pulse()
