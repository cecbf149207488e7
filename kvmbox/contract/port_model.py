"""What models of byte ports share of the device contract (see model.py). Pure.

A model gives `_read_byte` and `_write_byte`, and says how many ports it has. Wider accesses are taken apart,
low byte first, as the bus does it.
"""

from __future__ import annotations

from kvmbox.contract.model import SnapshotError, TimelessModel


class PortModel(TimelessModel):
    """Base of models of byte ports.

    The state that a model here may have is one number below `state_count`, 0 at power-on and after a reset.
    A snapshot is `magic` (name and version), and that number as a byte if there is one.
    """

    __slots__ = ("_state",)

    port_count: int = 1
    magic: bytes = b""
    state_count: int = 0

    def __init__(self) -> None:
        super().__init__()
        self._state = 0

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

    def reset(self, now: int) -> None:
        """See DeviceModel."""
        self._state = 0

    def snapshot(self) -> bytes:
        """See DeviceModel."""
        return self.magic + bytes((self._state,)) if self.state_count else self.magic

    def restore(self, state: bytes) -> None:
        """See DeviceModel."""
        check_snapshot(state, self.magic, len(self.magic) + (self.state_count > 0))
        if self.state_count:
            if state[-1] >= self.state_count:
                raise SnapshotError(f"a state of {state[-1]}, below {self.state_count} it can be")
            self._state = state[-1]
        self._effects = []


def check_snapshot(state: bytes, magic: bytes, size: int) -> None:
    """Raise SnapshotError unless `state` has `size` bytes and begins with `magic` (name and version)."""
    if len(state) != size or not state.startswith(magic):
        raise SnapshotError(f"not a snapshot of this model and version ({magic!r}, {size} bytes)")
