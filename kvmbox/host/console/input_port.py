"""What waits for room in a device: the input of one serial port, of the keyboard or of the mouse."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from kvmbox.host.console.escape_keys import EscapeParser

INPUT_CHUNK: Final = 4096
"""How much input is read at once, and how much of a pipe's waits here before the pipe has to wait."""
OFFER_SIZE: Final = 64
"""How many bytes of input one request offers to a device: more than the FIFO of a UART holds."""


class InputPort:
    """Host input of one of them: `pending` waits for room in the device."""

    __slots__ = ("_unit", "descriptor", "ended", "escapes", "is_pty", "name", "pending", "waiting_for_room")

    def __init__(
        self,
        name: str,
        descriptor: int,
        *,
        is_pty: bool = False,
        escapes: EscapeParser | None = None,
        pending: bytearray | None = None,
        unit: int = 1,
    ) -> None:
        """`descriptor` is -1 where other threads append to `pending`; the main loop takes from its front.
        `unit` bytes belong together: each offer is a multiple of them.
        """
        self._unit = unit
        self.name = name
        self.descriptor = descriptor
        self.is_pty = is_pty
        self.escapes = escapes
        self.pending = bytearray() if pending is None else pending
        self.waiting_for_room = False
        self.ended = False

    @property
    def wants_more(self) -> bool:
        """Whether the descriptor should be read: a terminal always, or Ctrl-A X would wait for the guest."""
        if self.ended or self.descriptor < 0:
            return False
        return self.escapes is not None or len(self.pending) < INPUT_CHUNK

    @property
    def can_send(self) -> bool:
        """Whether there is something to offer and the device may take it."""
        return bool(self.pending) and not self.waiting_for_room

    def offer(self, size: int) -> bytes:
        """What comes next for the device, `size` bytes at most."""
        return bytes(self.pending[: size - size % self._unit])

    def accept(self, count: int) -> None:
        """The device has taken so many bytes of the last offer."""
        del self.pending[:count]
