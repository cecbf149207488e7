"""Registers and bits of the MC146818A, by their datasheet names, and the two tables that hang on them."""

from __future__ import annotations

from kvmbox.contract.model import NANOSECONDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

# Register numbers: what the index port selects.
SECONDS: Final = 0x00
SECONDS_ALARM: Final = 0x01
MINUTES: Final = 0x02
MINUTES_ALARM: Final = 0x03
HOURS: Final = 0x04
HOURS_ALARM: Final = 0x05
DAY_OF_WEEK: Final = 0x06
DATE_OF_MONTH: Final = 0x07
MONTH: Final = 0x08
YEAR: Final = 0x09
REGISTER_A: Final = 0x0A
REGISTER_B: Final = 0x0B
REGISTER_C: Final = 0x0C
REGISTER_D: Final = 0x0D
CENTURY: Final = 0x32

# Register A.
A_UIP: Final = 0x80  # update in progress, read-only
A_DV: Final = 0x70  # divider control
A_RS: Final = 0x0F  # rate selection
DV_32768_HZ: Final = 0x20  # and below: a time base; above: none ("test", 11x: divider reset)
DV_RESET: Final = 0x60  # DV2 and DV1: the divider chain is held in reset

# Register B.
B_SET: Final = 0x80  # no updates: the program sets the time
B_PIE: Final = 0x40
B_AIE: Final = 0x20
B_UIE: Final = 0x10
B_SQWE: Final = 0x08  # square wave: kept, the pin is not connected on a PC
B_DM: Final = 0x04  # 1: binary, 0: BCD
B_24_12: Final = 0x02  # 1: 24 hours, 0: 12 hours with bit 7 of the hour as PM
B_DSE: Final = 0x01

# Register C. Each flag has the position of its enable in register B.
C_IRQF: Final = 0x80
C_PF: Final = 0x40
C_AF: Final = 0x20
C_UF: Final = 0x10
C_FLAGS: Final = C_PF | C_AF | C_UF

D_VRT: Final = 0x80  # valid RAM and time: the battery never fails here

HOURS_PM: Final = 0x80
DONT_CARE: Final = 0xC0  # both bits set in an alarm byte: matches anything

TIME_BASE_HZ: Final = 32_768
UIP_NS: Final = 244_140
FIRST_UPDATE_NS: Final = NANOSECONDS // 2

# What a register of the index space is to a data access.
KIND_RAM: Final = 0
KIND_TIME: Final = 1
KIND_ALARM: Final = 2
KIND_CONTROL: Final = 3
KIND: Final = bytes(
    KIND_TIME
    if index in (SECONDS, MINUTES, HOURS, DAY_OF_WEEK, DATE_OF_MONTH, MONTH, YEAR, CENTURY)
    else KIND_ALARM
    if index in (SECONDS_ALARM, MINUTES_ALARM, HOURS_ALARM)
    else KIND_CONTROL
    if REGISTER_A <= index <= REGISTER_D
    else KIND_RAM
    for index in range(128)
)


def periodic_ticks(register_a: int) -> int:
    """The period that RS3..RS0 select, in ticks of 32,768 Hz; 0 for none (MC146818A, periodic rates)."""
    rate = register_a & A_RS
    if rate == 0:
        return 0
    # With the 32,768 Hz time base the two fastest taps do not exist: 1 and 2 repeat 8 and 9.
    return 1 << (rate + 6 if rate < 3 else rate - 1)


def periodic_edge_is_next(pf_tick: int, now: int, ram: bytes) -> bool:
    """Whether `pf_tick` lies ahead of `now`, by a period at most; without a period it has no meaning."""
    period = periodic_ticks(ram[REGISTER_A])
    late = 1 if ram[REGISTER_B] & B_PIE else 0
    return period == 0 or 0 < pf_tick - (now * TIME_BASE_HZ - late) // NANOSECONDS <= period + late
