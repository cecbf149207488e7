"""Two results: which numbers changed by more than they are worth. Pure.

Times of two runs are times of two moments of a host, perhaps of two hosts; so ratios to `none` are compared
wherever there are some, and values only for `none`, the floor, and what is compared with nothing. A change
counts if the two intervals have nothing in common. The interval of new ÷ old is
[new.low ÷ old.high, new.high ÷ old.low].
"""

from __future__ import annotations

from kvmbox.base.value_classes import Value
from kvmbox.tools.bench import result_tables
from kvmbox.tools.bench.analysis import Cell, cell
from kvmbox.tools.bench.measuring_plan import Row
from kvmbox.tools.bench.results import Results
from kvmbox.tools.bench.statistics import Estimate


class Change(Value):
    """One cell of both results. `basis` is what is compared: the ratio to `none`, or the value."""

    row: Row
    configuration: str
    basis: str
    old: Estimate
    new: Estimate

    @property
    def factor(self) -> float:
        """new ÷ old."""
        return self.new.median / self.old.median if self.old.median else float("inf")

    @property
    def bounds(self) -> tuple[float, float]:
        """Lowest and highest new ÷ old that the intervals allow."""
        low = self.new.low / self.old.high if self.old.high else 0.0
        return low, self.new.high / self.old.low if self.old.low else float("inf")

    @property
    def changed(self) -> bool:
        """Whether the two intervals have nothing in common."""
        return not self.old.overlaps(self.new)


def _basis(one: Cell) -> tuple[str, Estimate] | None:
    if one.value is None:
        return None
    if one.configuration.kind == "floor" or one.configuration.name == "none" or one.to_none is None:
        return "value", one.value
    return "× none", one.to_none


def changes(old: Results, new: Results) -> list[Change]:
    """All cells that both results have, in the order of the new one."""
    rows = {row.name: row for row in old.rows}
    configurations = {one.name: one for one in old.configurations}
    found = []
    for row in new.rows:
        for configuration in new.configurations:
            if row.name not in rows or configuration.name not in configurations:
                continue
            if rows[row.name].unit != row.unit:
                continue
            before = _basis(cell(old, rows[row.name], configurations[configuration.name]))
            after = _basis(cell(new, row, configuration))
            if before is not None and after is not None and before[0] == after[0]:
                found.append(Change(row, configuration.name, after[0], before[1], after[1]))
    return found


def _number(change: Change, value: float) -> str:
    return f"{value:.2f}" if change.basis != "value" else result_tables.number(value, change.row.unit)


def _line(change: Change) -> tuple[str, ...]:
    low, high = change.bounds
    word = "within the intervals"
    if change.changed:
        word = "lower" if change.factor < 1 else "HIGHER"
    return (
        f"{change.row.name} {change.configuration}",
        change.basis,
        _number(change, change.old.median),
        _number(change, change.new.median),
        f"{change.factor:.3f}",
        f"{low:.2f}–{high:.2f}",
        word + (" (noisy)" if change.old.noise or change.new.noise else ""),
    )


def table(old: Results, new: Results) -> result_tables.Table:
    """All changes as a table: smaller is better in every row."""
    return result_tables.Table(
        "new ÷ old",
        ("row, configuration", "of", "old", "new", "new ÷ old", "from–to", ""),
        tuple(_line(change) for change in changes(old, new)),
    )


def summary(old: Results, new: Results) -> list[str]:
    """What changed, in a few lines; first of all that the hosts are not the same, if they are not."""
    lines = []
    for key in ("processor", "kernel", "kvm_backend", "python", "kvmbox", "hot_path", "guest_cpus"):
        before, after = old.facts.get(key), new.facts.get(key)
        if before != after:
            lines.append(f"{key} differs: {before} → {after}")
    found = changes(old, new)
    if not found:
        return [*lines, "nothing to compare: the two results have no row and configuration in common"]
    moved = [change for change in found if change.changed]
    higher = sum(change.factor > 1 for change in moved)
    lines.append(
        f"{len(found)} compared: {higher} higher, {len(moved) - higher} lower, "
        f"{len(found) - len(moved)} within the intervals"
    )
    return lines
