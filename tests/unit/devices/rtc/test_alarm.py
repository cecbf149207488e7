"""The alarm search, against a walk over every second of a day."""

from __future__ import annotations

import pytest

from kvmbox.devices.rtc.alarm import seconds_to_alarm


def walk(start: int, hour: int | None, minute: int | None, second: int | None) -> int | None:
    for count in range(1, 86_401):
        now = (start + count) % 86_400
        if hour in (None, now // 3600) and minute in (None, now // 60 % 60) and second in (None, now % 60):
            return count
    return None


@pytest.mark.parametrize(
    ("start", "alarm", "expected"),
    [
        (0, (None, None, None), 1),
        (86_399, (None, None, None), 1),
        (0, (0, 0, 0), 86_400),
        (86_399, (0, 0, 0), 1),
        (10, (None, None, 10), 60),
        (10, (None, None, 11), 1),
        (3_599, (None, 0, None), 1),
        (59, (None, 0, None), 3_541),
        (3_599, (0, None, None), 82_801),
        (3_598, (0, None, None), 1),
        (7_199, (1, 59, 59), 86_400),
        (0, (23, 59, 59), 86_399),
    ],
)
def test_alarm_search_finds_the_next_match(
    start: int, alarm: tuple[int | None, int | None, int | None], expected: int
) -> None:
    assert seconds_to_alarm(start, *alarm) == expected == walk(start, *alarm)


@pytest.mark.parametrize("alarm", [(24, 0, 0), (-1, 0, 0), (0, 60, 0), (0, -1, 0), (0, 0, 60), (0, 0, -1)])
def test_alarm_search_of_impossible_value_gives_none(alarm: tuple[int, int, int]) -> None:
    assert seconds_to_alarm(0, *alarm) is None


@pytest.mark.parametrize("hour", [None, 0, 11, 23])
@pytest.mark.parametrize("minute", [None, 0, 30, 59])
@pytest.mark.parametrize("second", [None, 0, 29, 59])
def test_alarm_search_agrees_with_a_walk(hour: int | None, minute: int | None, second: int | None) -> None:
    for start in (
        0,
        29,
        58,
        59,
        60,
        1_829,
        3_539,
        3_598,
        3_599,
        3_600,
        41_399,
        43_199,
        82_799,
        86_340,
        86_398,
        86_399,
    ):
        assert seconds_to_alarm(start, hour, minute, second) == walk(start, hour, minute, second)
