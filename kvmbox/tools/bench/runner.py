"""The interleaving: which measurement is made when.

Machines get warm, and others use them. If all of one configuration were measured before all of the next, such
a drift would look like a difference. So each round measures every configuration once, one job after the
other, close to each other in time; and each round begins elsewhere and goes the other way round, so that no
configuration always has the same one before it. Ratios are taken within a round.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TypeAlias, TypeVar, get_args

from kvmbox.base.value_classes import Value
from kvmbox.tools.bench.measuring_plan import Configuration, Job, Plan, Row
from kvmbox.tools.bench.results import Results

_T = TypeVar("_T")


class StepResult(Value):
    """What one measurement gave: row → value, and what went wrong, if anything."""

    values: Mapping[str, float] = MappingProxyType({})
    problem: str = ""


Measure: TypeAlias = Callable[[Job, Configuration, Sequence[Row]], StepResult]


class Step(Value):
    """A measurement that is about to be made: the `number`-th, from 0, of `total`."""

    number: int
    total: int
    round: int
    job: Job
    configuration: Configuration


def order(items: Sequence[_T], round_: int, rounds: int) -> list[_T]:
    """`items` as round `round_` takes them: from another one each round, odd rounds backwards."""
    if not items:
        return []
    start = round_ * max(len(items) // max(rounds, 1), 1) % len(items)
    turned = [*items[start:], *items[:start]]
    return [turned[0], *turned[:0:-1]] if round_ % 2 else turned


def steps(plan: Plan) -> Iterator[tuple[int, Job, Configuration]]:
    """(round, job, configuration) of all measurements, in their order."""
    for round_ in range(plan.rounds):
        for job in get_args(Job):
            taking_part = [one for one in plan.configurations if job in plan.jobs(one)]
            for configuration in order(taking_part, round_, plan.rounds):
                yield round_, job, configuration


def measure_all(
    plan: Plan, results: Results, measure: Measure, *, before: Callable[[Step], None] = lambda _: None
) -> None:
    """Make all measurements of `plan`, into `results`, which always holds what there is so far.

    What `measure` raises goes through. A measurement that failed when it was first tried is not tried again:
    a configuration that this host refuses must not cost its time limit in every round.
    """
    everything = list(steps(plan))
    hopeless: set[tuple[Job, str]] = set()
    for number, (round_, job, configuration) in enumerate(everything):
        name = configuration.name
        if (job, name) not in hopeless:
            before(Step(number, len(everything), round_, job, configuration))
            outcome = measure(job, configuration, plan.rows_of(job, configuration))
            for row, value in outcome.values.items():
                results.record(round_, name, row, value)
            if outcome.problem:
                results.fail(name, job, outcome.problem)
                if round_ == 0 and not outcome.values:
                    hopeless.add((job, name))
        last_of_round = number + 1 == len(everything) or everything[number + 1][0] != round_
        if last_of_round:
            results.rounds = round_ + 1
    results.finished = True
