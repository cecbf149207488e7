"""The RTC under random programs: against datetime, against slow references, split, restored, and fuzzed."""

from __future__ import annotations

import datetime
from typing import TypeAlias

from hypothesis import given
from hypothesis import strategies as st

from kvmbox.contract.model import Effect, IrqLine, SnapshotError
from kvmbox.devices.rtc.model import RtcMc146818

SECOND = 1_000_000_000
A, B, C = 0x0A, 0x0B, 0x0C
SET, DM, H24 = 0x80, 0x04, 0x02
PF, AF = 0x40, 0x20

# One step of a program: let time pass, then write a register (value >= 0) or read it (None).
Step: TypeAlias = tuple[int, int, int | None]

waits = st.one_of(
    st.just(0),
    st.integers(0, 3 * SECOND),
    st.sampled_from([1, 30_518, 244_140, SECOND - 244_140, SECOND // 2, SECOND, 60 * SECOND, 3600 * SECOND]),
    st.integers(0, 40 * 366 * 86_400 * SECOND // 10),
)
registers = st.one_of(st.integers(0, 0x0D), st.just(0x32), st.just(0x40))
values = st.one_of(
    st.integers(0, 255),
    st.sampled_from([0x00, 0x01, 0x12, 0x20, 0x26, 0x2F, 0x42, 0x59, 0x72, 0x76, 0x82, 0xC0, 0xF7]),
)
programs = st.lists(st.tuples(waits, registers, st.one_of(st.none(), values)), max_size=30)
bases = st.integers(-2_208_988_800, 7_258_118_400)  # 1900 to 2200


def do(model: RtcMc146818, now: int, step: Step) -> int | None:
    _, register, value = step
    model.write(now, 0, 1, register)
    if value is None:
        return model.read(now, 1, 1)
    model.write(now, 1, 1, value)
    return None


def settled(effects: list[Effect]) -> list[Effect]:
    for effect in effects:
        assert isinstance(effect, IrqLine)
        assert effect.pin == 0
        assert effect.coalesced == 0
    return effects


def write(model: RtcMc146818, now: int, register: int, value: int) -> None:
    do(model, now, (0, register, value))


def read(model: RtcMc146818, now: int, register: int) -> int:
    result = do(model, now, (0, register, None))
    assert result is not None
    return result


def value_of(byte: int, binary: bool) -> int:
    return byte if binary else int(f"{byte:02x}")


@given(
    bases,
    st.lists(st.integers(0, 30 * 366 * 86_400 * SECOND // 5), max_size=5),
    st.sampled_from([0, DM, H24, 6]),
)
def test_rtc_shows_what_datetime_says(base: int, jumps: list[int], mode: int) -> None:
    model = RtcMc146818(base_seconds=base, memory_bytes=0)
    write(model, 0, B, mode)
    now = 0
    for jump in jumps:
        now += jump
        expected = datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=base + now // SECOND)  # noqa: DTZ001 (the chip knows no zones)
        hour = read(model, now, 4)
        pm = bool(hour & 0x80)
        shown = [value_of(read(model, now, r), bool(mode & DM)) for r in (0x32, 9, 8, 7, 2, 0)]
        hours = value_of(hour & 0x7F, bool(mode & DM))
        if not mode & H24:
            assert 1 <= hours <= 12
            hours = hours % 12 + 12 * pm
        assert (shown[0] * 100 + shown[1], *shown[2:4], hours, *shown[4:]) == (
            expected.year, expected.month, expected.day, expected.hour, expected.minute, expected.second,
        )  # fmt: skip
        assert read(model, now, 6) == expected.isoweekday() % 7 + 1


@given(bases, programs, st.lists(st.integers(0, 1000), min_size=1, max_size=5))
def test_rtc_split_advances_change_no_read(base: int, program: list[Step], cuts: list[int]) -> None:
    whole = RtcMc146818(base_seconds=base, memory_bytes=0)
    split = RtcMc146818(base_seconds=base, memory_bytes=0)
    now = 0
    for step in program:
        for cut in sorted(cuts):
            split.advance(now + step[0] * cut // 1000)
        now += step[0]
        assert do(whole, now, step) == do(split, now, step)
        assert whole.next_deadline() == split.next_deadline()
        assert settled(whole.take_effects()) == settled(split.take_effects())
    assert whole.snapshot() == split.snapshot()


@given(bases, programs)
def test_rtc_line_is_irqf_and_rises_at_deadlines_only(base: int, program: list[Step]) -> None:
    model = RtcMc146818(base_seconds=base, memory_bytes=0)
    level = now = 0
    for step in program:
        deadline = model.next_deadline()
        if deadline is None or deadline > now + step[0]:
            model.advance(now + step[0])
            assert model.take_effects() == []
        now += step[0]
        model.advance(now)
        do(model, now, step)
        for effect in model.take_effects():
            assert isinstance(effect, IrqLine)
            assert effect.level == 1 - level
            level = effect.level
        copy = RtcMc146818(base_seconds=0, memory_bytes=0)
        copy.restore(model.snapshot())
        flags = read(copy, now, C)
        assert flags >> 7 == level
        assert bool(flags & read(copy, now, B) & 0x70) == bool(level)


@given(bases, programs, programs)
def test_rtc_restored_from_a_snapshot_continues_the_same(
    base: int, before: list[Step], after: list[Step]
) -> None:
    model = RtcMc146818(base_seconds=base, memory_bytes=1 << 30)
    now = 0
    for step in before:
        now += step[0]
        do(model, now, step)
    model.take_effects()
    copy = RtcMc146818(base_seconds=5, memory_bytes=0)
    copy.restore(model.snapshot())
    assert copy.take_effects() == []
    assert copy.snapshot() == model.snapshot()
    for step in after:
        assert copy.next_deadline() == model.next_deadline()
        now += step[0]
        assert do(copy, now, step) == do(model, now, step)
        assert copy.take_effects() == model.take_effects()


@given(st.binary(max_size=200), programs)
def test_rtc_restore_of_garbage_has_no_effect(garbage: bytes, program: list[Step]) -> None:
    model = RtcMc146818(base_seconds=0, memory_bytes=0)
    now = 0
    for step in program:
        now += step[0]
        do(model, now, step)
    model.take_effects()
    good = model.snapshot()
    for state in (garbage, good[: len(garbage)] + garbage, garbage + good[len(garbage) :]):
        try:
            model.restore(state)
        except SnapshotError:
            assert model.snapshot() == good
        else:  # a state that the chip can have: it must survive a round
            model.advance(now + 10 * SECOND)
            model.restore(model.snapshot())
            model.restore(good)


alarm_bytes = st.one_of(
    st.integers(0, 0x23), st.integers(0x80, 0x92), st.integers(0xC0, 0xFF), st.integers(0, 59)
)


@given(
    st.integers(0, 86_399),
    st.tuples(alarm_bytes, alarm_bytes, alarm_bytes),
    st.sampled_from([0, DM, H24, H24 | DM]),
    st.integers(0, SECOND - 1),
)
def test_rtc_alarm_agrees_with_a_walk_over_the_seconds(
    start: int, alarm: tuple[int, int, int], mode: int, phase: int
) -> None:
    model = RtcMc146818(base_seconds=start, memory_bytes=0)
    write(model, phase, B, mode)
    for register, byte in zip((5, 3, 1), alarm, strict=True):
        write(model, phase, register, byte)
    expected = next((n for n in range(1, 86_401) if alarm_matches(alarm, mode, (start + n) % 86_400)), None)
    last = 86_400 if expected is None else expected
    assert not read(model, last * SECOND - 1, C) & AF
    assert bool(read(model, last * SECOND, C) & AF) == (expected is not None)


def alarm_matches(alarm: tuple[int, int, int], mode: int, second_of_day: int) -> bool:
    hour, minute, second = second_of_day // 3600, second_of_day // 60 % 60, second_of_day % 60
    alarm_hour, alarm_minute, alarm_second = (
        None if byte >= 0xC0 else (byte if mode & DM else byte // 16 * 10 + byte % 16) for byte in alarm
    )
    if alarm_hour is not None and not mode & H24:
        low = alarm[0] % 0x80
        alarm_hour = (low if mode & DM else low // 16 * 10 + low % 16) % 12 + (12 if alarm[0] >= 0x80 else 0)
    return alarm_hour in (None, hour) and alarm_minute in (None, minute) and alarm_second in (None, second)


@given(st.integers(1, 15), st.lists(st.integers(1, 2 * SECOND), max_size=20), st.booleans())
def test_rtc_periodic_flag_agrees_with_the_count_of_edges(rate: int, waits: list[int], enabled: bool) -> None:
    model = RtcMc146818(base_seconds=0, memory_bytes=0)
    write(model, 0, A, 0x20 | rate)
    write(model, 0, B, 0x40 if enabled else 0)
    ticks = 1 << ((rate + 7 if rate < 3 else rate) - 1)
    late = 1 if enabled else 0
    now = seen = 0
    for wait in waits:
        now += wait
        edges = (now - late) * 32_768 // (ticks * SECOND)
        assert bool(read(model, now, C) & PF) == (edges > seen)
        seen = edges


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["read", "write", "advance", "receive", "reset"]),
            st.one_of(st.integers(-(1 << 70), 1 << 70), st.integers(0, 10 * SECOND)),
            st.one_of(st.integers(-2, 9), st.sampled_from([1 << 40, -(1 << 40)])),
            st.one_of(st.sampled_from([1, 2, 4, 8]), st.integers(-9, 1 << 40)),
            st.integers(-(1 << 70), 1 << 70),
        ),
        max_size=40,
    ),
    st.integers(-(1 << 60), 1 << 60),
)
def test_rtc_survives_whatever_it_is_asked(calls: list[tuple[str, int, int, int, int]], base: int) -> None:
    model = RtcMc146818(base_seconds=base, memory_bytes=0)
    for name, now, offset, size, value in calls:
        if name == "read":
            result = model.read(now, offset, size)
            assert 0 <= result < 1 << 8 * (size if size in (1, 2, 4, 8) else 1)
        elif name == "write":
            model.write(now, offset, size, value)
        elif name == "advance":
            model.advance(now)
        elif name == "receive":
            assert model.receive(now, b"x") == 0
        else:
            model.reset(now)
        model.next_deadline()
        model.take_effects()
        model.restore(model.snapshot())


@given(programs, st.integers(0, 10**18))
def test_rtc_reads_are_bytes_and_ram_is_never_touched(program: list[Step], start: int) -> None:
    model = RtcMc146818(base_seconds=0, memory_bytes=0)
    write(model, start, 0x41, 0xA5)
    now = start
    for step in program:
        now += step[0]
        result = do(model, now, step)
        assert result is None or 0 <= result <= 0xFF
    assert read(model, now, 0x41) == 0xA5
