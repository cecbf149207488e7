"""The window of a device: the next bytes of a medium at its data register, served without the device.

A model opens it with the effect `Window`. To the guest: the bytes are read first, at once or by the transfer
thread; then the guest reads them here. From the guest: it writes here at once, and behind the last byte they
go to the medium. The device is told of both ends by COMPLETE, which follows the access: no byte of the medium
ever reaches it, and a sector costs two requests instead of 256.

A window belongs to the VMM. So the process behind the device may be lost and replaced at any moment, and the
window is what it was. A window is used under the lock of the channel.

An access is served as a whole or not at all. What does not fit in what is left goes to the model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from kvmbox.base.value_classes import Value
from kvmbox.contract.bulk_data import QUIET_END, QUIET_START, RISES
from kvmbox.contract.model import BEYOND_END, BUSY, DONE, MOVED
from kvmbox.host.disk.transfers import status_of
from kvmbox.remote.channel.effect_calls import FollowUp, Posted
from kvmbox.remote.published.medium import MediumAccess, complete
from kvmbox.wire.protocol import COMPLETE

CLOSED: Final = 0
READS: Final = 1
WRITES: Final = 2
"""What the guest may do at a window."""


class Opening:
    """What a `Window` effect has said. `data` is what the transfer thread has read, if it was that."""

    __slots__ = ("data", "device", "medium", "offset", "resource", "size", "tag", "to_guest")

    def __init__(
        self,
        device: int,
        resource: int,
        medium: MediumAccess,
        tag: int,
        offset: int,
        size: int,
        to_guest: int = 0,
    ) -> None:
        self.device = device
        self.to_guest = to_guest
        self.resource = resource
        self.medium = medium
        self.tag = tag
        self.offset = offset
        self.size = size
        self.data = b""

    def read(self) -> int:
        """Read the bytes, by the transfer thread; the status."""
        try:
            self.data = self.medium.store.read(self.offset, self.size)
        except OSError as error:
            return status_of(error)
        return DONE

    def told(self, *statuses: int, quiet: int = 0) -> list[FollowUp]:
        """What tells the device; later, if the window said that this is `quiet`."""
        if self.to_guest & quiet:
            return [Posted(COMPLETE, self.device, self.tag | statuses[0] << 32)]
        return [complete(self.device, *((self.tag, status) for status in statuses))]


class WindowState(Value):
    """An open window in a snapshot. `data` has the bytes for the guest, or what it has written so far."""

    resource: int
    tag: int
    offset: int
    size: int
    use: int
    position: int
    data: bytes


class DataWindow:
    """The window of one device, at its register `register`. Used under the lock of its channel."""

    def __init__(self, register: int) -> None:
        self.register = register
        self.use = CLOSED
        self.position = 0
        self.end = 0
        self._data = bytearray()
        self._opening: Opening | None = None
        self.line: Callable[[int, int], None] | None = None
        """The device's output pin 0, if it has one."""

    # --- What the device asks for -------------------------------------------------------------------------

    def open(
        self,
        device: int,
        resource: int,
        medium: MediumAccess,
        tag: int,
        offset: int,
        size: int,
        to_guest: int,
    ) -> list[FollowUp]:
        """What a `Window` effect does, which was granted."""
        self.drop()
        if not size:
            return []
        opening = Opening(device, resource, medium, tag, offset, size, to_guest)
        if not medium.has(offset, size):
            return opening.told(BEYOND_END)
        if not to_guest:
            self._opening = opening
            self._start(bytearray(size), WRITES)
            return []
        found = medium.read_now(offset, size)
        if isinstance(found, int):
            return opening.told(found)
        self._opening = opening
        if found is not None:
            self._start(bytearray(found), READS)
            return self.begun(opening)
        if medium.submit(tag, opening.read, lambda status: self._arrived(opening, status)):
            return []
        self.drop()
        return opening.told(BUSY)

    def begun(self, opening: Opening) -> list[FollowUp]:
        """What tells the device that the guest can read, without having waited."""
        if opening.to_guest & RISES and self.line is not None:
            self.line(1, 0)
        return opening.told(DONE, quiet=QUIET_START)

    def _arrived(self, opening: Opening, status: int) -> bool:
        """What was to be read is there, or could not be read. Whether the device still waits for it."""
        if self._opening is not opening:
            return False
        if status == DONE:
            self._start(bytearray(opening.data), READS)
        else:
            self.drop()
        return True

    def drop(self) -> None:
        """There is no window any more."""
        self._opening = None
        self._start(bytearray(), CLOSED)

    def _start(self, data: bytearray, use: int) -> None:
        self.hold(data)
        self.position, self.end, self.use = 0, len(data), use

    def guarded_by(self, lock: object) -> None:
        """`lock` is that of the channel."""

    def hold(self, data: bytearray) -> None:
        """These are the bytes from now on."""
        self._data = data

    # --- What the guest does ------------------------------------------------------------------------------

    def read_string(self, size: int, count: int) -> bytes:
        """What at most `count` reads of `size` bytes give, as far as they are served."""
        start = self.position
        self.position += self._fits(READS, size, count)
        return bytes(self._data[start : self.position])

    def write_string(self, size: int, data: bytes) -> int:
        """Take values of `size` bytes each; how many bytes of `data` that is."""
        taken = self._fits(WRITES, size, len(data) // size)
        self._data[self.position : self.position + taken] = data[:taken]
        self.position += taken
        return taken

    def _fits(self, use: int, size: int, count: int) -> int:
        """How many bytes of so many accesses are served."""
        return min(count, (self.end - self.position) // size) * size if self.use == use else 0

    def end_if_over(self) -> list[FollowUp]:
        """If the guest has moved the last byte, the window has ended: what follows."""
        opening = self._opening
        if self.use == CLOSED or self.position < self.end:
            return []
        assert opening is not None
        use, data = self.use, self._data
        self.drop()
        if use == READS:
            return opening.told(MOVED, quiet=QUIET_END)
        status = opening.medium.write(opening.tag, opening.offset, bytes(data))
        return opening.told(MOVED) if status is None else opening.told(MOVED, status)

    # --- Snapshots ----------------------------------------------------------------------------------------

    def state(self) -> WindowState | None:
        """The window, if there is one. There must be no errand on its way."""
        opening = self._opening
        if opening is None:
            return None
        data = self._data if self.use == READS else self._data[: self.position]
        return WindowState(
            opening.resource,
            opening.tag,
            opening.offset,
            opening.size,
            self.use,
            self.position,
            bytes(data),
        )

    def restore(self, device: int, medium: MediumAccess, state: WindowState) -> None:
        """Open it again as it was. ValueError for a state that cannot have been one."""
        whole = state.size if state.use == READS else state.position
        if (
            state.use not in (READS, WRITES)
            or not 0 <= state.position < state.size
            or len(state.data) != whole
            or not medium.allows(state.size, to_guest=state.use == READS)
            or not medium.has(state.offset, state.size)
        ):
            raise ValueError("a window that cannot be")
        self._opening = Opening(device, state.resource, medium, state.tag, state.offset, state.size)
        self._start(bytearray(state.data.ljust(state.size, b"\0")), state.use)
        self.position = state.position
