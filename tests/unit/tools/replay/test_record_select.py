"""--until and --device."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kvmbox.base.errors import UsageError
from kvmbox.parts.record.format import Record
from kvmbox.tools.replay.select import DeviceChoice, Until
from tests.support.recordings import CHANNELS, UART, small_machine


@pytest.mark.parametrize(
    ("text", "record", "time"),
    [
        ("0", 0, None),
        ("4711", 4711, None),
        ("1.5s", None, 1_500_000_000),
        ("200ms", None, 200_000_000),
        ("0.25us", None, 250),
        ("3µs", None, 3_000),
        ("17ns", None, 17),
        ("1.000000001s", None, 1_000_000_001),
        ("0.9ns", None, 0),
    ],
)
def test_until_is_a_record_or_a_time(text: str, record: int | None, time: int | None) -> None:
    assert Until.parse(text) == Until(record, time)


@pytest.mark.parametrize("text", ["", "-1", "1.5", "s", "1 s", "1h", "1e3s", "²", "9" * 40, "1" * 40 + "s"])
def test_until_that_is_neither_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match="neither a record nor a time"):
        Until.parse(text)


def test_until_record_does_not_read_the_next_one() -> None:
    records = small_machine().records

    def until_damage() -> Iterator[Record]:
        yield from records[:3]
        raise AssertionError("read on")

    assert list(Until(record=2).take(until_damage())) == records[:3]


def test_until_time_takes_what_is_not_later_in_every_channel() -> None:
    records = small_machine().records
    late, early = records[-1], records[0]

    assert list(Until(time=1_000_000).take([late, early, late])) == [early]
    assert list(Until(time=late.now).take([late, early])) == [late, early]


def test_device_is_found_by_name_or_type_in_any_case() -> None:
    assert DeviceChoice.parse("com2", CHANNELS).by_channel == (1, *[None] * 8)
    assert DeviceChoice.parse("UART", CHANNELS).by_channel == (-1, *[None] * 8)
    assert DeviceChoice.parse("i8042", CHANNELS).by_channel == (*[None] * 3, -1, *[None] * 5)
    assert DeviceChoice.parse(None, CHANNELS).by_channel == (-1,) * 9


def test_device_that_is_absent_is_a_usage_error_that_lists_the_others() -> None:
    with pytest.raises(UsageError, match="'floppy'") as caught:
        DeviceChoice.parse("floppy", CHANNELS)

    assert "COM1" in str(caught.value.hint)
    assert "rtc" in str(caught.value.hint)


def test_device_is_concerned_by_its_accesses_and_by_its_process() -> None:
    choice = DeviceChoice.parse("COM2", CHANNELS)

    concerned = [record for record in small_machine().records if choice.concerns(record)]

    assert {record.channel for record in concerned} == {UART}
    assert [(record.request[0], record.request[1]) for record in concerned] == [
        (1, 0),
        (3, 1),
        (2, 1),
        (6, 0),
    ]
