"""The registers of the PC16550D UART: addresses, bit names, fields and the length of a character.

    offset  DLAB=0 read        DLAB=0 write       DLAB=1 read/write  datasheet section
    ------  -----------------  -----------------  -----------------  -----------------
       0    RBR receive buffer THR transmit hold. DLL divisor low    8.0, 8.3
       1    IER                IER                DLM divisor high   8.7, 8.3
       2    IIR                FCR                as with DLAB=0     8.6, 8.5
       3    LCR                LCR                as with DLAB=0     8.1
       4    MCR                MCR                as with DLAB=0     8.8
       5    LSR                (ignored)          as with DLAB=0     8.4
       6    MSR                (ignored)          as with DLAB=0     8.9
       7    SCR                SCR                as with DLAB=0     8.10

Values are plain ints with named masks, because the model works on them at each guest access.
"""

from __future__ import annotations

from kvmbox.contract.model import NANOSECONDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, NamedTuple
else:
    from kvmbox.base.value_classes import NamedTuple

REGISTER_COUNT: Final = 8

RBR: Final = 0
THR: Final = 0
DLL: Final = 0
IER: Final = 1
DLM: Final = 1
IIR: Final = 2
FCR: Final = 2
LCR: Final = 3
MCR: Final = 4
LSR: Final = 5
MSR: Final = 6
SCR: Final = 7

# --- IER, interrupt enable (8.7) --------------------------------------------------------------------
IER_ERBFI: Final = 0x01  # received data available, and the character time-out
IER_ETBEI: Final = 0x02  # transmitter holding register empty
IER_ELSI: Final = 0x04  # receiver line status
IER_EDSSI: Final = 0x08  # modem status
IER_MASK: Final = 0x0F

# --- IIR, interrupt identification (8.6, table IV), highest priority first --------------------------
IIR_LINE_STATUS: Final = 0x06
IIR_CHARACTER_TIMEOUT: Final = 0x0C
IIR_RECEIVED_DATA: Final = 0x04
IIR_THR_EMPTY: Final = 0x02
IIR_MODEM_STATUS: Final = 0x00
IIR_NONE: Final = 0x01
IIR_FIFOS_ENABLED: Final = 0xC0

# --- FCR, FIFO control (8.5) ------------------------------------------------------------------------
FCR_FIFO_ENABLE: Final = 0x01
FCR_RCVR_RESET: Final = 0x02
FCR_XMIT_RESET: Final = 0x04
FCR_TRIGGER_SHIFT: Final = 6
FCR_STICKY: Final = 0xC1  # the bits that are state: the resets clear themselves
TRIGGER_LEVELS: Final = (1, 4, 8, 14)  # characters, by FCR bits 6-7
FIFO_SIZE: Final = 16

# --- LCR, line control (8.1) ------------------------------------------------------------------------
LCR_WLS: Final = 0x03  # word length: 5 + WLS bits
LCR_STB: Final = 0x04  # 2 stop bits; 1.5 with 5-bit words
LCR_PEN: Final = 0x08
LCR_SET_BREAK: Final = 0x40
LCR_DLAB: Final = 0x80
LCR_8N1: Final = 0x03

# --- MCR, modem control (8.8) -----------------------------------------------------------------------
MCR_DTR: Final = 0x01
MCR_RTS: Final = 0x02
MCR_OUT1: Final = 0x04
MCR_OUT2: Final = 0x08
MCR_LOOP: Final = 0x10
MCR_MASK: Final = 0x1F

# --- LSR, line status (8.4) -------------------------------------------------------------------------
LSR_DR: Final = 0x01
LSR_OE: Final = 0x02
LSR_PE: Final = 0x04
LSR_FE: Final = 0x08
LSR_BI: Final = 0x10
LSR_THRE: Final = 0x20
LSR_TEMT: Final = 0x40
LSR_FIFO_ERROR: Final = 0x80
LSR_CHARACTER_ERRORS: Final = LSR_PE | LSR_FE | LSR_BI  # belong to one character each
LSR_ERRORS: Final = LSR_OE | LSR_CHARACTER_ERRORS  # these interrupt, and a read of LSR clears them
LSR_TRANSMITTER: Final = LSR_THRE | LSR_TEMT

# --- MSR, modem status (8.9) ------------------------------------------------------------------------
MSR_TERI: Final = 0x04  # trailing edge of RI: only its going inactive counts
MSR_CTS: Final = 0x10
MSR_DSR: Final = 0x20
MSR_RI: Final = 0x40
MSR_DCD: Final = 0x80
MSR_DELTAS: Final = 0x0F
MSR_LINES: Final = 0xF0
MSR_CONNECTED: Final = MSR_CTS | MSR_DSR | MSR_DCD  # what a connected terminal asserts


def _loop_back(mcr: int) -> int:
    """The modem status lines that the modem outputs in `mcr` drive in loopback (8.8, bit 4)."""
    lines = 0
    for output, line in ((MCR_DTR, MSR_DSR), (MCR_RTS, MSR_CTS), (MCR_OUT1, MSR_RI), (MCR_OUT2, MSR_DCD)):
        if mcr & output:
            lines |= line
    return lines


LOOPED_LINES: Final = tuple(_loop_back(outputs) for outputs in range(16))
"""MSR bits 4-7 in loopback, by MCR bits 0-3."""

# --- Time -------------------------------------------------------------------------------------------
CLOCK_HZ: Final = 1_843_200
"""The crystal of a PC's serial port. The divisor makes it into 16 times the bit rate (8.2, 8.3)."""

POWER_ON_DIVISOR: Final = 12
"""9600 bit/s. The datasheet leaves the latch undefined at power-on; PCs and QEMU start with this."""

_HALF_BITS_PER_SECOND: Final = 2 * CLOCK_HZ // 16  # with divisor 1; half bits, for 1.5 stop bits


class LineTiming(NamedTuple):
    """What follows from LCR and the divisor latch. Times in ns, rounded up."""

    word_mask: int  # the data bits that a character has
    character: int  # start, data, parity and stop bits
    timeout: int  # four characters (8.11)
    thre_delay: int  # a character less its last stop bit (8.11)


def line_timing(lcr: int, divisor: int) -> LineTiming:
    """The timing of a line set up by `lcr` and `divisor`. A divisor of 0 counts as 1."""
    half_bits = 2 + 2 * (5 + (lcr & LCR_WLS)) + 2  # start, data and first stop bit
    if lcr & LCR_PEN:
        half_bits += 2
    if lcr & LCR_STB:
        half_bits += 2 if lcr & LCR_WLS else 1  # 1.5 stop bits with 5-bit words
    return LineTiming(
        word_mask=0xFF >> (3 - (lcr & LCR_WLS)),
        character=_duration(half_bits, divisor),
        timeout=_duration(4 * half_bits, divisor),
        thre_delay=_duration(half_bits - 2, divisor),
    )


def _duration(half_bits: int, divisor: int) -> int:
    return -(-half_bits * (divisor or 1) * NANOSECONDS // _HALF_BITS_PER_SECOND)


LONGEST_CHARACTER: Final = line_timing(LCR_WLS | LCR_STB | LCR_PEN, 0xFFFF).character
"""The slowest character of all, ns: 6.8 s."""

NEVER: Final = (1 << 64) - 1
"""A deadline that is not set. Guest time stays below 2**63 ns (292 years)."""
