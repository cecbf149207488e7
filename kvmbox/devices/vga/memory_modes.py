"""Whose the memory of a VGA is: plain memory of the guest, or planes of the device.

At power-on, 0xA0000 to 0xBFFFF is plain memory of the guest, and there are no planes. It stays so while the
registers leave the window a way in which it can be plain (`planes.plain_way`): text, CGA modes and mode
13h cause no exit. When the registers take that way away, the device asks for the window (`Aperture`): the VMM
takes it out of guest memory, and `take` gets its bytes, which go to the planes. From then on accesses come to
the device. When a way is there again, and enough accesses have come since, the device says that the window
may be plain. The VMM fills it from the planes of a snapshot, and `is_given` hears of it. Each time
takes twice as many accesses, so that a guest which changes its mind at each frame soon has no more of this.
"""

from __future__ import annotations

from struct import Struct

from kvmbox.contract.bulk_data import Aperture
from kvmbox.contract.model import ModelBase, SnapshotError
from kvmbox.devices.vga.planes import PLANES_SIZE, TEXT_WAY, WINDOW, WINDOW_SIZE, Planes, is_way, plain_way

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final

MOST_BYTES: Final = 4
"""What one late write has."""
MOST_WRITTEN: Final = 1 << 30

_STATE: Final = Struct("<2B 3I 3I B Q")  # behind it: the blocks of the planes that are not zero
_BLOCK: Final = 4096
_BLOCKS: Final = PLANES_SIZE // _BLOCK
_EMPTY: Final = bytes(_BLOCK)
_FIRST_PATIENCE: Final = 32
_LAST_PATIENCE: Final = 1 << 20


