"""ACPI power management: the PM1a event and control registers, and the PM timer (ACPI 6.5, 4.8).

Theory of operation
-------------------
The registers are bytes, as wide accesses are defined over them (4.8: registers may be accessed by byte, word
and double word): the event block has status and enable of 16 bits each, the control block has 16 bits. The
timer has 24 bits, and is read in one access of 4 bytes.

The timer counts guest time from power-on, at 3.579545 MHz. Nothing stops or sets it. TMR_STS is set whenever
bit 23 changes, that is, every 2^23 ticks. The model does not count these carries one by one: it keeps the
number of the last carry that the status has told of, so that any jump of time costs the same.

The SCI, output pin 0, is a level: high while a status bit meets its enable bit. The machine is always in ACPI
mode: SCI_EN is set, and there is no SMI command port to change it.

SLP_EN asks for the sleeping state of SLP_TYP. State S5 stops the machine, S3 suspends it. When the VMM wakes
the machine, it resets the devices, and then tells this one by an input byte what the reason was.
"""

from __future__ import annotations

from struct import Struct

from kvmbox.base.layout import SLEEP_TYPES
from kvmbox.contract.model import NANOSECONDS, WAKE_BY_RTC, IrqLine, ModelBase, SnapshotError, Stop, Suspend
from kvmbox.contract.stop_values import (
    CLOUD_HYPERVISOR_OFF,
    PM1_CNT,
    PM1_STS,
    S5,
    SLP_EN,
    SLP_TYP,
    SLP_TYP_SHIFT,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

# Offsets of the other registers. Nothing is at 6 and 7.
PM1_EN: Final = 0x2
PM_TMR: Final = 0x8

# PM1 status and enable (4.8.4.1): those that this hardware has. The others read as zero.
TMR: Final = 1 << 0
GBL: Final = 1 << 5
PWRBTN: Final = 1 << 8
SLPBTN: Final = 1 << 9
RTC: Final = 1 << 10
WAK_STS: Final = 1 << 15

ENABLES: Final = TMR | GBL | PWRBTN | SLPBTN | RTC

# PM1 control (4.8.4.2).
SCI_EN: Final = 1 << 0
BM_RLD: Final = 1 << 1

CONTROL_KEPT: Final = BM_RLD | SLP_TYP
"""GBL_RLS and SLP_EN are write-only and read as zero."""

TIMER_HZ: Final = 3_579_545
TIMER_BITS: Final = 24
_CARRY_BITS: Final = TIMER_BITS - 1

_LAST_NOW: Final = (1 << 63) - 1
_MAGIC: Final = b"PMB\x01"  # the name and the version of the snapshot
_SNAPSHOT: Final = Struct("<4sQQHHH")


class AcpiPm(ModelBase):
    """See the module.

    >>> pm = AcpiPm()
    >>> pm.read(1_000_000_000, PM_TMR, 4)
    3579545
    >>> pm.write(1_000_000_000, PM1_CNT, 2, SLP_EN | S5 << SLP_TYP_SHIFT)
    >>> pm.take_effects()
    [Stop()]
    """

    def __init__(self) -> None:
        super().__init__()
        self._now = 0
        self._carries = 0
        """The carries up to the last one that TMR_STS has told of, or that was before power-on."""
        self._status = 0
        self._enable = 0
        self._control = 0
        self._sci = 0

    # --- The contract ---------------------------------------------------------------------------------

    def read(self, now: int, offset: int, size: int) -> int:
        """See DeviceModel."""
        self.advance(now)
        if size not in (1, 2, 4, 8):
            return 0
        value = 0
        for position in range(size):
            value |= self._read_byte(offset + position) << 8 * position
        return value

    def write(self, now: int, offset: int, size: int, value: int) -> None:
        """See DeviceModel. The timer is read-only."""
        self.advance(now)
        if offset == PM1_STS and size == 1 and value & 0xFF == CLOUD_HYPERVISOR_OFF:
            self._effects.append(Stop())
            return
        if size in (1, 2, 4, 8):
            for position in range(size):
                self._write_byte(offset + position, value >> 8 * position & 0xFF)
            self._drive_sci()

    def advance(self, now: int) -> None:
        """See DeviceModel."""
        self._now = max(self._now, min(now, _LAST_NOW))
        carries = self._ticks() >> _CARRY_BITS
        if carries != self._carries:
            self._carries = carries
            self._status |= TMR
            self._drive_sci()

    def next_deadline(self) -> int | None:
        """See DeviceModel. The next carry, while it would raise the SCI."""
        if self._sci or not self._enable & TMR:
            return None
        # Rounded up: the carry has happened once the count is there.
        return -(-(self._carries + 1 << _CARRY_BITS) * NANOSECONDS // TIMER_HZ)

    def receive(self, now: int, data: bytes) -> int:
        """See DeviceModel. The VMM has woken the machine: one byte tells why (`WAKE_BY_RTC`)."""
        self.advance(now)
        for reason in data[:1]:
            self._status |= WAK_STS | (RTC if reason & WAKE_BY_RTC else 0)
        self._drive_sci()
        return len(data[:1])

    def reset(self, now: int) -> None:
        """See DeviceModel. The timer goes on."""
        self.advance(now)
        self._status = self._enable = self._control = 0
        self._drive_sci()

    # --- Registers --------------------------------------------------------------------------------------

    def _ticks(self) -> int:
        return self._now * TIMER_HZ // NANOSECONDS

    def _read_byte(self, offset: int) -> int:
        if PM_TMR <= offset < PM_TMR + 4:
            count = self._ticks() & (1 << TIMER_BITS) - 1
            return count >> 8 * (offset - PM_TMR) & 0xFF
        if PM1_STS <= offset < PM1_CNT + 2:
            word = (self._status, self._enable, self._control | SCI_EN)[offset // 2]
            return word >> 8 * (offset % 2) & 0xFF
        return 0xFF

    def _write_byte(self, offset: int, value: int) -> None:
        shift = 8 * (offset % 2)
        byte, bits = 0xFF << shift, value << shift
        match offset // 2:
            case 0:  # PM1 status: ones clear
                self._status &= ~bits
            case 1:
                self._enable = (self._enable & ~byte | bits) & ENABLES
            case 2:
                self._control = (self._control & ~byte | bits) & CONTROL_KEPT
                if bits & SLP_EN:
                    self._go_to_sleep()

    def _go_to_sleep(self) -> None:
        """SLP_EN was written: SLP_TYP, which is in the same byte, says where to. Other types do nothing."""
        kind = self._control >> SLP_TYP_SHIFT & 0b111
        if kind == S5:
            self._effects.append(Stop())
        elif kind == SLEEP_TYPES["S3"]:
            # 4.8.3.1: what the OS has enabled may wake the machine. Here, that is the clock's alarm.
            self._effects.append(Suspend(WAKE_BY_RTC if self._enable & RTC else 0))

    def _drive_sci(self) -> None:
        level = 1 if self._status & self._enable else 0
        if level != self._sci:
            self._sci = level
            self._effects.append(IrqLine(0, level))

    # --- Snapshots --------------------------------------------------------------------------------------

    def snapshot(self) -> bytes:
        """See DeviceModel."""
        return _SNAPSHOT.pack(_MAGIC, self._now, self._carries, self._status, self._enable, self._control)

    def restore(self, state: bytes) -> None:
        """See DeviceModel."""
        if len(state) != _SNAPSHOT.size or not state.startswith(_MAGIC):
            raise SnapshotError("not a snapshot of ACPI power management, version 1")
        _, now, carries, status, enable, control = _SNAPSHOT.unpack(state)
        if (
            now > _LAST_NOW
            or carries != now * TIMER_HZ // NANOSECONDS >> _CARRY_BITS
            or status & ~(TMR | RTC | WAK_STS)
            or enable & ~ENABLES
            or control & ~CONTROL_KEPT
        ):
            raise SnapshotError("a state that ACPI power management cannot have")
        self._now, self._carries, self._status = now, carries, status
        self._enable, self._control = enable, control
        self._sci = 1 if status & enable else 0
        self._effects = []
