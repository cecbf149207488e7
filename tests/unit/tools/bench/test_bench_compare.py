"""Two results against each other."""

from __future__ import annotations

import pytest

from kvmbox.tools.bench.compare import Change, changes, summary, table
from kvmbox.tools.bench.measuring_plan import FLOOR, NONE, choose
from kvmbox.tools.bench.results import Results

SHM = "process/filter/shm"


def results_of(values: dict[str, list[float]], kernel: str = "Linux 6.1") -> Results:
    results = Results.of(choose(only=["post", SHM]), {"kernel": kernel, "kvmbox": "1"})
    for name, series in values.items():
        for round_, value in enumerate(series):
            results.record(round_, name, "post", value)
    results.rounds = 3
    return results


OLD = {FLOOR: [8.0, 8.1, 8.2], NONE: [10.0, 10.0, 10.0], SHM: [11.0, 11.1, 11.2]}


def find(old: Results, new: Results, name: str) -> Change:
    return next(change for change in changes(old, new) if change.configuration == name)


def test_same_results_have_not_changed() -> None:
    found = changes(results_of(OLD), results_of(OLD))
    assert len(found) == 3
    assert not any(change.changed for change in found)
    assert {change.factor for change in found} == {1.0}


def test_isolated_configuration_is_compared_by_its_ratio_to_none() -> None:
    # A host that is twice as slow throughout.
    slow = {name: [value * 2 for value in series] for name, series in OLD.items()}
    change = find(results_of(OLD), results_of(slow), SHM)
    assert change.basis == "× none"
    assert not change.changed
    assert change.factor == 1.0
    base = find(results_of(OLD), results_of(slow), NONE)
    assert (base.basis, base.changed, base.factor) == ("value", True, 2.0)


def test_change_beyond_both_intervals_is_one_and_has_bounds() -> None:
    change = find(results_of(OLD), results_of(OLD | {SHM: [14.0, 15.0, 16.0]}), SHM)
    assert change.changed
    low, high = change.bounds
    assert low == pytest.approx(1.4 / 1.12)
    assert high == pytest.approx(1.6 / 1.1)
    assert low < change.factor < high


def test_change_within_an_interval_is_none() -> None:
    assert not find(results_of(OLD), results_of(OLD | {SHM: [11.2, 12.0, 12.0]}), SHM).changed


def test_table_says_which_way_a_number_went() -> None:
    lines = {line[0]: line for line in table(results_of(OLD), results_of(OLD | {SHM: [5.0, 5.0, 5.0]})).lines}
    assert lines[f"post {SHM}"][1:5] == ("× none", "1.11", "0.50", "0.450")
    assert lines[f"post {SHM}"][-1] == "lower"
    assert lines[f"post {NONE}"][-1] == "within the intervals"
    higher = {line[0]: line for line in table(results_of(OLD), results_of(OLD | {SHM: [50.0] * 3})).lines}
    assert higher[f"post {SHM}"][-1] == "HIGHER"


def test_noisy_number_is_marked() -> None:
    lines = {
        line[0]: line for line in table(results_of(OLD), results_of(OLD | {SHM: [8.0, 11.0, 14.0]})).lines
    }
    assert lines[f"post {SHM}"][-1] == "within the intervals (noisy)"


def test_summary_counts_and_names_what_differs_between_the_hosts() -> None:
    lines = summary(results_of(OLD), results_of(OLD | {SHM: [50.0] * 3}, kernel="Linux 7"))
    assert lines == [
        "kernel differs: Linux 6.1 → Linux 7",
        "3 compared: 1 higher, 0 lower, 2 within the intervals",
    ]


def test_results_without_a_common_cell_are_not_compared() -> None:
    other = Results.of(choose(only=["pss", SHM]), {"kernel": "Linux 6.1", "kvmbox": "1"})
    assert changes(results_of(OLD), other) == []
    assert "nothing to compare" in summary(results_of(OLD), other)[-1]


def test_reference_of_nothing_is_no_division() -> None:
    # A row may be 0 in every round, as a stage that takes no time.
    change = find(results_of(OLD | {NONE: [0.0] * 3}), results_of(OLD), NONE)
    assert change.factor == float("inf")
    assert change.bounds == (0.0, float("inf"))
