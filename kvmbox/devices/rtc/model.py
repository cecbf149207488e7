"""MC146818A real-time clock with 128 bytes of CMOS RAM, as PCs wire it: ports 0x70 (index) and 0x71 (data).

Theory of operation
-------------------
Nothing ticks. The time that the registers show is `base_seconds` plus the whole seconds of guest time since
`base_ns`, computed when somebody looks. Registers 0x00..0x09 and 0x32 in `ram` are only a cache of it while
the clock runs. When updates are *held* (SET, or a divider setting that is no time base) those bytes are the
truth and plain memory; when the hold ends they become the new base ("latch").

Flags are lazy in the same way. For each source the model keeps the guest time at which its flag will be set
next, or FOREVER if the flag is set already or cannot come: `uf_due` (next update), `af_due` (next update that
matches the alarm), `pf_due` (next edge of the periodic tap). `event` is the earliest of them, and of the next
daylight-saving update. Letting time pass is one comparison with `event`; crossing it sets the flags that fell
due, whatever the length of the jump. A jump of years walks over the daylight-saving updates in it, two a
year if DSE is set: at most 586 in the 292 years that guest time has (`LAST_NOW`). Nothing else loops.

    index       register            datasheet section
    0x00-0x09   time and alarm      Time, Calendar and Alarm Locations
    0x0A        A: UIP DV RS        Register A
    0x0B        B: SET PIE AIE UIE SQWE DM 24/12 DSE
    0x0C        C: IRQF PF AF UF    Register C: cleared by reading it
    0x0D        D: VRT              Register D: always 0x80
    0x32        century             a PC/AT location of the RAM; counts along with the year
    0x0E-0x7F   RAM                 Static CMOS RAM (the chip has 64 bytes, PCs have 128)

Board decisions: power-on has A=0x26 and B=0x02; seconds begin at whole seconds of guest time; UIP is set for
the last 244,140 ns of a second (8 periods of 32,768 Hz, t_BUC of the datasheet), then the update is instant,
so that the time read during UIP is still the old one and whole. The first update comes 500 ms after the
divider leaves its reset. docs/devices/rtc.md has the full table and the departures from datasheet and QEMU.
"""

from __future__ import annotations

import struct

from kvmbox.contract.model import NANOSECONDS, NO_RISE, IrqLine, ModelBase, RisesAt, SnapshotError, steady_for
from kvmbox.devices.rtc.alarm import seconds_to_alarm
from kvmbox.devices.rtc.calendar import SECONDS_PER_DAY, weekday_from_days
from kvmbox.devices.rtc.cmos import disk_bytes, memory_size_bytes
from kvmbox.devices.rtc.daylight_saving import next_special_update
from kvmbox.devices.rtc.registers import (
    A_DV,
    A_RS,
    A_UIP,
    B_24_12,
    B_AIE,
    B_DSE,
    B_PIE,
    B_SET,
    B_SQWE,
    B_UIE,
    C_AF,
    C_FLAGS,
    C_IRQF,
    C_PF,
    C_UF,
    D_VRT,
    DAY_OF_WEEK,
    DV_32768_HZ,
    DV_RESET,
    FIRST_UPDATE_NS,
    HOURS,
    KIND,
    KIND_ALARM,
    KIND_CONTROL,
    KIND_RAM,
    KIND_TIME,
    MINUTES,
    REGISTER_A,
    REGISTER_B,
    REGISTER_C,
    REGISTER_D,
    SECONDS,
    TIME_BASE_HZ,
    UIP_NS,
    periodic_edge_is_next,
    periodic_ticks,
)
from kvmbox.devices.rtc.time_bytes import decode_alarm, decode_day_of_week, decode_time, encode_time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

LAST_NOW: Final = (1 << 63) - 1
"""Guest time ends here, after 292 years; a larger `now` counts as this one."""
FOREVER: Final = 1 << 63
"""Never: later than any guest time."""

# What the guest has written since the last latch.
_WROTE_TIME: Final = 1
_WROTE_DATE: Final = 2
_WROTE_DAY_OF_WEEK: Final = 4
_WROTE_ALL: Final = 7

_UNTOUCHED: Final = 8
"""Instead of that: nothing was written, not even an index."""

