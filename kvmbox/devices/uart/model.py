"""The PC16550D UART (16550A), as a PC's serial port has it.

Theory of operation
-------------------
This module has the registers, the interrupts, the modem lines and the host side; receiver.py and
transmitter.py are the two halves, which know neither; registers.py has all names and the timing.

*Transmitter.* A byte written to THR is cut to the word length and goes out. By default it has gone out
when the write returns: LSR shows THRE and TEMT always, and the THRE interrupt falls with the write and
rises again behind the character. With `pace_transmit` a character takes its time on the line.

*Host input* comes as fast as the host has it and never overruns: `receive` takes what fits. It takes
nothing in loopback, where SIN is disconnected, nor before the guest *listens*: a driver's set-up clears
the FIFOs and tests itself by loopback, and input that is there already would be lost or spoil the test.
The guest listens, until the next reset, from the first of these on:
  - IER bit 0 is set;
  - outside loopback, LSR is read twice without a write to the UART in between, both reads showing the
    transmitter empty (a loop that prints reads LSR once before each write to THR);
  - the same with RBR, both reads finding no character.
The modem outputs DTR and RTS are no sign: drivers raise them before they test themselves by loopback.
When input was refused, InputRoom follows as soon as the guest listens outside loopback and the FIFO is below
its trigger level: a guest that reads just that much per interrupt gets its next one, as from a real line.
It does not follow at the first free place, for then each character would cost a message of its own.

*Interrupts.* Four sources, each with its enable bit, are ordered by priority in IIR (8.6). The line of the
board follows INTR. PCs pass INTR on while OUT2 is set, which the datasheet leaves to the board. Here OUT2
has no effect, as in QEMU: xv6 and kernels made after it clear OUT2 and wait for interrupts. IIR and the
level of the line always follow from the registers: `_update_interrupt` is called wherever one of them
changed.

*Line control before its first write.* LCR is 0 after reset, which means 5-bit words; but until the guest
first writes LCR the line works as firmware would have left it, with 8 data bits, no parity and 1 stop
bit. Many small guests print without any set-up.

docs/devices/uart.md lists every register, mode and interrupt, and what departs from the datasheet.
"""

from __future__ import annotations

from kvmbox.contract.model import (
    NANOSECONDS,
    PULSES,
    HostOutput,
    InputRoom,
    IrqLine,
    LateWrites,
    ModelBase,
    first_behind_late_writes,
    steady_for,
)
from kvmbox.devices.uart import registers as reg
from kvmbox.devices.uart import snapshot as snap
from kvmbox.devices.uart.receiver import Receiver
from kvmbox.devices.uart.transmitter import Transmitter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

INTR_PIN: Final = 0
"""The model-local pin of the one interrupt line."""

# Effects that are the same each time are made once: they are immutable, and a UART makes many.
_OUTPUTS: Final = tuple(HostOutput(bytes((character,))) for character in range(256))
_LINE_LEVELS: Final = (IrqLine(INTR_PIN, 0), IrqLine(INTR_PIN, 1))

# The guest cannot tell when a character was taken, until it looks, but by the interrupt of the transmitter.
_LATE_THR: Final = tuple(LateWrites(reg.THR, allowed) for allowed in (0, 1, PULSES))

_PLAIN_REGISTERS: Final = (reg.LCR, reg.MCR, reg.SCR)
_STEADY: Final = steady_for(NANOSECONDS)
_STEADY_LATE: Final = steady_for(NANOSECONDS, over_late_writes=True)
_BEHIND_LATE: Final = first_behind_late_writes(NANOSECONDS)

_CLEARED_BY_LSR_READ: Final = reg.LSR_ERRORS | reg.LSR_FIFO_ERROR


def _all_ones(size: int) -> int:
    return (1 << (8 * size)) - 1


