"""The UART's state as versioned bytes, and the rules that bytes from elsewhere must keep.

A snapshot is one fixed little-endian structure, so that there is no length to lie about: FIFOs are
padded with zeros to 16 bytes, a deadline that is not set is NEVER. What follows from other fields (the
interrupt identification, the level of the line) is not stored.
"""

from __future__ import annotations

import struct

from kvmbox.contract.model import SnapshotError
from kvmbox.devices.uart import registers as reg
from kvmbox.devices.uart.registers import NEVER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, NamedTuple
else:
    from kvmbox.base.value_classes import NamedTuple

MAX_TIME: Final = (1 << 63) - 1

VERSION: Final = 1

# Bits of UartState.flags.
PACED: Final = 0x0001  # configuration: characters take their time
LISTENING: Final = 0x0002  # the guest has shown that it takes input
POLLED_LSR: Final = 0x0004  # one read of LSR that may prove to be a poll
POLLED_RBR: Final = 0x0008  # the same for RBR
INPUT_REFUSED: Final = 0x0010  # the host waits for InputRoom
THRE_PENDING: Final = 0x0020  # the THRE interrupt is not yet acknowledged
TIMEOUT_PENDING: Final = 0x0040  # the character time-out has happened
TX_BURST: Final = 0x0080  # the XMIT FIFO has held two characters since THRE was last set
LCR_WRITTEN: Final = 0x0100  # the guest has set up the line since the reset
ALL_FLAGS: Final = 0x01FF


class UartState(NamedTuple):
    """All state of a UART, field by field as in the snapshot. Times are ns of guest time or NEVER."""

    version: int
    flags: int
    modem_inputs: int  # configuration: MSR bits 4-7 outside loopback
    ier: int
    fcr: int  # enable and trigger bits
    lcr: int
    mcr: int
    lsr: int
    msr: int
    scr: int
    rbr: int  # last character received without FIFOs
    shift: int  # the character in the transmitter's shift register
    divisor: int
    now: int
    timeout_at: int  # the character time-out happens
    shift_done_at: int  # the character in the shift register has gone out
    thre_at: int  # THRE is set, where section 8.11 delays it
    break_at: int  # the looped-back break has lasted for a character
    tx_count: int
    rx_count: int
    tx: bytes  # THR or XMIT FIFO
    rx: bytes  # RBR or RCVR FIFO
    rx_errors: bytes  # LSR bits of each character that its turn at the top has not yet shown


_STRUCT: Final = struct.Struct("<HHBBBBBBBBBBH5QBB16s16s16s")


def pack(state: UartState) -> bytes:
    """`state` as bytes."""
    return _STRUCT.pack(*state)


def unpack(data: bytes, *, paced: bool, modem_inputs: int) -> UartState:
    """The state that `data` holds, for a UART that is configured by `paced` and `modem_inputs`.

    Raises SnapshotError unless the model could have packed exactly this.
    """
    if len(data) != _STRUCT.size:
        raise SnapshotError(f"UART snapshot: {len(data)} bytes, expected {_STRUCT.size}")
    state = UartState._make(_STRUCT.unpack(data))
    if state.version != VERSION:
        raise SnapshotError(f"UART snapshot: version {state.version}, expected {VERSION}")
    if bool(state.flags & PACED) != paced or state.modem_inputs != modem_inputs:
        raise SnapshotError("UART snapshot: taken from a UART with another configuration")
    for rule, kept in _rules(state).items():
        if not kept:
            raise SnapshotError(f"UART snapshot: {rule}")
    return state


def _is_deadline(at: int, now: int, longest: int) -> bool:
    return at == NEVER or now < at <= now + longest


def _rules(s: UartState) -> dict[str, bool]:
    """What holds of every state that the model can reach, by what to say when it does not."""
    fifo = bool(s.fcr)
    loop = bool(s.mcr & reg.MCR_LOOP)
    paced = bool(s.flags & PACED)
    capacity = reg.FIFO_SIZE if fifo else 1
    lines = reg.LOOPED_LINES[s.mcr & 0x0F] if loop else s.modem_inputs
    waits = fifo and s.rx_count > 0
    timeout_pending = bool(s.flags & TIMEOUT_PENDING)
    timeout_set = s.timeout_at != NEVER
    thre = bool(s.lsr & reg.LSR_THRE)
    shifting = s.shift_done_at != NEVER
    spacing = loop and bool(s.lcr & reg.LCR_SET_BREAK)
    # Deadlines may have been set under another divisor or line control.
    character = reg.LONGEST_CHARACTER
    return {
        "unknown flags": not s.flags & ~ALL_FLAGS,
        "IER": not s.ier & ~reg.IER_MASK,
        "FCR": s.fcr == 0 or (s.fcr & ~reg.FCR_STICKY == 0 and bool(s.fcr & reg.FCR_FIFO_ENABLE)),
        "LCR": bool(s.flags & LCR_WRITTEN) or s.lcr == 0,
        "MCR": not s.mcr & ~reg.MCR_MASK,
        "modem lines": s.msr & reg.MSR_LINES == lines,
        "RBR": fifo or s.rx_count == 0 or s.rx[0] == s.rbr,
        "guest time": s.now <= MAX_TIME,
        "RCVR FIFO": s.rx_count <= capacity and not any(s.rx[s.rx_count :]),
        "RCVR FIFO errors": not any(
            error & ~reg.LSR_CHARACTER_ERRORS or (error and not 0 < index < s.rx_count)
            for index, error in enumerate(s.rx_errors)
        ),
        "LSR DR": bool(s.lsr & reg.LSR_DR) == (s.rx_count > 0),
        "LSR FIFO error": bool(s.lsr & reg.LSR_FIFO_ERROR) >= any(s.rx_errors)
        and (fifo or not s.lsr & reg.LSR_FIFO_ERROR),
        "character time-out": _is_deadline(s.timeout_at, s.now, 4 * character)
        and (timeout_set or timeout_pending) == waits
        and not (timeout_set and timeout_pending),
        "XMIT FIFO": s.tx_count <= capacity
        and not any(s.tx[s.tx_count :])
        and (paced or s.tx_count == 0)
        and (shifting or s.tx_count == 0),
        "shift register": _is_deadline(s.shift_done_at, s.now, character)
        and (paced or not shifting)
        and (shifting or s.shift == 0),
        "LSR TEMT": bool(s.lsr & reg.LSR_TEMT) != shifting,
        "LSR THRE": thre != (s.tx_count > 0 or s.thre_at != NEVER),
        "THRE delay": s.thre_at == NEVER
        or (s.now < s.thre_at < s.shift_done_at and shifting and fifo and s.tx_count == 0),
        "THRE interrupt": thre or not s.flags & THRE_PENDING,
        "XMIT burst": not s.flags & TX_BURST or (paced and not thre and s.thre_at == NEVER),
        "break": s.break_at == NEVER or (paced and spacing and _is_deadline(s.break_at, s.now, character)),
        "polls": not s.flags & LISTENING or not s.flags & (POLLED_LSR | POLLED_RBR),
        "input refused": not s.flags & INPUT_REFUSED or loop or s.rx_count > 0 or not s.flags & LISTENING,
        "listening": not s.ier & reg.IER_ERBFI or bool(s.flags & LISTENING),
    }
