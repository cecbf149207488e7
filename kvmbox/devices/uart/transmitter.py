"""The transmitter of the 16550A UART: THR or the XMIT FIFO, the shift register, and their timing.

THR or the 16-byte FIFO feeds the shift register. THRE is set when the former is empty, TEMT when both are
(PC16550D 8.4). In FIFO mode THRE comes late, by one character less its last stop bit, unless the FIFO has
held two characters since THRE was last set (8.11).

Only a paced UART queues characters here. Without pacing a character has gone before the write of THR
returns, so THRE and TEMT are always set and only the interrupt's flag moves.
"""

from __future__ import annotations

from kvmbox.devices.uart.registers import FIFO_SIZE, LSR_TEMT, LSR_THRE, LSR_TRANSMITTER, NEVER, LineTiming


class Transmitter:
    """The transmitting half. `status` is its part of LSR: THRE and TEMT."""

    __slots__ = ("burst", "characters", "fifo", "shift", "shift_done_at", "status", "thre_at", "thre_pending")

    def __init__(self) -> None:
        self.fifo = False
        self.reset()

    def reset(self) -> None:
        """Everything is lost, the shift register's character too."""
        self.characters = bytearray()
        self.shift = 0  # the character that is going out
        self.shift_done_at = NEVER  # when it has gone
        self.thre_at = NEVER  # when THRE is set, if that is delayed
        self.burst = False  # the FIFO has held two characters since THRE was last set
        self.status = LSR_TRANSMITTER
        self.thre_pending = False  # the THRE interrupt is not acknowledged

    def clear(self) -> None:
        """Forget what is queued; the shift register goes on (8.5, bit 2)."""
        self.characters.clear()
        self._thr_is_empty()

    def write(self, value: int) -> None:
        """Queue a character: a full THR is replaced, a full FIFO drops the newcomer."""
        if not self.fifo:
            self.characters.clear()
        if len(self.characters) < FIFO_SIZE:
            self.characters.append(value)
        if len(self.characters) > 1:
            self.burst = True
        self.status &= ~LSR_TRANSMITTER
        self.thre_pending = False
        self.thre_at = NEVER

    def load_if_idle(self, at: int, timing: LineTiming) -> None:
        """Let the next character into the shift register, unless one is there."""
        if self.shift_done_at != NEVER:
            return
        self.shift = self.characters.pop(0) & timing.word_mask
        self.shift_done_at = at + timing.character
        if not self.characters:
            if self.fifo and not self.burst:
                self.thre_at = at + timing.thre_delay
            else:
                self._thr_is_empty()

    def next_at(self) -> int:
        """When `step` is due."""
        return min(self.shift_done_at, self.thre_at)

    def step(self, at: int, timing: LineTiming) -> int | None:
        """`next_at` has come: THRE is set, or a character has gone, which is returned."""
        if at == self.thre_at:
            self._thr_is_empty()
            return None
        gone, self.shift = self.shift, 0
        self.shift_done_at = NEVER
        if self.characters:
            self.load_if_idle(at, timing)
        else:
            self.status |= LSR_TEMT
        return gone

    def _thr_is_empty(self) -> None:
        self.status |= LSR_THRE
        self.thre_pending = True
        self.thre_at = NEVER
        self.burst = False
