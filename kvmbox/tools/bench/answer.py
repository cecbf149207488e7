"""The tables over many rows, first of all the one that answers the RFC's question. Pure.

The RFC asked whether device models can always be isolated. The answer is a ratio for each kind of access: how
long it takes with a device process, over each ipc, compared with QEMU, whose models are in its own process.
Where QEMU was not measured, the ratio is to `none`, the same models without isolation.

`TABLES` has all of these tables by name. The command prints them, and a page has those that it names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from kvmbox.tools.bench import measuring_plan
from kvmbox.tools.bench.analysis import Cell, cell, cells, ratio
from kvmbox.tools.bench.measuring_plan import Row
from kvmbox.tools.bench.result_tables import Table, number, ratio_text
from kvmbox.tools.bench.results import Results
from kvmbox.tools.bench.statistics import Estimate, differences, median

ROW: Final = "outb_to_device"
"""An access of which the process has to be told at once, and that does least: nothing hides the way there."""

FEW: Final = 3
"""Fewer rounds than these say too little, however close they are."""


def _short(name: str) -> str:
    """A configuration as the head of a column."""
    return (
        "QEMU" if name == measuring_plan.QEMU else name.removeprefix("pure/").removeprefix("process/filter/")
    )


def _marked(estimate: Estimate | None) -> str:
    """A ratio, with a mark if it should not be relied on; a dash where there is none."""
    if estimate is None:
        return "—"
    return ratio_text(estimate) + (" ~" if estimate.noise or estimate.count < FEW else "")


def _medians(results: Results, row: Row) -> dict[str, Cell]:
    """Configuration → cell, of those that have a median."""
    return {one.configuration.name: one for one in cells(results, row) if one.value is not None}


def _rows(results: Results, names: Iterable[str]) -> list[Row]:
    known = {row.name: row for row in results.rows}
    return [known[name] for name in names if name in known]


def _measured(results: Results, names: Iterable[str], rows: Iterable[Row]) -> list[str]:
    """Those of the configurations `names` that have a number in some of `rows`."""
    found = {name for row in rows for name in _medians(results, row)}
    return [name for name in names if name in found]


def _table(title: str, heads: Iterable[str], lines: Iterable[tuple[str, ...]]) -> Table | None:
    return Table(title, tuple(heads), found, remarks=False) if (found := tuple(lines)) else None


def _with_qemu(results: Results, rows: Iterable[Row]) -> list[str]:
    return _measured(results, (*measuring_plan.MAIN, measuring_plan.QEMU), rows)


def _answers(
    results: Results, names: Iterable[str], title: str, accesses: Mapping[str, str] = measuring_plan.PRIMARY
) -> Table | None:
    rows = _rows(results, accesses)
    base = measuring_plan.QEMU if _measured(results, [measuring_plan.QEMU], rows) else measuring_plan.NONE
    columns = [name for name in _measured(results, names, rows) if name != base]
    lines = []
    for row in rows:
        medians = _medians(results, row)
        if base in medians and any(name in medians for name in columns):
            value = medians[base].value
            assert value is not None
            ratios = (_marked(ratio(results, row.name, name, row.name, base)) for name in columns)
            lines.append((accesses[row.name], number(value.median, row.unit), *ratios))
    what = "QEMU's time" if base == measuring_plan.QEMU else "the time without isolation"
    heads = ("access", f"{_short(base)}, time", *map(_short, columns))
    return _table(f"{title}, as multiples of {what}", heads, lines)


def answer_table(results: Results) -> Table | None:
    """The RFC's question: a line for each kind of access, a column for each ipc; None without a ratio."""
    return _answers(results, measuring_plan.MAIN, "the cost of isolation")


def added_table(results: Results) -> Table | None:
    """What each VMM adds to a bare exit, in µs, for each kind of access; None without the floor.

    A negative number is an access that mostly does not exit.
    """
    rows = _rows(
        results, titles := {ROW: "a write that the model has to see at once", **measuring_plan.PRIMARY}
    )
    columns = _with_qemu(results, rows)
    lines = []
    for row in rows:
        floor = results.series(row.name, measuring_plan.FLOOR)
        found = [differences(results.series(row.name, name), floor) for name in columns]
        if any(found):
            texts = ("—" if not one else f"{median(one) / 1000:.2f}" for one in found)
            lines.append((titles[row.name], *texts))
    return _table("added to a bare exit", ("access, µs", *map(_short, columns)), lines)