_NEVER_FELL_BACK: Final = -(1 << 62)  # no day number

_SNAPSHOT: Final = struct.Struct("<4sBBBBqqqqqq128s")
_SNAPSHOT_MAGIC: Final = b"RTC\x01"  # the last byte is the version
# Times of day far outside any calendar would only overflow a snapshot's 64 bits.
_MAX_BASE_SECONDS: Final = 1 << 60
_MAX_AWAY: Final = 1 << 40


class RtcMc146818(ModelBase):
    """The MC146818A on a PC: `offset` 0 is port 0x70 (index, write-only), 1 is 0x71 (data); pin 0 is IRQ.

    `base_seconds` is the wall-clock time shown at guest time 0, in seconds since 1970-01-01 (within ±2**60;
    years outside 0..9999 show modulo 10,000); `memory_bytes` and `disks` are what the CMOS RAM tells
    (`cmos`). They come from the host: a value out of range raises ValueError.

    The seconds are register 0, in BCD by default:

    >>> rtc = RtcMc146818(base_seconds=42, memory_bytes=1 << 20)
    >>> rtc.write(0, 0, 1, 0)
    >>> hex(rtc.read(0, 1, 1))
    '0x42'
    """

    __slots__ = (
        "_af_due",
        "_announced",
        "_announces",
        "_base_ns",
        "_base_seconds",
        "_chain_tick",
        "_dse_due",
        "_event",
        "_fallen_back_on",
        "_flags",
        "_held",
        "_index",
        "_line",
        "_now",
        "_pf_due",
        "_pf_tick",
        "_ram",
        "_shown",
        "_uf_due",
        "_weekday_shift",
        "_written",
    )

    def __init__(
        self, *, base_seconds: int, memory_bytes: int, announce: int = 0, disks: bytes = b""
    ) -> None:
        """`announce`: whether effects tell beforehand when the line will rise."""
        if not -_MAX_BASE_SECONDS <= base_seconds <= _MAX_BASE_SECONDS:
            raise ValueError(f"base_seconds is out of range: {base_seconds}")
        if memory_bytes < 0:
            raise ValueError(f"memory_bytes is negative: {memory_bytes}")
        self._ram = bytearray(128)
        for address, value in (memory_size_bytes(memory_bytes) | disk_bytes(disks)).items():
            self._ram[address] = value
        self._ram[REGISTER_A] = 0x26
        self._ram[REGISTER_B] = B_24_12
        self._ram[REGISTER_D] = D_VRT
        self._index = 0
        self._flags = 0
        self._announces = announce
        self._announced = NO_RISE
        self._line = 0
        self._now = 0
        self._base_seconds = base_seconds
        self._base_ns = 0
        self._weekday_shift = 0
        self._fallen_back_on = _NEVER_FELL_BACK
        self._written = _UNTOUCHED
        self._chain_tick = 0
        self._pf_tick = periodic_ticks(0x26)
        super().__init__()
        self._held = False
        self._shown: int | None = None
        self._uf_due = self._af_due = self._pf_due = self._dse_due = self._event = FOREVER
        self._arm()

    # --- The device contract ------------------------------------------------------------------------

    def read(self, now: int, offset: int, size: int) -> int:
        """See DeviceModel. The index port and unknown offsets give 0xFF."""
        if now > self._now:
            self._let_pass(now)
        if size != 1:
            return self._read_wide(now, offset, size)
        if offset != 1:
            return 0xFF
        index = self._index
        kind = KIND[index]
        if kind == KIND_TIME:
            if not self._held:
                self._show_time()
        elif kind == KIND_CONTROL:
            if index == REGISTER_A:
                return self._ram[REGISTER_A] | (A_UIP if self._update_in_progress() else 0)
            if index == REGISTER_C:
                return self._read_register_c()
        return self._ram[index]

    def steady(self, offset: int, size: int, value: int) -> int:
        """See SteadyModel. The time stays until the next update, A until UIP. Reading C clears it."""
        if offset != 1 or size != 1 or self._index == REGISTER_C:
            return 0
        stays = NANOSECONDS
        if not self._held:
            left = NANOSECONDS - (self._now - self._base_ns) % NANOSECONDS
            if self._index == REGISTER_A:
                stays = max(left - UIP_NS, 0)
            elif KIND[self._index] == KIND_TIME:
                stays = left
        return steady_for(stays)

    def write(self, now: int, offset: int, size: int, value: int) -> None:
        """See DeviceModel. Registers C and D and bit 7 of A are read-only; unknown offsets drop the value."""
        if now > self._now:
            self._let_pass(now)
        if size != 1:
            self._write_wide(now, offset, size, value)
            return
        if offset == 0:
            # Bit 7 is the PC's NMI mask, which is not ours.
            self._index = value & 0x7F
            if self._written == _UNTOUCHED:
                self._written = 0
            return
        if offset != 1:
            return
        index = self._index
        value &= 0xFF
        kind = KIND[index]
        if kind == KIND_RAM:
            self._ram[index] = value
        elif kind == KIND_TIME:
            self._write_time(index, value)
        elif kind == KIND_ALARM:
            self._ram[index] = value
            self._arm()
        elif index == REGISTER_A:
            self._write_register_a(value & ~A_UIP)
        elif index == REGISTER_B:
            self._write_register_b(value)

    def advance(self, now: int) -> None:
        """See DeviceModel. One comparison, unless a flag or a daylight-saving update falls due."""
        if now > self._now:
            self._let_pass(now)

    def next_deadline(self) -> int | None:
        """See DeviceModel.

        The next update while UF is clear, then the next alarm while AF is clear, and the next periodic edge
        while PF is clear and PIE set. The first two are asked for even if their enables are clear: it costs
        two calls in all until a guest reads register C, and a stepped clock stops where QEMU's does. Nothing
        is asked for before an index was written, as a guest cannot get at C or an enable until then.
        """
        if self._written == _UNTOUCHED:
            return None
        due = min(self._uf_due, self._af_due)
        if self._ram[REGISTER_B] & B_PIE and self._pf_due < due:
            due = self._pf_due
        return due if due < FOREVER else None

    def receive(self, now: int, data: bytes) -> int:
        """See DeviceModel. Eight bytes are seconds that passed while guest time stood still."""
        self.advance(now)
        if self._held or len(data) != 8:
            return 0
        self._base_seconds += min(int.from_bytes(data, "little"), _MAX_AWAY)
        self._shown = None
        self._arm_alarm()
        self._refresh_event()
        self._drive_line()
        return 8

    def reset(self, now: int) -> None:
        """The RESET pin (MC146818A, "RESET"): time, calendar, RAM, A and the rest of B stay as they are.

        PIE, AIE, UIE and SQWE are cleared, as are all flags of register C, and the line is released.
        """
        self.advance(now)
        self._ram[REGISTER_B] &= ~(B_PIE | B_AIE | B_UIE | B_SQWE) & 0xFF
        self._index = 0
        self._clear_flags()
        self._arm()

    # --- Time passes --------------------------------------------------------------------------------

    def _let_pass(self, now: int) -> None:
        self._now = now if now < LAST_NOW else LAST_NOW
        if self._now >= self._event:
            self._settle()

    def _settle(self) -> None:
        """Set every flag that fell due up to and including now."""
        now = self._now
        while now >= self._dse_due:
            self._do_special_update()
        if now >= self._uf_due:
            self._flags |= C_UF
            self._uf_due = FOREVER
        if now >= self._af_due:
            self._flags |= C_AF
            self._af_due = FOREVER
        if now >= self._pf_due:
            self._flags |= C_PF
            self._pf_due = FOREVER
        self._refresh_event()
        self._drive_line()

    def _refresh_event(self) -> None:
        self._event = min(self._uf_due, self._af_due, self._pf_due, self._dse_due)

    def _drive_line(self) -> None:
        """IRQ is active while any flag meets its enable (IRQF)."""
        level = 1 if self._flags & self._ram[REGISTER_B] & C_FLAGS else 0
        if level != self._line:
            self._line = level
            self._effects.append(IrqLine(0, level))
        if self._announces:
            flags = (B_PIE, self._pf_due), (B_AIE, self._af_due), (B_UIE, self._uf_due)
            enabled = 0 if level else self._ram[REGISTER_B]
            at = min([due for enable, due in flags if enabled & enable], default=FOREVER)
            at = at if at < FOREVER else NO_RISE
            if at != self._announced:
                self._announced = at
                self._effects.append(RisesAt(0, at))

    def _wall(self) -> int:
        """The time of day shown now, in seconds since 1970; meaningful while updates are not held."""
        return self._base_seconds + (self._now - self._base_ns) // NANOSECONDS

    def _update_in_progress(self) -> bool:
        return not self._held and (self._now - self._base_ns) % NANOSECONDS >= NANOSECONDS - UIP_NS

    def _arm(self) -> None:
        """Work out anew when each flag falls due; also what makes a set flag meet a new enable."""
        self._arm_update()
        self._arm_alarm()
        self._arm_periodic()
        self._refresh_event()
        self._drive_line()

    def _arm_update(self) -> None:
        if self._held or self._flags & C_UF:
            self._uf_due = FOREVER
        else:
            self._uf_due = self._now + NANOSECONDS - (self._now - self._base_ns) % NANOSECONDS

    # --- Register C ---------------------------------------------------------------------------------

    def _read_register_c(self) -> int:
        value = self._flags
        if value & self._ram[REGISTER_B] & C_FLAGS:
            value |= C_IRQF
        if value:
            self._clear_flags()
        return value

    def _clear_flags(self) -> None:
        cleared = self._flags
        self._flags = 0
        self._skip_past_edges()
        if cleared & C_UF:
            self._arm_update()
        if cleared & C_AF:
            self._arm_alarm()
        if cleared & C_PF:
            self._arm_periodic()
        self._refresh_event()
        self._drive_line()

    # --- The alarm and daylight saving ----------------------------------------------------------------

    def _arm_alarm(self) -> None:
        """Find the next update that matches the alarm, and the next special update on the way."""
        self._af_due = self._dse_due = FOREVER
        if self._held:
            return
        wall = self._wall()
        second_began = self._now - (self._now - self._base_ns) % NANOSECONDS
        special = change = 0
        daylight = self._ram[REGISTER_B] & B_DSE
        if daylight:
            special, change = next_special_update(wall, self._weekday_shift, self._fallen_back_on)
            self._dse_due = second_began + (special - wall) * NANOSECONDS
        if self._flags & C_AF:
            return
        hour, minute, second = decode_alarm(self._ram)
        seconds = seconds_to_alarm(wall % SECONDS_PER_DAY, hour, minute, second)
        if seconds is None:
            return
        if daylight and seconds >= special - wall:
            # The special update comes first. What it shows may itself match; if not, search on from there.
            # The update after that one is months away, the match within a day.
            before = special + change - 1
            rest = seconds_to_alarm(before % SECONDS_PER_DAY, hour, minute, second)
            assert rest is not None
            seconds = special - wall + rest - 1
        self._af_due = second_began + seconds * NANOSECONDS

    def _do_special_update(self) -> None:
        """The daylight-saving update that falls due at `dse_due` takes place: a new base from there on."""
        special, change = next_special_update(
            self._base_seconds + (self._dse_due - self._base_ns) // NANOSECONDS - 1,
            self._weekday_shift,
            self._fallen_back_on,
        )
        self._base_ns = self._dse_due
        self._base_seconds = special + change
        if change < 0:
            self._fallen_back_on = special // SECONDS_PER_DAY
        following, _ = next_special_update(self._base_seconds, self._weekday_shift, self._fallen_back_on)
        self._dse_due += (following - self._base_seconds) * NANOSECONDS

    # --- The periodic tap -----------------------------------------------------------------------------
    # Tick k of the time base is at k / 32,768 s of guest time. PF is set at the tick while it is only polled,
    # and 1 ns after it while PIE is set: QEMU's timer does so, and interrupt times are compared with it.

    def _tick(self) -> int:
        """The last tick of the time base that has taken effect by now."""
        late = 1 if self._ram[REGISTER_B] & B_PIE else 0
        return (self._now * TIME_BASE_HZ - late) // NANOSECONDS

    def _arm_periodic(self) -> None:
        self._pf_due = FOREVER
        if not periodic_ticks(self._ram[REGISTER_A]) or self._ram[REGISTER_A] & DV_RESET == DV_RESET:
            return
        if self._tick() >= self._pf_tick:
            self._flags |= C_PF  # a change of rate or of PIE made the edge fall into the past
        if self._flags & C_PF:
            return
        if self._ram[REGISTER_B] & B_PIE:
            self._pf_due = self._pf_tick * NANOSECONDS // TIME_BASE_HZ + 1
        else:
            self._pf_due = -(-self._pf_tick * NANOSECONDS // TIME_BASE_HZ)

    def _skip_past_edges(self) -> None:
        """Move `pf_tick` on, by whole periods, to the next edge that has not taken effect."""
        period = periodic_ticks(self._ram[REGISTER_A])
        behind = self._tick() - self._pf_tick
        if period and behind >= 0:
            self._pf_tick += (behind // period + 1) * period

    # --- Registers A and B ----------------------------------------------------------------------------

    def _write_register_a(self, value: int) -> None:
        old = self._ram[REGISTER_A]
        if not self._held:
            self._show_time()
        self._skip_past_edges()
        self._ram[REGISTER_A] = value
        if old & DV_RESET == DV_RESET and value & DV_RESET != DV_RESET:
            self._release_divider()
        elif (old ^ value) & A_RS:
            self._change_rate(periodic_ticks(old), periodic_ticks(value))
        held = self._must_hold()
        if self._held and not held:
            self._latch()
        self._held = held
        self._arm()

    def _release_divider(self) -> None:
        """The chain counts from zero again: half a second to the first update, a period to the first edge."""
        self._base_ns = self._now - FIRST_UPDATE_NS
        self._chain_tick = self._now * TIME_BASE_HZ // NANOSECONDS
        self._pf_tick = self._chain_tick + periodic_ticks(self._ram[REGISTER_A])

    def _change_rate(self, old_period: int, period: int) -> None:
        if not period:
            return
        # The tick is here QEMU's, which counts one that falls on this very nanosecond.
        tick = self._now * TIME_BASE_HZ // NANOSECONDS
        if not self._ram[REGISTER_B] & B_PIE:
            # Another tap of the same chain: its edges are where they always were.
            self._pf_tick = self._chain_tick + ((tick - self._chain_tick) // period + 1) * period
        elif old_period:
            # As in QEMU, the new period counts from the last edge, and is over at once if it is past.
            self._pf_tick = max(self._pf_tick - old_period + period, tick)
        else:
            self._pf_tick = tick + period

    def _write_register_b(self, value: int) -> None:
        old = self._ram[REGISTER_B]
        if value & B_SET:
            value &= ~B_UIE  # MC146818A, "UIE": cleared by SET going high
        if not self._held:
            self._show_time()
        elif not value & B_SET and self._ram[REGISTER_A] & A_DV <= DV_32768_HZ:
            # The bytes were written in the mode that is being left.
            self._latch()
        self._skip_past_edges()
        self._ram[REGISTER_B] = value
        if value & ~old & B_PIE:
            # As in QEMU, enabling the interrupt starts a new period.
            self._pf_tick = self._now * TIME_BASE_HZ // NANOSECONDS + periodic_ticks(self._ram[REGISTER_A])
        self._held = self._must_hold()
        self._shown = None
        self._arm()

    def _must_hold(self) -> bool:
        """MC146818A, "Update Cycle": there is none while SET is 1, nor without a time base."""
        return bool(self._ram[REGISTER_B] & B_SET) or self._ram[REGISTER_A] & A_DV > DV_32768_HZ

    # --- Time registers -------------------------------------------------------------------------------

    def _write_time(self, index: int, value: int) -> None:
        if not self._held:
            self._show_time()
        self._ram[index] = value
        if index in (SECONDS, MINUTES, HOURS):
            self._written |= _WROTE_TIME
        elif index == DAY_OF_WEEK:
            self._written |= _WROTE_DAY_OF_WEEK
        else:
            self._written |= _WROTE_DATE
        if not self._held:
            self._latch()
            self._arm()

    def _latch(self) -> None:
        """The bytes in the time registers become the time. The phase within the second stays."""
        self._base_seconds = decode_time(self._ram)
        self._base_ns = self._now - (self._now - self._base_ns) % NANOSECONDS
        if self._written & _WROTE_DAY_OF_WEEK:
            # A counter of its own in the chip: what was written counts on modulo 7.
            calendar = weekday_from_days(self._base_seconds // SECONDS_PER_DAY)
            self._weekday_shift = (decode_day_of_week(self._ram) - calendar) % 7
        elif self._written & _WROTE_DATE:
            self._weekday_shift = 0
        if self._written & (_WROTE_TIME | _WROTE_DATE):
            self._fallen_back_on = _NEVER_FELL_BACK
        self._written = 0
        self._shown = None

    def _show_time(self) -> None:
        """Fill the time registers for now, unless they show this second already."""
        wall = self._wall()
        if wall != self._shown:
            self._shown = wall
            encode_time(self._ram, wall, self._weekday_shift)

    # --- Accesses of other sizes -----------------------------------------------------------------------
    # The bus splits them before they come here; done the same way for whoever drives the model directly.

    def _read_wide(self, now: int, offset: int, size: int) -> int:
        if size not in (2, 4, 8):
            return 0
        value = 0
        for position in range(size):
            value |= self.read(now, offset + position, 1) << 8 * position
        return value

    def _write_wide(self, now: int, offset: int, size: int, value: int) -> None:
        if size in (2, 4, 8):
            for position in range(size):
                self.write(now, offset + position, 1, value >> 8 * position & 0xFF)

    # --- Snapshots ------------------------------------------------------------------------------------

    def snapshot(self) -> bytes:
        """See DeviceModel. 184 bytes; what follows from the rest (due times, the line) is not in it."""
        if not self._held:
            self._show_time()
        self._skip_past_edges()
        return _SNAPSHOT.pack(
            _SNAPSHOT_MAGIC,
            self._index,
            self._flags,
            self._weekday_shift,
            self._written,
            self._now,
            self._base_seconds,
            self._base_ns,
            self._fallen_back_on,
            self._chain_tick,
            self._pf_tick,
            bytes(self._ram),
        )

    def restore(self, state: bytes) -> None:
        """See DeviceModel."""
        if len(state) != _SNAPSHOT.size:
            raise SnapshotError(f"RTC snapshot has {len(state)} bytes, not {_SNAPSHOT.size}")
        (magic, index, flags, weekday_shift, written, now, base_seconds, base_ns, fallen_back_on, chain_tick,
         pf_tick, ram) = _SNAPSHOT.unpack(state)  # fmt: skip
        if magic != _SNAPSHOT_MAGIC:
            raise SnapshotError("not an RTC snapshot of version 1")
        if not (
            index < 128
            and flags & ~C_FLAGS == 0
            and weekday_shift < 7
            and (written & ~_WROTE_ALL == 0 or (written, index, ram[REGISTER_B]) == (_UNTOUCHED, 0, B_24_12))
            and now >= 0
            and abs(base_seconds) <= 2 * _MAX_BASE_SECONDS
            and -NANOSECONDS <= base_ns <= now
            and (fallen_back_on == _NEVER_FELL_BACK or abs(fallen_back_on) <= 2 * _MAX_BASE_SECONDS)
            and 0 <= chain_tick <= now * TIME_BASE_HZ // NANOSECONDS
            and periodic_edge_is_next(pf_tick, now, ram)
            and ram[REGISTER_A] & A_UIP == 0
            and ram[REGISTER_B] & (B_SET | B_UIE) != B_SET | B_UIE
            and ram[REGISTER_C] == 0
            and ram[REGISTER_D] == D_VRT
        ):
            raise SnapshotError("RTC snapshot holds a state that the chip cannot have")
        self._index, self._flags, self._now = index, flags, now
        self._weekday_shift, self._written = weekday_shift, written
        self._base_seconds, self._base_ns = base_seconds, base_ns
        self._fallen_back_on = fallen_back_on
        self._chain_tick, self._pf_tick = chain_tick, pf_tick
        self._ram = bytearray(ram)
        self._held, self._shown, self._effects = self._must_hold(), None, []
        self._line = 1 if flags & ram[REGISTER_B] & C_FLAGS else 0
        self._arm()
        self._effects = []  # what holds now has been announced before