class VgaMemory(ModelBase):
    """The memory. `sequencer` and `graphics` are the registers, whose owner says when they have changed."""

    def __init__(self, sequencer: bytearray, graphics: bytearray) -> None:
        self.sequencer, self.graphics = sequencer, graphics
        super().__init__()
        self._planes: Planes | None = None
        self._is_plain = True
        self._way = plain_way(sequencer, graphics) or TEXT_WAY
        """The way in which the window is plain, or was at last."""
        self._touched = 0
        """Accesses since a register has changed that decides what they mean."""
        self._asked = 0
        """Whether the VMM has been told that it may be plain."""
        self._patience = _FIRST_PATIENCE

    def _have_planes(self) -> Planes:
        if self._planes is None:
            self._planes = Planes(self.sequencer, self.graphics)
        return self._planes

    # --- For the VMM --------------------------------------------------------------------------------------

    @property
    def plain(self) -> tuple[int, int] | None:
        """Address and size of the memory of the guest that has bytes of the planes; None if none has."""
        return self._way[1:3] if self._is_plain else None

    def planes_with(self, window: bytes) -> bytes:
        """All planes, where guest memory has the bytes of `plain`."""
        planes = Planes(self.sequencer, self.graphics)
        if self._planes is not None:
            planes.data[:] = self._planes.data
        if self._is_plain:
            planes.scatter(self._way, 0, window)
        return bytes(planes.data)

    @property
    def text(self) -> bytes:
        """The first 32 KiB of text that the planes have."""
        return self._have_planes().gather(TEXT_WAY)

    @property
    def offered(self) -> tuple[int, bytes] | None:
        """Address and bytes of the window, if it is not plain memory and could be."""
        way = plain_way(self.sequencer, self.graphics)
        if self._is_plain or way is None:
            return None
        return way[1], self._have_planes().gather(way)

    # --- For the device -----------------------------------------------------------------------------------

    def registers_changed(self) -> None:
        """A register has changed that decides what accesses mean."""
        self._touched = self._asked = 0
        if self._is_plain and plain_way(self.sequencer, self.graphics) != self._way:
            self._is_plain = False
            self._patience = min(2 * self._patience, _LAST_PATIENCE)
            self._effects.append(Aperture(0, *self._way[1:3]))

    def read(self, address: int) -> int:
        """What the guest reads at an address, where the window is not plain memory; ones outside of it."""
        return self._touch().read(address) if address < WINDOW + WINDOW_SIZE else 0xFF

    def write(self, address: int, value: int) -> None:
        """The guest writes a byte there."""
        if address < WINDOW + WINDOW_SIZE:
            self._touch().write(address, value)

    @property
    def has_effects(self) -> bool:
        """Whether `take_effects` has something to take."""
        return bool(self._effects)

    def write_words(self, words: Sequence[int], start: int) -> int:
        """Make the writes that `VGA_LATE_WRITES` takes, from number `start` on, as far as that is simple: to
        planes, and not so many that the VMM might be told of it. How many were made; none of them has had an
        effect.
        """
        may_tell = not self._asked and plain_way(self.sequencer, self.graphics) is not None
        most = self._patience - self._touched - MOST_BYTES if may_tell else MOST_WRITTEN
        if self._is_plain or most <= 0:
            return 0
        count, size = self._have_planes().write_words(words, start, most)
        if not self._asked:
            self._touched = (self._touched + size) % self._patience
        return count

    def _touch(self) -> Planes:
        """The planes, for an access. Says when there were enough for the window to be plain."""
        if not self._asked:
            self._touched += 1
        if self._touched >= self._patience:
            self._touched = 0
            if not self._is_plain and plain_way(self.sequencer, self.graphics) is not None:
                self._asked = 1
                self._effects.append(Aperture(1, WINDOW, WINDOW_SIZE))
        return self._planes or self._have_planes()

    def take(self, offset: int, data: bytes) -> None:
        """Bytes that the window had as plain memory, from `offset` on."""
        planes = self._have_planes()
        if not self._is_plain:
            planes.scatter(self._way, offset, data)

    def is_given(self) -> None:
        """The window is plain memory now, with what the planes had there."""
        way = plain_way(self.sequencer, self.graphics)
        if way is not None:
            self._is_plain, self._way = True, way
            self._touched = self._asked = 0
            self._have_planes().scatter(way, 0, bytes(way[2]))  # the guest has them

    # --- Snapshots ----------------------------------------------------------------------------------------

    def snapshot(self) -> bytes:
        """All but the registers."""
        planes = self._planes
        blocks = [] if planes is None else [planes.data[_BLOCK * n :][:_BLOCK] for n in range(_BLOCKS)]
        used = sum(1 << number for number, block in enumerate(blocks) if block != _EMPTY)
        state = _STATE.pack(
            *(self._is_plain, self._asked, self._touched, self._patience),
            *(0 if planes is None else planes.latch, *self._way[:3], self._way[3], used),
        )
        return state + b"".join([block for block in blocks if block != _EMPTY])

    def restore(self, state: bytes) -> None:
        """Become what `snapshot` saw, with the same registers. Raises SnapshotError, without effect."""
        if len(state) < _STATE.size:
            raise SnapshotError("a VGA without its memory")
        is_plain, asked, touched, patience, latch, kind, first, size, plane, used = _STATE.unpack_from(state)
        way, blocks = (kind, first, size, plane), state[_STATE.size :]
        if (
            is_plain > 1
            or asked > 1
            or not is_way(way)
            or (is_plain and plain_way(self.sequencer, self.graphics) != way)
            or not _FIRST_PATIENCE <= patience <= _LAST_PATIENCE
            or touched > patience
            or len(blocks) != used.bit_count() * _BLOCK
        ):
            raise SnapshotError("a state that the memory of a VGA cannot have")
        self._is_plain, self._asked, self._way = bool(is_plain), asked, way
        self._touched, self._patience = touched, patience
        self._planes = None
        if latch or used:
            planes = self._have_planes()
            planes.latch = latch
            places = [_BLOCK * number for number in range(_BLOCKS) if used >> number & 1]
            for at, place in enumerate(places):
                planes.data[place : place + _BLOCK] = blocks[_BLOCK * at : _BLOCK * (at + 1)]
