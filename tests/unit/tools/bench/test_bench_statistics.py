"""Medians and intervals against values worked out by hand."""

from __future__ import annotations

import math
import random

import pytest

from kvmbox.tools.bench.statistics import coverage, drifted, estimate, interval, median, ratios


def test_median_of_odd_and_even_counts_is_the_middle() -> None:
    assert median([9.0, 1.0, 5.0]) == 5.0
    assert median([1.0, 9.0, 5.0, 7.0]) == 6.0


def test_median_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="nothing"):
        median([])
    with pytest.raises(ValueError, match="nothing"):
        interval([])


@pytest.mark.parametrize(
    ("count", "k", "expected"),
    [(1, 1, 0.0), (2, 1, 0.5), (5, 1, 1 - 2 / 32), (7, 1, 1 - 2 / 128), (7, 2, 1 - 16 / 128)],
)
def test_coverage_of_the_kth_from_each_end_is_binomial(count: int, k: int, expected: float) -> None:
    assert math.isclose(coverage(count, k), expected)


def test_coverage_is_how_often_the_interval_holds_the_true_median() -> None:
    source = random.Random(7)
    rounds = 4000
    held = 0
    for _ in range(rounds):
        # A skewed distribution whose median is ln 2.
        low, high, _ = interval([source.expovariate(1.0) for _ in range(11)])
        held += low <= math.log(2) <= high
    assert interval(list(range(11)))[2] == coverage(11, 2)
    assert abs(held / rounds - coverage(11, 2)) < 0.01


@pytest.mark.parametrize(("count", "k"), [(3, 1), (6, 1), (7, 1), (8, 1), (9, 2), (11, 2), (12, 3), (20, 6)])
def test_interval_takes_the_largest_k_that_covers_95_percent(count: int, k: int) -> None:
    values = [float(i) for i in range(count)]
    low, high, covered = interval(values[::-1])
    assert (low, high) == (values[k - 1], values[-k])
    assert covered == coverage(count, k)


def test_interval_of_too_few_is_the_range_and_says_what_it_covers() -> None:
    assert interval([3.0, 1.0, 2.0]) == (1.0, 3.0, 0.75)


def test_estimate_of_close_samples_is_not_noisy() -> None:
    found = estimate([100.0, 101.0, 99.0, 100.0, 102.0, 98.0, 100.0])
    assert (found.median, found.low, found.high, found.count) == (100.0, 98.0, 102.0, 7)
    assert found.noise == ""


def test_estimate_of_scattered_samples_is_noisy() -> None:
    assert estimate([100.0, 120.0, 90.0, 100.0, 101.0, 99.0, 100.0]).noise == "wide"


def test_estimate_of_samples_that_move_within_the_width_drifts() -> None:
    assert estimate([100.0, 100.5, 101.0, 108.0, 108.5, 109.0]).noise == "drifts"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.0, 1.0, 1.0, 2.0, 2.0, 2.0], True),
        ([2.0, 2.0, 2.0, 1.0, 1.0, 1.0], True),
        ([1.0, 1.0, 2.0, 1.5, 2.0, 2.0], False),  # they overlap
        ([1.0, 1.0, 1.0, 1.04, 1.04, 1.04], False),  # too little to matter
        ([1.0, 1.0, 2.0, 2.0], False),  # too few to tell
    ],
)
def test_drift_is_two_halves_apart_by_more_than_matters(values: list[float], expected: bool) -> None:
    assert drifted(values) is expected


def test_ratios_are_taken_round_by_round_and_skip_missing_rounds() -> None:
    assert ratios([2.0, None, 9.0, 8.0, 5.0], [1.0, 1.0, 3.0, None, 0.0]) == [2.0, 3.0]


def test_ratios_of_series_of_different_length_end_with_the_shorter() -> None:
    assert ratios([2.0, 4.0, 6.0], [2.0]) == [1.0]


def test_estimates_overlap_if_they_share_a_value() -> None:
    low, middle, high = estimate([1.0, 2.0]), estimate([2.0, 3.0]), estimate([3.5, 4.0])
    assert low.overlaps(middle)
    assert middle.overlaps(low)
    assert not middle.overlaps(high)
    assert not high.overlaps(middle)
