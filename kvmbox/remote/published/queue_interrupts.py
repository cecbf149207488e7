"""What the interrupt of a device with virtqueues is for (VIRTIO 1.2, 4.2.2, and 4.1.4.5): the VMM knows.

It gives chains back, and sees in the ring whether the guest wants an interrupt for that. So reads of the
register, and the acknowledgement, are no requests. Acknowledged is what interrupts by pin 0. The other pins
are vectors of MSI-X, which are edges.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

USED_BUFFER = 1
CONFIG_CHANGE = 2


class QueueInterrupts:
    """The causes of one device's interrupt. Used under the lock of its channel."""

    def __init__(self) -> None:
        self.status = 0
        """The causes that the guest has not acknowledged."""
        self.lines: Sequence[Callable[[int, int], None]] = ()
        """The device's interrupt lines, by pin."""

    def add(self, cause: int, pin: int, *, raises: bool) -> None:
        """There is a cause. `raises`: the guest wants an interrupt for it, by this pin."""
        self.status |= cause
        if raises and pin < len(self.lines):
            self.lines[pin](1, 0)

    def acknowledge(self, causes: int) -> None:
        """The guest has handled these causes. When none is left, the line falls."""
        before = self.status
        self.status &= ~causes
        if before and not self.status and self.lines:
            self.lines[0](0, 0)

    def take(self) -> int:
        """The causes, which are acknowledged by that."""
        found = self.status
        self.acknowledge(found)
        return found

    def forget(self) -> None:
        """The device is reset."""
        self.take()
