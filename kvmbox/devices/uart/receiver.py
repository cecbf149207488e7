"""The receiver of the 16550A UART: RBR or the RCVR FIFO, their errors, and the character time-out.

Characters lie in RBR or in the 16-byte FIFO, each with its parity, framing and break bits, which LSR shows
when the character reaches the top (PC16550D 8.4). An overrun is shown at once; it keeps the FIFO and loses
the newcomer, or replaces RBR. Four character times without an arrival or a read, with the FIFO not empty,
are the character time-out (8.11).

Callers pass the guest time at which the time-out would happen, counted from the event they report.
"""

from __future__ import annotations

from kvmbox.devices.uart.registers import (
    FCR_TRIGGER_SHIFT,
    FIFO_SIZE,
    LSR_DR,
    LSR_ERRORS,
    LSR_FIFO_ERROR,
    LSR_OE,
    NEVER,
    TRIGGER_LEVELS,
)


class Receiver:
    """The receiving half. `status` is its part of LSR: all but THRE and TEMT."""

    __slots__ = (
        "capacity",
        "characters",
        "errors",
        "fifo",
        "rbr",
        "status",
        "timeout_at",
        "timeout_pending",
        "trigger",
    )

    def __init__(self) -> None:
        self.characters = bytearray()
        self.errors = bytearray()  # of each character, LSR bits that are not shown yet
        self.rbr = 0  # the last character that arrived without FIFOs
        self.status = 0
        self.timeout_pending = False
        self.timeout_at = NEVER
        self.configure(0)

    def configure(self, fcr: int) -> None:
        """Take FCR's enable and trigger bits; the caller clears when the former changes."""
        self.fifo = bool(fcr)
        self.capacity = FIFO_SIZE if fcr else 1
        self.trigger = TRIGGER_LEVELS[fcr >> FCR_TRIGGER_SHIFT] if fcr else 1

    def clear(self) -> None:
        """Forget all characters, and their errors with them; an overrun is the receiver's own."""
        self.characters.clear()
        self.errors.clear()
        self.status &= LSR_OE
        self.timeout_pending = False
        self.timeout_at = NEVER

    def accept(self, data: bytes, timeout_at: int) -> None:
        """Sound characters arrive, at least one and as many as fit at most."""
        self.characters += data
        self.errors += bytes(len(data))
        if not self.fifo:
            self.rbr = data[-1]
        self.status |= LSR_DR
        self._start_timeout(timeout_at)

    def arrive(self, character: int, errors: int, timeout_at: int) -> None:
        """A character is complete; `errors` are the PE, FE and BI bits that belong to it."""
        if not self.fifo:
            if self.characters:
                self.status |= LSR_OE
            self.characters[:] = bytes((character,))
            self.errors[:] = b"\0"
            self.rbr = character
            self.status |= errors
        elif len(self.characters) >= FIFO_SIZE:
            self.status |= LSR_OE
        else:
            self.characters.append(character)
            self.errors.append(errors)
            if errors:
                self.status |= LSR_FIFO_ERROR
            self._show_errors_of_top()
        self.status |= LSR_DR
        self._start_timeout(timeout_at)

    def read(self, timeout_at: int) -> int:
        """Read RBR. With nothing there, an empty FIFO gives 0 and RBR its last character."""
        if not self.characters:
            return 0 if self.fifo else self.rbr
        character = self.characters.pop(0)
        self.errors.pop(0)
        if self.characters:
            self._show_errors_of_top()
        else:
            self.status &= ~LSR_DR
        self.timeout_pending = False
        self._start_timeout(timeout_at)
        return character

    def acknowledge_errors(self) -> None:
        """LSR was read. FIFO error stays while characters further down have errors to show (8.4, bit 7)."""
        self.status &= ~LSR_ERRORS
        if not any(self.errors):
            self.status &= ~LSR_FIFO_ERROR

    def time_out(self) -> None:
        """`timeout_at` has come."""
        self.timeout_at = NEVER
        self.timeout_pending = True

    def _show_errors_of_top(self) -> None:
        self.status |= self.errors[0]
        self.errors[0] = 0

    def _start_timeout(self, timeout_at: int) -> None:
        waits = self.fifo and self.characters and not self.timeout_pending
        self.timeout_at = timeout_at if waits else NEVER
