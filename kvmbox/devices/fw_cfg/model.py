"""fw_cfg: named and numbered items that the machine tells its guest (QEMU, docs/specs/fw_cfg.rst).

Theory of operation
-------------------

All items lie one after the other in the device's *content*, which the VMM holds (the board's `Content`
grant). The model knows their keys, places and sizes (`directory`), and the bytes of the small ones (`small`),
which come first. So an item of many megabytes, a kernel, is in no device process.

The guest selects an item, and reads it in one of two ways:

- byte by byte at the data port. Bytes of a large item come through a *window*: as soon as the place that the
  next access reads is not in it, the model asks for the next piece. The answer comes before the guest's
  access is done (a follow-up), so the window is there when the guest reads again.
- by DMA. The model asks for the guest's request block, has the VMM copy bytes of the content to guest memory,
  and writes the control word back. All of this are follow-ups of the guest's write to the address
  register: when its OUT instruction is done, so is the DMA, as on QEMU.

Registers: `offset` 0 is the selector and data port 0x510, 1 the data port 0x511, 4 to 11 are the DMA address.
"""

from __future__ import annotations

from struct import Struct

from kvmbox.contract.model import (
    DONE,
    ContentRead,
    MemoryRead,
    MemoryWrite,
    SnapshotError,
    TimelessModel,
    Transfer,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

SELECTOR: Final = 0
DATA: Final = 1
DMA_HIGH: Final = 4
DMA_LOW: Final = 8
DMA_END: Final = 12

SIGNATURE: Final = b"QEMU CFG"
"""What the DMA address reads as: by this a guest sees that there is DMA."""

KEY_MASK: Final = 0xBFFF  # bit 14, the write channel, selects nothing else

# The control word of a DMA request.
ERROR: Final = 1 << 0
READ: Final = 1 << 1
SKIP: Final = 1 << 2
SELECT: Final = 1 << 3
WRITE: Final = 1 << 4

REQUEST: Final = Struct(">IIQ")  # control, length, address
CONTROL: Final = Struct(">I")
DIRECTORY: Final = Struct("<HIQ")  # key, size, place in the content

WINDOW: Final = 64
"""How many bytes of a large item the model asks for at a time: as many as one `rep insb` exits with."""

MOST_AT_ONCE: Final = 32 << 20
"""How many bytes one transfer moves: what the grant allows."""

MOST_BY_DMA: Final = 13 * MOST_AT_ONCE
"""The longest read: the request block, 13 transfers and a window are fewer than an access may cause."""

# Tags: at most one question of each is open, and is answered before the guest's access is done.
BLOCK: Final = 1
COPY: Final = 2
PIECE: Final = 3

MAGIC: Final = b"FWC\x01"
SNAPSHOT: Final = Struct(f"<4sHIIBQQQIIQB{WINDOW}s")
NOTHING: Final = (0, 0)


class FwCfg(TimelessModel):
    """See the module.

    >>> model = FwCfg(directory=DIRECTORY.pack(0x05, 2, 0), small=b"\\x04\\x00")  # key, size, place
    >>> model.write(0, SELECTOR, 2, 0x05)
    >>> [model.read(0, DATA, 1) for _ in range(3)]
    [4, 0, 0]
    """

    def __init__(self, *, directory: bytes, small: bytes) -> None:
        """`directory` has a `DIRECTORY` entry for each item; the content begins with `small`."""
        self._items: dict[int, tuple[int, int]] = {  # by key: place in the content, size
            key: (place, size) for key, size, place in DIRECTORY.iter_unpack(directory)
        }
        self._small = small
        self._end = max((place + size for place, size in self._items.values()), default=0)
        super().__init__()
        self._power_on()

    def _power_on(self) -> None:
        self._key = 0
        self._position = 0  # in the selected item, never beyond its end
        self._high = 0  # the first half of a DMA address
        self._waits_for = 0  # the tag of the DMA's open question, or 0
        self._block = 0  # where the DMA's request block is
        self._target = 0  # where the DMA's next byte goes
        self._source = 0  # where in the content it comes from
        self._left = 0  # how many bytes of the item are still to be copied
        self._zeros = 0  # and how many zeros after them
        self._window = b""
        self._window_place = 0  # of its first byte, in the content
        self._asked_for = False  # whether the window is on its way

    # --- Accesses -------------------------------------------------------------------------------------

    def read(self, now: int, offset: int, size: int) -> int:
        """See DeviceModel. The selector is not readable: two bytes there are 0, as on QEMU."""
        if offset in (SELECTOR, DATA) and size == 1:
            return self._next_byte()
        if offset == SELECTOR and size == 2:
            return 0
        if offset >= DMA_HIGH and offset + size <= DMA_END:
            return int.from_bytes(SIGNATURE[offset - DMA_HIGH : offset - DMA_HIGH + size], "little")
        return (1 << 8 * size) - 1

    def write(self, now: int, offset: int, size: int, value: int) -> None:
        """See DeviceModel. No item can be written: a byte to the data port is dropped."""
        if offset == SELECTOR and size == 2:
            self._select(value & 0xFFFF)
            self._look_ahead()
        elif offset == DMA_HIGH and size == 8:
            self._begin(_swapped(value, 8))
        elif offset == DMA_HIGH and size == 4:
            self._high = _swapped(value, 4)
        elif offset == DMA_LOW and size == 4:
            self._begin(self._high << 32 | _swapped(value, 4))

    def _select(self, key: int) -> None:
        self._key = key & KEY_MASK
        self._position = 0

    def _next_byte(self) -> int:
        place, size = self._items.get(self._key, NOTHING)
        if self._position >= size:
            return 0
        place += self._position
        if place < len(self._small):
            byte = self._small[place]
        else:
            index = place - self._window_place
            if not 0 <= index < len(self._window):
                return 0  # nobody has answered: then nothing is skipped either
            byte = self._window[index]
        self._position += 1
        self._look_ahead()
        return byte

    def _look_ahead(self) -> None:
        """Ask for a piece of the selected item, if the next byte to be read is in no piece that is here."""
        place, size = self._items.get(self._key, NOTHING)
        left = size - self._position
        place += self._position
        here = self._window_place <= place < self._window_place + len(self._window)
        if left <= 0 or here or place < len(self._small):
            return
        self._window_place, self._window = place, b""
        self._asked_for = True
        self._effects.append(ContentRead(PIECE, 0, place, min(WINDOW, left)))

    # --- DMA --------------------------------------------------------------------------------------------

    def _begin(self, address: int) -> None:
        self._high = 0
        self._block = address
        self._waits_for = BLOCK
        self._effects.append(MemoryRead(BLOCK, [(address, REQUEST.size)]))

    def memory(self, now: int, tag: int, data: bytes | None) -> None:
        """See MemoryModel."""
        if tag == PIECE and self._asked_for:
            self._asked_for = False
            self._window = (data or b"")[:WINDOW]
        elif tag == BLOCK and self._waits_for == BLOCK:
            if data is None or len(data) != REQUEST.size:
                self._finish(ERROR)
            else:
                self._obey(*REQUEST.unpack(data))

    def _obey(self, control: int, length: int, address: int) -> None:
        if control & SELECT:
            self._select(control >> 16)
        place, size = self._items.get(self._key, NOTHING)
        count = min(length, size - self._position)
        self._source, self._target = place + self._position, address
        self._left = self._zeros = 0
        if control & READ:
            if length > MOST_BY_DMA:
                self._finish(ERROR)
                return
            self._left, self._zeros = count, length - count
        elif control & WRITE:
            self._position += count
            self._finish(ERROR if length else 0)
            return
        elif not control & SKIP:
            count = 0
        self._position += count
        self._copy()

    def _copy(self) -> None:
        """Have the next bytes copied, or finish."""
        if not self._left and not self._zeros:
            self._finish(0)
            return
        if not self._left:
            self._source = self._end  # behind it there are zeros
        size = min(self._left or self._zeros, MOST_AT_ONCE)
        self._waits_for = COPY
        self._effects.append(Transfer(COPY, 0, self._source, [(self._target, size)], 1))

    def complete(self, now: int, tag: int, status: int) -> None:
        """See MemoryModel."""
        if tag != COPY or self._waits_for != COPY:
            return
        if status != DONE:
            self._finish(ERROR)
            return
        size = min(self._left or self._zeros, MOST_AT_ONCE)
        self._source += size
        self._target = self._target + size & (1 << 64) - 1
        if self._left:
            self._left -= size
        else:
            self._zeros -= size
        self._copy()

    def _finish(self, control: int) -> None:
        self._waits_for = 0
        self._target = self._source = self._left = self._zeros = 0
        self._effects.append(MemoryWrite(self._block, CONTROL.pack(control)))
        self._look_ahead()

    # --- The rest of the contract -------------------------------------------------------------------------

    def reset(self, now: int) -> None:
        """See DeviceModel. The first item, the signature, is selected."""
        self._power_on()

    def snapshot(self) -> bytes:
        """See DeviceModel."""
        return SNAPSHOT.pack(
            MAGIC,
            self._key,
            self._position,
            self._high,
            self._waits_for | self._asked_for << 7,
            self._block,
            self._target,
            self._source,
            self._left,
            self._zeros,
            self._window_place,
            len(self._window),
            self._window,
        )

    def restore(self, state: bytes) -> None:
        """See DeviceModel."""
        if len(state) != SNAPSHOT.size or not state.startswith(MAGIC):
            raise SnapshotError(
                f"not a snapshot of this model and version ({MAGIC!r}, {SNAPSHOT.size} bytes)"
            )
        _, key, position, high, waits, block, target, source, left, zeros, place, length, window = (
            SNAPSHOT.unpack(state)
        )
        waits_for, asked_for = waits & 0x7F, bool(waits & 0x80)
        if key & ~KEY_MASK or position > self._items.get(key, NOTHING)[1]:
            raise SnapshotError(f"byte {position} of item {key:#x}")
        if waits_for > COPY or left + zeros > MOST_BY_DMA or source + left > self._end:
            raise SnapshotError(f"a DMA in state {waits_for}, {left} and {zeros} bytes from {source}")
        if (waits_for == COPY) != bool(left or zeros):
            raise SnapshotError(f"a DMA in state {waits_for} with {left} and {zeros} bytes to go")
        if length > WINDOW or any(window[length:]) or place > self._end or (asked_for and length):
            raise SnapshotError(f"a window of {length} bytes at {place}")
        self._key, self._position, self._high = key, position, high
        self._waits_for, self._asked_for = waits_for, asked_for
        self._block, self._target, self._source = block, target, source
        self._left, self._zeros = left, zeros
        self._window_place, self._window = place, window[:length]
        self._effects = []


def _swapped(value: int, size: int) -> int:
    """A big-endian register, as the guest's little-endian access has it."""
    return int.from_bytes((value & (1 << 8 * size) - 1).to_bytes(size, "little"), "big")
