"""What is answered from synthetic results."""

from __future__ import annotations

import pytest

from kvmbox.bench.answer import answer, answer_table, doubt
from kvmbox.bench.plan import choose
from kvmbox.bench.results import Results
from kvmbox.bench.statistics import estimate

ROUNDS = 7
MEASURED = {
    "none": 10_000.0,
    "process/filter/socketpair": 26_000.0,
    "process/filter/pipe": 18_000.0,
    "process/filter/shm": 11_000.0,
    "qemu": 8_000.0,
}


def results_of(values: dict[str, float]) -> Results:
    """Each configuration takes exactly `values` ns for the row that the answer is about, in every round."""
    results = Results.of(choose(peer=True), {})
    for name, value in values.items():
        for round_ in range(ROUNDS):
            results.record(round_, name, "inb_from_device", value)
    results.rounds, results.finished = ROUNDS, True
    return results


def test_answer_table_has_the_cost_and_the_answer_of_each_ipc() -> None:
    table = answer_table(results_of(MEASURED))
    assert table is not None
    assert table.lines == (
        ("socketpair", "2.60", "2.60–2.60", "+16.00", "3.25", "by choice", ""),
        ("pipe", "1.80", "1.80–1.80", "+8.00", "2.25", "by default", ""),
        ("shm", "1.10", "1.10–1.10", "+1.00", "1.38", "always", ""),
    )


def test_answer_table_leaves_out_what_was_not_measured() -> None:
    table = answer_table(results_of({"none": 10_000.0, "process/filter/pipe": 18_000.0}))
    assert table is not None
    assert [(line[0], line[4]) for line in table.lines] == [("pipe", "")]


@pytest.mark.parametrize("missing", ["none", "process"])
def test_nothing_to_compare_gives_no_table(missing: str) -> None:
    kept = {name: value for name, value in MEASURED.items() if not name.startswith(missing)}
    assert answer_table(results_of(kept)) is None


@pytest.mark.parametrize(("ratio", "expected"), [(1.25, "always"), (1.26, "by default"), (2.51, "by choice")])
def test_answer_changes_at_the_limits(ratio: float, expected: str) -> None:
    assert answer(estimate([ratio] * ROUNDS)) == expected


def test_interval_that_contains_a_limit_makes_the_answer_uncertain() -> None:
    assert doubt(estimate([1.2, 1.21, 1.22, 1.23, 1.24, 1.26, 1.3])).startswith("uncertain")
    assert doubt(estimate([1.10, 1.10, 1.11, 1.11, 1.11, 1.12, 1.12])) == ""
    assert doubt(estimate([1.0, 1.0])) == "too few rounds"
