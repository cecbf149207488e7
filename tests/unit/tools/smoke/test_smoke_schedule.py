"""Selection, order, shards."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmbox.base.errors import UsageError
from kvmbox.tools.smoke.suite.schedule import Shard, failures_first, seconds_left, select, take_shard
from kvmbox.tools.smoke.suite.test_case import Test
from tests.support.smoke import a_test

TESTS = [
    a_test("vmexit_cpuid", groups=("vmexit",)),
    a_test("vmexit_ipi", groups=("vmexit", "smp")),
    a_test("long", groups=("slow",), manual="manual run"),
    a_test("pcid"),
]


def names(tests: list[Test]) -> list[str]:
    return [test.name for test in tests]


@pytest.mark.parametrize(
    ("groups", "filters", "chosen"),
    [
        ((), (), ["vmexit_cpuid", "vmexit_ipi", "long", "pcid"]),
        (("vmexit",), (), ["vmexit_cpuid", "vmexit_ipi"]),
        (("smp", "slow"), (), ["vmexit_ipi", "long"]),
        ((), ("pcid",), ["pcid"]),
        ((), ("cpuid", "lon"), ["vmexit_cpuid", "long"]),
        ((), ("vm*i",), ["vmexit_ipi"]),
        ((), ("suite/p*",), ["pcid"]),
        ((), ("suite/pcid",), ["pcid"]),
        (("vmexit",), ("ipi",), ["vmexit_ipi"]),
        (("slow",), ("ipi",), []),
    ],
)
def test_groups_and_filters(groups: tuple[str, ...], filters: tuple[str, ...], chosen: list[str]) -> None:
    assert names(select(TESTS, groups, filters)) == chosen


def test_manual_test_is_skipped_unless_it_is_asked_for() -> None:
    assert select(TESTS)[2].skip == "manual run"
    assert select(TESTS, filters=["long"])[0].skip is None
    assert select(TESTS, groups=["slow"])[0].skip is None


def test_misspelt_group_or_filter_is_an_error_and_not_an_empty_session() -> None:
    with pytest.raises(UsageError, match="--group 'smpp' has no test") as caught:
        select(TESTS, groups=["smpp"])
    assert caught.value.hint == "the groups are: slow, smp, vmexit"
    with pytest.raises(UsageError, match="--filter 'xyz' matches no test"):
        select(TESTS, filters=["pcid", "xyz"])
    with pytest.raises(UsageError) as caught:
        select([a_test()], groups=["x"])
    assert caught.value.hint == "no test is in a group"


@pytest.mark.parametrize(
    "text", ["", "1", "0/2", "3/2", "-1/2", "1/0", "a/b", "1/2/3", "1/100000", "²/3", "1 /2"]
)
def test_shard_that_is_none(text: str) -> None:
    with pytest.raises(UsageError, match="is not I/N") as caught:
        Shard.parse(text)
    assert caught.value.hint


@given(
    st.lists(st.integers(0, 100), max_size=20),
    st.integers(1, 6),
    st.sets(st.integers(0, 19)),
)
def test_shards_are_a_partition_in_order(costs: list[int], count: int, known: set[int]) -> None:
    tests = [a_test(f"t{number}") for number in range(len(costs))]
    seconds = {
        test.key: float(cost)
        for number, (test, cost) in enumerate(zip(tests, costs, strict=True))
        if number in known
    }
    parts = [take_shard(tests, Shard(number, count), seconds) for number in range(1, count + 1)]
    assert sorted(test.key for part in parts for test in part) == sorted(test.key for test in tests)
    for part in parts:
        assert part == [test for test in tests if test in part]


def test_shards_take_about_the_same_time() -> None:
    seconds = {f"suite/t{number}": cost for number, cost in enumerate([9.0, 1.0, 1.0, 5.0, 5.0, 1.0])}
    tests = [a_test(f"t{number}") for number in range(6)]
    parts = [take_shard(tests, Shard(number, 2), seconds) for number in (1, 2)]
    assert [sum(seconds[test.key] for test in part) for part in parts] == [11.0, 11.0]


def test_failures_come_first_and_the_rest_keeps_its_order() -> None:
    assert names(failures_first(TESTS, {"suite/pcid", "suite/vmexit_ipi", "suite/gone"})) == [
        *("vmexit_ipi", "pcid", "vmexit_cpuid", "long"),
    ]


def test_time_that_is_left() -> None:
    assert seconds_left(TESTS[:2], 0, 1, {}, None) is None
    assert seconds_left(TESTS[:2], 0, 1, {}, 3.0) == 6.0
    assert seconds_left(TESTS[:2], 1, 2, {"suite/vmexit_ipi": 10.0}, 2.0) == (2 + 10 + 1) / 2
    assert seconds_left(TESTS[:2], 0, 1, {"suite/vmexit_ipi": 10.0}, None) == 20.0
    assert seconds_left([], 0, 1, {}, 1.0) == 0.0
