"""What `--inject` says: what it means, and what is refused in one line with a hint."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmbox.base.errors import UsageError
from kvmbox.devices.pc_board import BoardOptions, pc_board
from kvmbox.parts.inject import chance
from kvmbox.parts.inject.fault_table import FAULTS, disk_target, faults_of, net_target
from kvmbox.parts.inject.spec import MOST_CHARACTERS, MOST_SPECS, check_count, parse, select
from kvmbox.run.options.values import guest_time

BOARD = pc_board(BoardOptions(("COM1", "COM2", "MMIO"), 0, 1 << 20))


def values(text: str) -> list[tuple[str, int, int | None, int | None, int | None]]:
    """Each fault: its name, threshold, accesses, nanoseconds and seconds."""
    return [
        (one.fault.name, one.threshold, one.accesses, one.nanoseconds, one.seconds)
        for one in parse(text).wanted
    ]


def test_spec_has_faults_and_what_holds_for_all_of_them() -> None:
    spec = parse("uart:drop-irq=0.5,busy=20,seed=7,after=3,at=1.5ms")
    assert (spec.device, spec.seed, spec.after, spec.at) == ("uart", 7, 3, 1_500_000)
    assert [one.fault.name for one in spec.wanted] == ["drop-irq", "busy"]
    assert parse("uart:busy=1").seed == 0


def test_values_are_read() -> None:
    sure = chance.CERTAIN
    assert values("x:drop-irq=0.25") == [("drop-irq", sure // 4, None, None, None)]
    assert values("x:all-ones=1") == [("all-ones", sure, None, None, None)]
    assert values("x:all-ones=.5") == [("all-ones", sure // 2, None, None, None)]
    assert values("x:delay-irq=1@20") == [("delay-irq", sure, 20, None, None)]
    assert values("x:delay-irq=1@2ms") == [("delay-irq", sure, None, 2_000_000, None)]
    assert values("x:vanish=forever") == [("vanish", sure, None, None, None)]
    assert values("x:vanish=20") == [("vanish", sure, 20, None, None)]
    assert values("x:busy=30us") == [("busy", sure, None, 30_000, None)]
    assert values("x:jump=-86400") == [("jump", sure, None, None, -86400)]
    assert values("x:jump=+3600") == [("jump", sure, None, None, 3600)]


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [("1s", 10**9), ("1.5s", 1_500_000_000), ("0.000000001s", 1), ("7ns", 7), ("1.9ns", 1), ("2µs", 2000)]
    + [(text, None) for text in ("", "1", "s", "1.s", "-1s", "1e3s", "1 s", "1.5", "٣s")],
)
def test_times_have_a_unit(text: str, nanoseconds: int | None) -> None:
    assert guest_time(text) == nanoseconds


@pytest.mark.parametrize(
    ("text", "why", "hint"),
    [
        ("", "it is not DEVICE:FAULT=VALUE", "for example"),
        ("uart", "it is not DEVICE:FAULT=VALUE", "for example"),
        (":busy=1", "it is not DEVICE:FAULT=VALUE", "for example"),
        ("uart:", "it is not DEVICE:FAULT=VALUE", "for example"),
        ("uart:busy", "'busy' is not NAME=VALUE", "for example"),
        ("uart:busy=", "'busy=' is not NAME=VALUE", "for example"),
        ("uart:busy=1,", "'' is not NAME=VALUE", "for example"),
        ("uart:bussy=1", "'bussy' is no fault", "did you mean busy?"),
        ("uart:seed=1", "it names no fault", "--inject help"),
        ("uart:busy=1,busy=2", "'busy' is there twice", "another --inject"),
        ("uart:busy=1,seed=1,seed=1", "'seed' is there twice", "another --inject"),
        ("uart:drop-irq=1.01", "drop-irq=1.01 is no probability from 0 to 1", "drop-irq=0.01"),
        ("uart:drop-irq=nan", "is no probability", "drop-irq=0.01"),
        ("uart:drop-irq=-0", "is no probability", "drop-irq=0.01"),
        ("uart:drop-irq=1e-3", "is no probability", "drop-irq=0.01"),
        ("uart:delay-irq=0.1", "does not say by how much", "by 20 accesses"),
        ("uart:delay-irq=2@20", "is no probability", "delay-irq=0.01@2ms"),
        ("uart:delay-irq=0.1@0", "'0' is neither a number of accesses nor a time", "2ms is a time"),
        ("disk:eio=0", "eio=0 is not a whole number from 1 to", "disk:eio=100"),
        ("disk:torn-write=1.5", "torn-write=1.5 is not a whole number", "disk:torn-write=50"),
        ("disk:slow=2001", "slow=2001 is not a whole number from 1 to 2000", "disk0:slow=20"),
        ("uart:busy=5m", "'5m' is neither a number of accesses nor a time", "forever has no end"),
        ("uart:busy=10000000000000", "is neither", "forever"),
        ("uart:vanish=1.5", "is neither", "forever"),
        ("RTC:jump=5", "jump=5 is no number of seconds with its sign", "jump=+3600"),
        ("RTC:jump=+0", "is no number of seconds", "jump=+3600"),
        ("RTC:jump=+99999999999", "is no number of seconds", "jump=+3600"),
        ("uart:busy=1,seed=-1", "seed=-1 is not a whole number", "--inject help"),
        ("uart:busy=1,seed=18446744073709551616", "is not a whole number", "--inject help"),
        ("uart:busy=1,after=x", "after=x is not a whole number", "--inject help"),
        ("uart:busy=1,at=5", "at=5 is no time", "1.5s"),
        ("uart:\x1b[2J=1", "'?[2J' is no fault", "--inject help"),
        ("u" * (MOST_CHARACTERS + 1), f"is longer than {MOST_CHARACTERS} characters", "--inject help"),
    ],
)
def test_what_is_wrong_is_told_in_one_line_with_a_hint(text: str, why: str, hint: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse(text)
    assert why in str(raised.value)
    assert str(raised.value).startswith("--inject '")
    assert str(raised.value).isprintable()
    assert hint in (raised.value.hint or "")


@given(st.text() | st.from_regex(r"[a-z]{1,4}:(drop-irq|busy|jump|seed|at)=.*"))
def test_no_text_does_more_than_be_refused(text: str) -> None:
    refused = ""
    try:
        parse(text)
    except UsageError as error:
        refused = str(error)
    assert refused == "" or refused.isprintable()
    assert len(refused) < 500


def test_too_many_are_refused() -> None:
    check_count([parse("uart:busy=1")] * MOST_SPECS)
    with pytest.raises(UsageError, match=f"more than {MOST_SPECS} times"):
        check_count([parse("uart:busy=1")] * (MOST_SPECS + 1))


def chosen(text: str) -> list[tuple[str, str]]:
    return [(device.name, wanted.fault.name) for device, wanted in select(parse(text), BOARD)]


def test_type_names_all_of_its_devices_and_a_name_one() -> None:
    assert chosen("uart:busy=1") == [("COM1", "busy"), ("COM2", "busy"), ("MMIO", "busy")]
    assert chosen("com2:busy=1,drop-irq=1") == [("COM2", "busy"), ("COM2", "drop-irq")]
    # The RTC has the name of its type. Of a type, only the devices with an interrupt lose some.
    assert chosen("RTC:jump=+1") == chosen("rtc:jump=+1") == [("RTC", "jump")]


@pytest.mark.parametrize(
    ("text", "why", "hint"),
    [
        ("COM3:busy=1", "this machine has no device 'COM3'", "did you mean COM"),
        ("xyzzy:busy=1", "this machine has no device 'xyzzy'", "--inject help"),
        ("PIT:busy=1", "PIT cannot have the fault 'busy'", "it can have drop-irq"),
        ("debug:drop-irq=1", "debug cannot have the fault 'drop-irq'", "it can have all-ones, vanish"),
    ],
)
def test_device_that_is_not_there_or_cannot_have_it_is_refused(text: str, why: str, hint: str) -> None:
    with pytest.raises(UsageError) as raised:
        select(parse(text), BOARD)
    assert why in str(raised.value)
    assert hint in (raised.value.hint or "")


DISKS = [disk_target("disk0"), disk_target("cd0")]


def test_example_of_each_fault_is_one() -> None:
    for fault in FAULTS.values():
        chosen = select(parse(fault.example), [*BOARD, *DISKS, net_target("net0")])
        assert fault.name in [wanted.fault.name for _, wanted in chosen]


def test_disks_have_faults_of_their_own_and_devices_have_not() -> None:
    for disk in DISKS:
        assert faults_of(disk) == ["eio", "slow", "torn-write"]
    assert not {"eio", "slow", "torn-write"} & {name for device in BOARD for name in faults_of(device)}
    assert [one.name for one, _ in select(parse("disk:eio=2"), DISKS)] == ["disk0", "cd0"]
    assert [one.name for one, _ in select(parse("cd0:eio=2"), DISKS)] == ["cd0"]


def test_values_of_disks_are_read() -> None:
    (eio, slow, torn) = parse("disk:eio=7,slow=20,torn-write=1").wanted
    assert (eio.each, slow.delay, torn.each) == (7, 20_000_000, 1)


def test_each_device_can_be_silent_and_gone() -> None:
    for device in BOARD:
        assert {"all-ones", "vanish"} <= set(faults_of(device))
        assert ("drop-irq" in faults_of(device)) == bool(device.irqs)
