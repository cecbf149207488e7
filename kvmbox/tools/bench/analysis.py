"""Samples to numbers that can be compared: pure.

A *cell* is one row of one configuration: its median, and its ratios. Ratios are taken round by round, and the
median of those is what is shown: a round in which the whole machine was slow disturbs them little.
"""

from __future__ import annotations

from kvmbox.base.value_classes import Value
from kvmbox.tools.bench.measuring_plan import FLOOR, NONE, QEMU, Configuration, Row
from kvmbox.tools.bench.results import Results
from kvmbox.tools.bench.statistics import Estimate, estimate, ratios


class Cell(Value):
    """One row of one configuration. Ratios are None where there is nothing to divide by.

    `to_reference` is the ratio to `row.reference` in the same configuration. `failure` says why there is
    nothing, or not all.
    """

    row: Row
    configuration: Configuration
    value: Estimate | None
    to_none: Estimate | None = None
    to_floor: Estimate | None = None
    to_peer: Estimate | None = None
    to_reference: Estimate | None = None
    failure: str = ""

    @property
    def noise(self) -> str:
        """Why this number should not be trusted, or an empty text: the ratio decides where there is one."""
        deciding = (
            self.to_none if self.to_none is not None and self.configuration.name != NONE else self.value
        )
        return deciding.noise if deciding is not None else ""


def ratio(
    results: Results, row: str, configuration: str, to_row: str, to_configuration: str
) -> Estimate | None:
    """The median of the per-round ratios of two cells, or None if no round has both."""
    found = ratios(results.series(row, configuration), results.series(to_row, to_configuration))
    return estimate(found) if found else None


def cell(results: Results, row: Row, configuration: Configuration) -> Cell:
    """All that is known of one row in one configuration."""
    name = configuration.name
    values = results.values(row.name, name)
    failure = results.failures.get(name, {}).get(row.job, "")
    if not values:
        return Cell(row, configuration, None, failure=failure)
    return Cell(
        row,
        configuration,
        estimate(values),
        ratio(results, row.name, name, row.name, NONE),
        ratio(results, row.name, name, row.name, FLOOR),
        ratio(results, row.name, name, row.name, QEMU),
        ratio(results, row.name, name, row.reference, name) if row.reference is not None else None,
        failure if len(values) < results.rounds else "",
    )


def cells(results: Results, row: Row) -> list[Cell]:
    """The cells of a row that were measured, or should have been, in the order of the configurations."""
    found = [cell(results, row, configuration) for configuration in results.configurations]
    return [one for one in found if one.value is not None or one.failure]