class Uart16550A(ModelBase):
    """A DeviceModel with one interrupt pin (0), eight registers, and host input and output.

    `pace_transmit` gives the transmitter its datasheet time. `modem_inputs` are the modem lines that the
    other end asserts, as bits 4-7 of MSR; by default those of a connected terminal.

    The bus makes no access wider than a byte. One that comes all the same reaches the register at `offset`
    with its low byte, and its upper bytes read as ones.

    A guest that enables the receiver's interrupt (IER at offset 1) is interrupted:

    >>> uart = Uart16550A()
    >>> uart.write(0, 1, 1, 0x01)
    >>> uart.receive(0, b"hi")  # without FIFOs there is room for one byte
    1
    >>> uart.take_effects()
    [IrqLine(pin=0, level=1, coalesced=0)]
    >>> chr(uart.read(0, 0, 1))
    'h'
    >>> uart.take_effects()
    [IrqLine(pin=0, level=0, coalesced=0), InputRoom(count=1)]
    """

    __slots__ = (
        "_break_at",
        "_deadline",
        "_divisor",
        "_fcr",
        "_ier",
        "_iir",
        "_input_refused",
        "_late",
        "_lcr",
        "_lcr_written",
        "_listening",
        "_mcr",
        "_modem_inputs",
        "_msr",
        "_now",
        "_paced",
        "_polled_lsr",
        "_polled_rbr",
        "_receiver",
        "_scr",
        "_timing",
        "_transmitter",
    )

    def __init__(self, *, pace_transmit: bool = False, modem_inputs: int = reg.MSR_CONNECTED) -> None:
        self._paced = bool(pace_transmit)
        self._modem_inputs = modem_inputs & reg.MSR_LINES
        super().__init__()
        self._now = 0
        self._iir = reg.IIR_NONE
        self._input_refused = False
        self._scr = 0
        self._divisor = reg.POWER_ON_DIVISOR
        self._master_reset()

    def _master_reset(self) -> None:
        """Table I, UART reset configuration: all but SCR and the divisor latch."""
        self._ier = 0
        self._fcr = 0
        self._lcr = 0
        self._lcr_written = False
        self._mcr = 0
        self._msr = self._modem_inputs
        self._timing: reg.LineTiming = reg.line_timing(reg.LCR_8N1, self._divisor)
        self._receiver = Receiver()
        self._transmitter = Transmitter()
        self._break_at = reg.NEVER  # when a looped-back break has lasted for a character
        self._deadline = reg.NEVER
        self._listening = False
        self._polled_lsr = self._polled_rbr = False
        self._late = int(not self._paced)  # what the VMM has been told, or takes for granted after a reset
        self._update_interrupt()

    # --- The contract -------------------------------------------------------------------------------

    def read(self, now: int, offset: int, size: int) -> int:
        """See DeviceModel. Polling LSR is what guests do most: it has the short way."""
        if now > self._now:
            self._now = now
            if now >= self._deadline:
                self._catch_up()
        if offset == reg.LSR and size == 1:
            lsr = self._receiver.status | self._transmitter.status
            if self._listening and not lsr & _CLEARED_BY_LSR_READ:
                return lsr
            return self._read_lsr()
        if not 0 <= offset < reg.REGISTER_COUNT:
            return _all_ones(size)
        if size == 1:
            return self._read_register(offset)
        return (_all_ones(size) & ~0xFF) | self._read_register(offset)

    def steady(self, offset: int, size: int, value: int) -> int:
        """See SteadyModel. LSR is, while the guest listens, if reading it has cleared nothing; so is MSR.
        What is written to THR changes neither, unless it takes its time or is looped back. A guest that does
        not listen reads LSR once before each write to THR.
        """
        if size != 1 or self._paced or self._mcr & reg.MCR_LOOP:
            return 0
        if offset == reg.LSR:
            if value & _CLEARED_BY_LSR_READ:
                return 0
            if not self._listening:
                return _BEHIND_LATE if self._late and self._polled_lsr else 0
        elif offset == reg.MSR:
            if value & reg.MSR_DELTAS:
                return 0
        elif offset not in _PLAIN_REGISTERS:
            return 0
        return _STEADY_LATE if self._late else _STEADY

    def write(self, now: int, offset: int, size: int, value: int) -> None:
        """See DeviceModel."""
        if now > self._now:
            self._now = now
            if now >= self._deadline:
                self._catch_up()
        value &= 0xFF
        if offset == reg.THR:
            if self._lcr & reg.LCR_DLAB:
                self._set_divisor((self._divisor & 0xFF00) | value)
            elif self._paced:
                self._queue(value)
            else:
                self._transmit(value)
        elif offset == reg.IER:
            if self._lcr & reg.LCR_DLAB:
                self._set_divisor((self._divisor & 0x00FF) | (value << 8))
            else:
                self._write_ier(value & reg.IER_MASK)
        elif offset == reg.FCR:
            self._write_fcr(value)
        elif offset == reg.LCR:
            self._write_lcr(value)
        elif offset == reg.MCR:
            self._write_mcr(value & reg.MCR_MASK)
        elif offset == reg.SCR:
            self._scr = value
        # LSR and MSR: writing is for factory testing (8.4); ignored.
        self._polled_lsr = self._polled_rbr = False

    def write_run(self, now: int, offset: int, data: bytes) -> None:
        """See RunModel. What goes out does as one piece. Of its interrupts, the last one is left."""
        self.advance(now)
        hidden = reg.MCR_LOOP & self._mcr or reg.LCR_DLAB & self._lcr
        if offset != reg.THR or self._paced or hidden:
            before = len(self._effects)
            for value in data:
                self.write(now, offset, 1, value)
            if offset == reg.THR:
                self._fold_line(before)
            return
        falls_and_rises = self._thr_begins()
        if not self._lcr & reg.LCR_SET_BREAK:
            mask = self._timing.word_mask
            self._effects.append(HostOutput(data if mask == 0xFF else bytes(byte & mask for byte in data)))
        self._thr_ends(falls_and_rises, len(data) - 1)
        self._polled_lsr = self._polled_rbr = False

    def _fold_line(self, start: int) -> None:
        """Each character of a long run in a loop may move the line to and fro: leave the last moves."""
        moves = [one for one in self._effects[start:] if isinstance(one, IrqLine)]
        if len(moves) > reg.FIFO_SIZE:
            kept = moves[-2 - len(moves) % 2 :]
            folded = sum(one.level for one in moves) - sum(one.level for one in kept)
            at = next(number for number, one in enumerate(kept) if one.level)
            kept[at] = IrqLine(INTR_PIN, 1, folded)
            self._effects[start:] = kept

    def advance(self, now: int) -> None:
        """See DeviceModel. At most the XMIT FIFO goes out, so the work is bounded for any jump."""
        if now > self._now:
            self._now = now
            if now >= self._deadline:
                self._catch_up()

    def next_deadline(self) -> int | None:
        """See DeviceModel. A time-out that cannot interrupt needs no call: accesses notice it themselves."""
        deadline = self._deadline
        if deadline == reg.NEVER:
            return None
        if deadline == self._receiver.timeout_at and not self._ier & reg.IER_ERBFI:
            deadline = min(self._transmitter.next_at(), self._break_at)
        return None if deadline == reg.NEVER else deadline

    def receive(self, now: int, data: bytes) -> int:
        """See DeviceModel and the module's text about host input."""
        self.advance(now)
        count = min(self._input_room(), len(data))
        self._input_refused = count < len(data)
        if count:
            characters, mask = data[:count], self._timing.word_mask
            if mask != 0xFF:
                characters = bytes(character & mask for character in characters)
            self._receiver.accept(characters, self._timeout_at())
            self._receiver_changed()
        return count

    def receive_damaged(self, now: int, character: int, errors: int) -> int:
        """As `receive` with one character that the line damaged: `errors` are LSR's PE, FE and BI bits.

        Host input never is; this is the way in for a line that can be.
        """
        self.advance(now)
        self._input_refused = not self._input_room()
        if self._input_refused:
            return 0
        self._arrive(character & self._timing.word_mask, errors & reg.LSR_CHARACTER_ERRORS)
        return 1

    def reset(self, now: int) -> None:
        """The MR pin: see table I. SCR and the divisor latch keep their values."""
        self.advance(now)
        self._master_reset()

    def snapshot(self) -> bytes:
        """See DeviceModel and `snapshot`."""
        receiver, transmitter = self._receiver, self._transmitter
        flags = (
            (snap.PACED if self._paced else 0)
            | (snap.LISTENING if self._listening else 0)
            | (snap.POLLED_LSR if self._polled_lsr else 0)
            | (snap.POLLED_RBR if self._polled_rbr else 0)
            | (snap.INPUT_REFUSED if self._input_refused else 0)
            | (snap.THRE_PENDING if transmitter.thre_pending else 0)
            | (snap.TIMEOUT_PENDING if receiver.timeout_pending else 0)
            | (snap.TX_BURST if transmitter.burst else 0)
            | (snap.LCR_WRITTEN if self._lcr_written else 0)
        )
        return snap.pack(
            snap.UartState(
                version=snap.VERSION,
                flags=flags,
                modem_inputs=self._modem_inputs,
                ier=self._ier,
                fcr=self._fcr,
                lcr=self._lcr,
                mcr=self._mcr,
                lsr=receiver.status | transmitter.status,
                msr=self._msr,
                scr=self._scr,
                rbr=receiver.rbr,
                shift=transmitter.shift,
                divisor=self._divisor,
                now=self._now,
                timeout_at=receiver.timeout_at,
                shift_done_at=transmitter.shift_done_at,
                thre_at=transmitter.thre_at,
                break_at=self._break_at,
                tx_count=len(transmitter.characters),
                rx_count=len(receiver.characters),
                tx=bytes(transmitter.characters),
                rx=bytes(receiver.characters),
                rx_errors=bytes(receiver.errors),
            )
        )

    def restore(self, state: bytes) -> None:
        """See DeviceModel. The snapshot must come from a UART of the same configuration."""
        s = snap.unpack(state, paced=self._paced, modem_inputs=self._modem_inputs)
        self._ier, self._fcr, self._lcr, self._mcr = s.ier, s.fcr, s.lcr, s.mcr
        self._msr, self._scr, self._divisor, self._now = s.msr, s.scr, s.divisor, s.now
        self._lcr_written = bool(s.flags & snap.LCR_WRITTEN)
        self._listening = bool(s.flags & snap.LISTENING)
        self._polled_lsr = bool(s.flags & snap.POLLED_LSR)
        self._polled_rbr = bool(s.flags & snap.POLLED_RBR)
        self._input_refused = bool(s.flags & snap.INPUT_REFUSED)
        receiver = self._receiver = Receiver()
        receiver.configure(s.fcr)
        receiver.characters += s.rx[: s.rx_count]
        receiver.errors += s.rx_errors[: s.rx_count]
        receiver.rbr = s.rbr
        receiver.status = s.lsr & ~reg.LSR_TRANSMITTER
        receiver.timeout_pending = bool(s.flags & snap.TIMEOUT_PENDING)
        receiver.timeout_at = s.timeout_at
        transmitter = self._transmitter = Transmitter()
        transmitter.fifo = bool(s.fcr)
        transmitter.characters += s.tx[: s.tx_count]
        transmitter.shift = s.shift
        transmitter.shift_done_at = s.shift_done_at
        transmitter.thre_at = s.thre_at
        transmitter.burst = bool(s.flags & snap.TX_BURST)
        transmitter.status = s.lsr & reg.LSR_TRANSMITTER
        transmitter.thre_pending = bool(s.flags & snap.THRE_PENDING)
        self._break_at = s.break_at
        self._set_timing()
        self._reschedule()
        # The line has the level that it had when the snapshot was taken: restoring is no edge.
        self._update_interrupt()
        self._effects = []

    # --- Registers ----------------------------------------------------------------------------------

    def _read_register(self, offset: int) -> int:
        """The register at `offset` (0 to 7), with what reading it does."""
        if offset == reg.RBR:
            return self._divisor & 0xFF if self._lcr & reg.LCR_DLAB else self._read_rbr()
        if offset == reg.IER:
            return self._divisor >> 8 if self._lcr & reg.LCR_DLAB else self._ier
        if offset == reg.IIR:
            iir = self._iir
            if iir == reg.IIR_THR_EMPTY:  # only as the reported source is it acknowledged (table IV)
                self._transmitter.thre_pending = False
                self._update_interrupt()
            return iir | reg.IIR_FIFOS_ENABLED if self._fcr else iir
        if offset == reg.LCR:
            return self._lcr
        if offset == reg.MCR:
            return self._mcr
        if offset == reg.LSR:
            return self._read_lsr()
        if offset == reg.MSR:
            msr = self._msr
            if msr & reg.MSR_DELTAS:
                self._msr = msr & reg.MSR_LINES
                self._update_interrupt()
            return msr
        return self._scr

    def _read_lsr(self) -> int:
        lsr = self._receiver.status | self._transmitter.status
        if lsr & _CLEARED_BY_LSR_READ:
            self._receiver.acknowledge_errors()
            self._update_interrupt()
        if not self._listening and not self._mcr & reg.MCR_LOOP:
            idle = lsr & reg.LSR_TRANSMITTER == reg.LSR_TRANSMITTER
            if idle and self._polled_lsr:
                self._listen()
            else:
                self._polled_lsr = idle
        return lsr

    def _read_rbr(self) -> int:
        receiver = self._receiver
        if not self._listening and not self._mcr & reg.MCR_LOOP:
            empty = not receiver.characters
            if empty and self._polled_rbr:
                self._listen()
            else:
                self._polled_rbr = empty
        character = receiver.read(self._now + self._timing.timeout)
        self._receiver_changed()
        if self._input_refused:
            self._announce_room()
        return character

    def _write_ier(self, value: int) -> None:
        newly = value & ~self._ier
        self._ier = value
        if newly & reg.IER_ETBEI:
            # Enabling makes an empty THR interrupt, even one acknowledged before.
            self._transmitter.thre_pending = bool(self._transmitter.status & reg.LSR_THRE)
        self._update_interrupt()
        if newly & reg.IER_ERBFI and not self._listening:
            self._listen()

    def _write_fcr(self, value: int) -> None:
        if not value & reg.FCR_FIFO_ENABLE:
            value = 0  # without bit 0 the other bits are not programmed (8.5)
        changed = (value ^ self._fcr) & reg.FCR_FIFO_ENABLE
        self._fcr = value & reg.FCR_STICKY
        self._receiver.configure(self._fcr)
        self._transmitter.fifo = bool(self._fcr)
        if changed or value & reg.FCR_RCVR_RESET:
            self._receiver.clear()
        if changed or value & reg.FCR_XMIT_RESET:
            self._transmitter.clear()
        self._reschedule()
        self._update_interrupt()
        self._announce_room()

    def _write_lcr(self, value: int) -> None:
        was_spacing = self._is_spacing()
        self._lcr = value
        self._lcr_written = True
        self._set_timing()
        self._follow_break(was_spacing)
        self._update_interrupt()

    def _write_mcr(self, value: int) -> None:
        was_spacing = self._is_spacing()
        self._mcr = value
        lines = reg.LOOPED_LINES[value & 0x0F] if value & reg.MCR_LOOP else self._modem_inputs
        before = self._msr & reg.MSR_LINES
        deltas = (before ^ lines) >> 4
        if not before & reg.MSR_RI:
            deltas &= ~reg.MSR_TERI
        self._msr = lines | (self._msr & reg.MSR_DELTAS) | deltas
        self._follow_break(was_spacing)
        self._update_interrupt()
        self._announce_room()

    def _set_divisor(self, divisor: int) -> None:
        self._divisor = divisor
        self._set_timing()

    def _set_timing(self) -> None:
        """Follow LCR and the divisor latch. Times that run already keep their length."""
        self._timing = reg.line_timing(self._lcr if self._lcr_written else reg.LCR_8N1, self._divisor)

    # --- Interrupts ---------------------------------------------------------------------------------

    def _highest_interrupt(self) -> int:
        """IIR bits 0-3 (8.6, table IV)."""
        ier = self._ier
        receiver = self._receiver
        if ier & reg.IER_ELSI and receiver.status & reg.LSR_ERRORS:
            return reg.IIR_LINE_STATUS
        if ier & reg.IER_ERBFI:
            # Received data and the time-out share a priority; bit 3 is set when a time-out is pending.
            if receiver.timeout_pending:
                return reg.IIR_CHARACTER_TIMEOUT
            if len(receiver.characters) >= receiver.trigger:
                return reg.IIR_RECEIVED_DATA
        if ier & reg.IER_ETBEI and self._transmitter.thre_pending:
            return reg.IIR_THR_EMPTY
        if ier & reg.IER_EDSSI and self._msr & reg.MSR_DELTAS:
            return reg.IIR_MODEM_STATUS
        return reg.IIR_NONE

    def _update_interrupt(self, folded: int = 0) -> None:
        """Make IIR, the line, and what is said of late writes follow the registers. A rise of the line stands
        for `folded` others.
        """
        before, iir = self._iir, self._highest_interrupt() if self._ier else reg.IIR_NONE
        self._iir = iir
        level = int(iir != reg.IIR_NONE)
        if level != int(before != reg.IIR_NONE):
            self._effects.append(IrqLine(INTR_PIN, 1, folded) if level and folded else _LINE_LEVELS[level])
        late = self._lateness()
        if late != self._late:  # behind the level: what is then known of the line is this
            self._late = late
            self._effects.append(_LATE_THR[late])

    def _lateness(self) -> int:
        """Whether a write to THR may be late: see LateWrites."""
        if self._paced or (self._ier and self._mcr & reg.MCR_LOOP):
            return 0
        if not self._ier & reg.IER_ETBEI:
            return 1
        alone = self._iir in (reg.IIR_NONE, reg.IIR_THR_EMPTY) and not self._ier & reg.IER_EDSSI
        return PULSES if alone and not self._lcr & reg.LCR_DLAB else 0

    # --- Transmitter --------------------------------------------------------------------------------

    def _transmit(self, value: int) -> None:
        """THR is written and, without pacing, has gone out at once."""
        falls_and_rises = self._thr_begins()
        self._send(value & self._timing.word_mask)
        self._thr_ends(falls_and_rises)

    def _thr_begins(self) -> bool:
        """A character has come. Whether the line falls for it and rises behind it, and IIR stays as it was.

        That is what interrupt-driven output does.
        """
        if self._iir == reg.IIR_THR_EMPTY and not (
            self._mcr & reg.MCR_LOOP or (self._ier & reg.IER_EDSSI and self._msr & reg.MSR_DELTAS)
        ):
            self._effects.append(_LINE_LEVELS[0])
            return True
        if self._transmitter.thre_pending:
            self._transmitter.thre_pending = False
            if self._ier:
                self._update_interrupt()
        return False

    def _thr_ends(self, falls_and_rises: bool, folded: int = 0) -> None:
        """It has gone out, or the last one of a run with `folded` others."""
        if falls_and_rises:
            self._effects.append(IrqLine(INTR_PIN, 1, folded) if folded else _LINE_LEVELS[1])
            return
        self._transmitter.thre_pending = True
        if self._ier:
            self._update_interrupt(folded)

    def _queue(self, value: int) -> None:
        """THR is written, with pacing."""
        self._transmitter.write(value)
        self._update_interrupt()
        self._transmitter.load_if_idle(self._now, self._timing)
        self._reschedule()
        self._update_interrupt()

    def _send(self, character: int) -> None:
        """A character leaves the shift register: to the receiver in loopback, else to the host.

        While the break bit holds the line at spacing nobody can see it (8.1, bit 6).
        """
        if self._lcr & reg.LCR_SET_BREAK:
            return
        if self._mcr & reg.MCR_LOOP:
            self._arrive(character, 0)
        else:
            self._effects.append(_OUTPUTS[character])

    def _is_spacing(self) -> bool:
        """A break is looped back: the receiver's input is held at spacing."""
        return bool(self._mcr & reg.MCR_LOOP and self._lcr & reg.LCR_SET_BREAK)

    def _follow_break(self, was_spacing: bool) -> None:
        """A break that began is received as one null character, when it has lasted for a character."""
        if self._is_spacing() == was_spacing:
            return
        if was_spacing:
            self._break_at = reg.NEVER
        elif self._paced:
            self._break_at = self._now + self._timing.character
        else:
            self._arrive(0, reg.LSR_BI)
        self._reschedule()

    # --- Receiver and host input --------------------------------------------------------------------

    def _arrive(self, character: int, errors: int) -> None:
        self._receiver.arrive(character, errors, self._timeout_at())
        self._receiver_changed()

    def _timeout_at(self) -> int:
        """When the character time-out happens, counted from now on."""
        return self._now + self._timing.timeout

    def _receiver_changed(self) -> None:
        self._reschedule()
        self._update_interrupt()

    def _input_room(self) -> int:
        """How many characters of host input fit."""
        if not self._listening or self._mcr & reg.MCR_LOOP:
            return 0
        return self._receiver.capacity - len(self._receiver.characters)

    def _listen(self) -> None:
        """The guest has shown that it takes input."""
        self._listening = True
        self._polled_lsr = self._polled_rbr = False
        self._announce_room()

    def _announce_room(self) -> None:
        """Tell a host that was refused to try again, once the guest has read below the trigger level."""
        receiver = self._receiver
        if self._input_refused and len(receiver.characters) < receiver.trigger:
            room = self._input_room()
            if room:
                self._input_refused = False
                self._effects.append(InputRoom(room))

    # --- Time ---------------------------------------------------------------------------------------

    def _reschedule(self) -> None:
        if self._paced:
            self._deadline = min(self._receiver.timeout_at, self._transmitter.next_at(), self._break_at)
        else:
            self._deadline = self._receiver.timeout_at

    def _catch_up(self) -> None:
        """Let happen, in order and each at its own time, what is due by `_now`.

        An arrival goes before a time-out of the same instant: that asks for *longer* than four characters.
        """
        until = self._now
        while self._deadline <= until and self._deadline != reg.NEVER:
            at = self._now = self._deadline
            if at == self._transmitter.next_at():
                character = self._transmitter.step(at, self._timing)
                if character is not None:
                    self._send(character)
            elif at == self._break_at:
                self._break_at = reg.NEVER
                self._arrive(0, reg.LSR_BI)
            else:
                self._receiver.time_out()
            self._reschedule()
            self._update_interrupt()
        self._now = until
