"""The interleaving, with measurements that are made up."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest

from kvmbox.tools.bench.measuring_plan import Configuration, Job, Row, choose
from kvmbox.tools.bench.results import Results
from kvmbox.tools.bench.runner import Step, StepResult, measure_all, order, steps

ONLY = ["post", "pss", "process/filter/*[!o]"]  # all but auto


class FakeHost:
    """Answers each measurement with the number of measurements so far."""

    def __init__(self, failing: dict[tuple[str, int], str] | None = None) -> None:
        self.asked: list[tuple[Job, str]] = []
        self.failing = failing or {}

    def measure(self, job: Job, configuration: Configuration, rows: Sequence[Row]) -> StepResult:
        self.asked.append((job, configuration.name))
        times = self.asked.count((job, configuration.name))
        problem = self.failing.get((configuration.name, times))
        if problem is not None:
            return StepResult({}, problem)
        return StepResult({row.name: float(len(self.asked)) for row in rows})


@pytest.mark.parametrize("count", [1, 2, 3, 5, 17])
@pytest.mark.parametrize("rounds", [1, 3, 7])
def test_order_has_everything_once_in_each_round(count: int, rounds: int) -> None:
    for round_ in range(rounds):
        assert sorted(order(range(count), round_, rounds)) == list(range(count))


def test_order_begins_elsewhere_and_turns_round() -> None:
    rounds = [order("abcdef", round_, 3) for round_ in range(3)]
    assert ["".join(items) for items in rounds] == ["abcdef", "cbafed", "efabcd"]


@pytest.mark.parametrize("count", [4, 18])
def test_order_begins_each_round_with_another_one_while_there_are_others(count: int) -> None:
    first = [order(range(count), round_, 7)[0] for round_ in range(7)]
    assert len(set(first)) == min(count, 7)


def test_order_gives_no_configuration_always_the_same_one_before_it() -> None:
    before: dict[str, set[str]] = {}
    for round_ in range(7):
        items = order("abcdefghijklmnopq", round_, 7)
        for first, second in pairwise(items):
            before.setdefault(second, set()).add(first)
    assert all(len(found) > 1 for found in before.values())


def test_steps_measure_each_configuration_once_in_each_round() -> None:
    plan = choose(only=ONLY, rounds=4)
    found = list(steps(plan))
    assert len(found) == len(set(found)) == 4 * (5 + 4)  # post also at the floor, pss not
    assert [round_ for round_, _, _ in found] == sorted(round_ for round_, _, _ in found)


def test_measure_all_keeps_one_sample_per_round() -> None:
    plan = choose(only=ONLY, rounds=3)
    results = Results.of(plan, {})
    measure_all(plan, results, FakeHost().measure)
    assert results.finished
    assert results.rounds == 3
    assert [len(results.values("post", one.name)) for one in plan.configurations] == [3] * 5
    assert results.values("pss", "floor") == []
    assert results.failures == {}


def test_measure_all_tells_each_step_before_it() -> None:
    plan = choose(only=ONLY, rounds=2)
    told: list[Step] = []
    measure_all(plan, Results.of(plan, {}), FakeHost().measure, before=told.append)
    assert [step.number for step in told] == list(range(18))
    assert {step.total for step in told} == {18}


def test_measurement_that_fails_at_first_is_not_tried_again() -> None:
    plan = choose(only=ONLY, rounds=3)
    results = Results.of(plan, {})
    host = FakeHost({("process/filter/pipe", 1): "refused here"})
    measure_all(plan, results, host.measure)
    assert host.asked.count(("accesses", "process/filter/pipe")) == 1
    assert results.failures["process/filter/pipe"]["accesses"] == "refused here"
    assert results.values("post", "process/filter/pipe") == []
    assert results.finished


def test_measurement_that_fails_later_leaves_a_gap_and_is_tried_again() -> None:
    plan = choose(only=["post"], rounds=3)
    results = Results.of(plan, {})
    measure_all(plan, results, FakeHost({("none", 2): "hung"}).measure)
    series = results.series("post", "none")
    assert [value is None for value in series] == [False, True, False]
    assert results.failures == {"none": {"accesses": "hung"}}


def test_partial_outcome_keeps_its_values_and_its_problem() -> None:
    plan = choose(only=["pss", "memory_alone", "none"], rounds=2)
    results = Results.of(plan, {})
    measure_all(plan, results, lambda *_: StepResult({"pss": 5.0}, "not root"))
    assert results.values("pss", "none") == [5.0, 5.0]
    assert results.values("memory_alone", "none") == []
    assert results.failures["none"] == {"memory": "not root"}


def test_interruption_goes_through_and_leaves_what_there_is() -> None:
    plan = choose(only=["post"], rounds=3)
    results = Results.of(plan, {})
    host = FakeHost()

    def measure(job: Job, configuration: Configuration, rows: Sequence[Row]) -> StepResult:
        if len(host.asked) == len(plan.configurations) + 2:
            raise KeyboardInterrupt
        return host.measure(job, configuration, rows)

    with pytest.raises(KeyboardInterrupt):
        measure_all(plan, results, measure)
    assert not results.finished
    assert results.rounds == 1
    assert sum(len(results.values("post", one.name)) for one in plan.configurations) == len(host.asked)


def test_stages_of_a_start_become_rows_behind_it() -> None:
    plan = choose(only=["start", "pss", "none"], rounds=1)
    results = Results.of(plan, {})

    def measure(job: Job, *_: object) -> StepResult:
        return StepResult(
            {"start": 9.0, "start: imports": 4.0, "start: guest": 5.0} if job == "start" else {"pss": 1.0}
        )

    measure_all(plan, results, measure)
    assert [row.name for row in results.rows] == ["start", "start: imports", "start: guest", "pss"]
    assert results.values("start: guest", "none") == [5.0]
