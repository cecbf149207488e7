"""What the small models share: they have byte ports, no time and no host input.

A model gives `_read_byte` and `_write_byte` and says how many ports it has; the rest of the device contract
(see model.py) is here. Accesses wider than a byte are taken apart, low byte first, as the bus does it.
"""

from __future__ import annotations

from kvmbox.devices.model import Effect, SnapshotError


class TimelessModel:
    """Base of models whose state changes by accesses only. `now` is accepted everywhere and not used."""

    __slots__ = ("_effects",)

    whole_sizes: frozenset[int] = frozenset()
    port_count = 1

    def __init__(self) -> None:
        self._effects: list[Effect] = []

    def _read_byte(self, offset: int) -> int:
        """What the guest reads at `offset`, which is one of the model's ports."""
        raise NotImplementedError

    def _write_byte(self, offset: int, value: int) -> None:
        """The guest writes `value`, 0..255, at `offset`, which is one of the model's ports."""
        raise NotImplementedError

    def read(self, now: int, offset: int, size: int) -> int:
        """See DeviceModel. Offsets beyond the ports give ones; a size that no access has gives 0."""
        if size == 1:
            return self._read_byte(offset) if 0 <= offset < self.port_count else 0xFF
        value = 0
        for position in range(size if size in (2, 4, 8) else 0):
            value |= self.read(now, offset + position, 1) << 8 * position
        return value

    def write(self, now: int, offset: int, size: int, value: int) -> None:
        """See DeviceModel. Offsets beyond the ports and sizes that no access has drop the value."""
        if size == 1:
            if 0 <= offset < self.port_count:
                self._write_byte(offset, value & 0xFF)
            return
        for position in range(size if size in (2, 4, 8) else 0):
            self.write(now, offset + position, 1, value >> 8 * position)

    def advance(self, now: int) -> None:
        """See DeviceModel. Time changes nothing."""

    def next_deadline(self) -> int | None:
        """See DeviceModel. Never."""
        return None

    def receive(self, now: int, data: bytes) -> int:
        """See DeviceModel. There is no host input."""
        return 0

    def take_effects(self) -> list[Effect]:
        """See DeviceModel."""
        effects = self._effects
        self._effects = []
        return effects


def check_snapshot(state: bytes, magic: bytes, size: int) -> None:
    """Raise SnapshotError unless `state` has `size` bytes and begins with `magic` (name and version)."""
    if len(state) != size or not state.startswith(magic):
        raise SnapshotError(f"not a snapshot of this model and version ({magic!r}, {size} bytes)")