def pure_table(results: Results) -> Table | None:
    """The same with the hot path in pure Python; None if that was not measured."""
    return _answers(results, map(measuring_plan.pure, measuring_plan.MAIN), "the same in pure Python")


def io_table(results: Results) -> Table | None:
    """Disks and networks, as multiples of QEMU; None if that was not measured."""
    rows = {row.name: row.title for row in results.rows if row.job in measuring_plan.IO_JOBS}
    return _answers(results, measuring_plan.MAIN, "disks and networks", rows)


def busy_table(results: Results) -> Table | None:
    """What company costs: ratios to QEMU with the same company, and to oneself alone."""
    qemu = measuring_plan.QEMU
    rows = [row for row in results.rows if row.job == "crowd"]
    columns = _with_qemu(results, rows)
    if len(rows) < 2 or not columns:
        return None
    lines = []
    for row in rows:
        texts = []
        for name in columns:
            alone = _marked(ratio(results, row.name, name, row.reference or row.name, name))
            peer = "" if name == qemu else _marked(ratio(results, row.name, name, row.name, qemu))
            texts.append(f"{peer} ({alone})".strip())
        lines.append((row.title.removeprefix("IN from LSR, "), *texts))
    heads = ("read of the line status register", *map(_short, columns))
    title = "a busy host: as multiples of QEMU in the same company (and of oneself alone)"
    return _table(title, heads, lines)


def resource_table(results: Results) -> Table | None:
    """Starts and memory: medians, a column for each main configuration, and QEMU's."""
    rows = [
        row
        for row in results.rows
        if row.job not in ("accesses", "native", "crowd", *measuring_plan.IO_JOBS)
        and not row.name.startswith(measuring_plan.START_PREFIX)
    ]
    columns = _with_qemu(results, rows)
    lines = []
    for row in rows:
        medians = _medians(results, row)
        values = [medians[name].value if name in medians else None for name in columns]
        if any(values):
            texts = ("—" if one is None else number(one.median, row.unit) for one in values)
            lines.append((row.title, *texts))
    return _table("starts and memory", ("what", *map(_short, columns)), lines)


def choice_table(results: Results) -> Table | None:
    """What each other choice costs by itself, for one write over each ipc."""
    pairs = {
        "a process, not a thread": (measuring_plan.isolated, "thread/{}".format),
        "`filter`, not `off`": (measuring_plan.isolated, "process/off/{}".format),
        "`strict`, not `filter`": ("process/strict/{}".format, measuring_plan.isolated),
        "`per-device`, not `process`": ("per-device/filter/{}".format, measuring_plan.isolated),
        "pure Python, not compiled": (
            lambda ipc: measuring_plan.pure(measuring_plan.isolated(ipc)),
            measuring_plan.isolated,
        ),
    }
    lines = []
    for what, (one, other) in pairs.items():
        ratios = [ratio(results, ROW, one(ipc), ROW, other(ipc)) for ipc in measuring_plan.IPCS]
        if any(ratios):
            lines.append((what, *map(_marked, ratios)))
    return _table("what each choice costs", ("choice", *measuring_plan.IPCS), lines)


def overview_table(results: Results) -> Table | None:
    """Medians of all rows in the main configurations, a column each; None if there is little to see."""
    shown = [
        one
        for name in (measuring_plan.FLOOR, *measuring_plan.MAIN, measuring_plan.QEMU)
        for one in results.configurations
        if one.name == name
    ]
    rows = [row for row in results.rows if not row.name.startswith(measuring_plan.START_PREFIX)]
    lines = []
    for row in rows:
        found = [cell(results, row, one) for one in shown]
        if any(one.value is not None for one in found):
            lines.append((row.name, *map(_overview_cell, found)))
    if len(shown) < 2 or len(lines) < 2:
        return None
    heads = ("row", *(_short(one.name) for one in shown))
    return _table("all rows: medians, and their ratio to none", heads, lines)


def _overview_cell(one: Cell) -> str:
    if one.value is None:
        return "—"
    text = number(one.value.median, one.row.unit)
    if one.to_none is None or one.configuration.name in (measuring_plan.NONE, measuring_plan.FLOOR):
        return text
    return f"{text} ({ratio_text(one.to_none)})"


TABLES: Final[dict[str, Callable[[Results], Table | None]]] = {
    "overview": overview_table,
    "choices": choice_table,
    "resources": resource_table,
    "busy": busy_table,
    "pure": pure_table,
    "added": added_table,
    "disks": io_table,
    "answer": answer_table,
}
"""Name → table, in the order of a terminal: the answer stands where the reader looks, at the end."""
