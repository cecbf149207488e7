"""Tables of what was measured, as plain data, and as text or Markdown. Pure; `cli` prints them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from kvmbox.bench.analysis import Cell, added, cells, ratio
from kvmbox.bench.plan import FLOOR, MAIN, NONE, QEMU, START_PREFIX, Plan, Row, Unit
from kvmbox.bench.results import Results
from kvmbox.bench.statistics import NOISY_WIDTH, Estimate, median
from kvmbox.channel.transports import IPC_CHOICES

MIB: Final = 1 << 20
REASON_WIDTH: Final = 70
MIN_COVERAGE: Final = 0.5
CHOICE_ROW: Final = "inb_from_device"


@dataclass(frozen=True, slots=True)
class Table:
    """A title, names of columns, and lines of texts. The first column is a name, the last a remark: they are
    left-aligned; what is between them is numbers."""

    title: str
    columns: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]


def number(value: float, unit: Unit) -> str:
    """A value for a person, three to four digits: "12.3 µs", "1.25 ms", "14.2 MiB", "×3.1"."""
    if unit == "times":
        return f"×{value:.2f}"
    if unit == "bytes":
        return f"{value / MIB:.1f} MiB"
    per_byte = "/B" if unit == "ns/byte" else ""
    for limit, divisor, name in ((1e3, 1, "ns"), (1e6, 1e3, "µs"), (1e9, 1e6, "ms")):
        if value < limit * 0.9995:
            scaled = value / divisor
            digits = 0 if scaled >= 100 or divisor == 1 else 1 if scaled >= 10 else 2
            return f"{scaled:.{digits}f} {name}{per_byte}"
    return f"{value / 1e9:.2f} s{per_byte}"


def speed(value: float) -> str:
    """Bytes per second of so many ns per byte."""
    return f"{1e6 / value:.0f} kB/s" if value > 0 else "∞"


def ratio_text(estimate: Estimate | None) -> str:
    """A ratio for a person, or nothing."""
    return "" if estimate is None else f"{estimate.median:.2f}"


def ratio_range(estimate: Estimate | None) -> str:
    """The interval of a ratio for a person, or nothing."""
    return "" if estimate is None or estimate.count < 2 else f"{estimate.low:.2f}–{estimate.high:.2f}"


def _clip(text: str) -> str:
    return text if len(text) <= REASON_WIDTH else text[: REASON_WIDTH - 1] + "…"


def _remarks(one: Cell) -> str:
    found = []
    if one.value is not None and one.row.unit == "ns/byte":
        found.append(speed(one.value.median))
    if one.to_reference is not None:
        found.append(f"{one.to_reference.median:.2f} × {one.row.reference} ({ratio_range(one.to_reference)})")
    if one.noise:
        found.append(f"noisy: {one.noise}")
    if one.failure:
        found.append(_clip(one.failure))
    return "; ".join(found)


def _columns(*, peer: bool) -> tuple[str, ...]:
    return (
        "configuration",
        "median",
        "from–to",
        "× none",
        "from–to",
        "× floor",
        *(("× qemu",) if peer else ()),
        "",
    )


def _line(one: Cell, *, peer: bool) -> tuple[str, ...]:
    if one.value is None:
        return (one.configuration.name, "—", "", "", "", "", *(("",) if peer else ()), _clip(one.failure))
    unit = one.row.unit
    spread = f"{number(one.value.low, unit)}–{number(one.value.high, unit)}" if one.value.count > 1 else ""
    is_base = one.configuration.name == NONE
    return (
        one.configuration.name,
        number(one.value.median, unit),
        spread,
        ratio_text(one.to_none),
        "" if is_base else ratio_range(one.to_none),
        ratio_text(one.to_floor),
        *((ratio_text(one.to_peer),) if peer else ()),
        _remarks(one),
    )


def row_table(results: Results, row: Row) -> Table | None:
    """The table of one row, or None if nothing of it was measured or tried."""
    found = cells(results, row)
    if not found:
        return None
    peer = any(one.to_peer is not None for one in found)
    lines = tuple(_line(one, peer=peer) for one in found)
    return Table(f"{row.name}: {row.title}", _columns(peer=peer), lines)


def row_tables(results: Results) -> list[Table]:
    """One table for each row, one for the choices of the design space, one for the stages of a start, and the
    overview.
    """
    found = [row_table(results, row) for row in results.rows if not row.name.startswith(START_PREFIX)]
    found += [choice_table(results), stage_table(results), overview_table(results)]
    return [table for table in found if table is not None]


def overview_table(results: Results) -> Table | None:
    """Medians of all rows in the main configurations, a column each; None if there is little to see."""
    shown = [one for one in results.configurations if one.name in (FLOOR, *MAIN, QEMU)]
    lines = []
    for row in results.rows:
        medians = {one.configuration.name: one for one in cells(results, row) if one.value is not None}
        if row.name.startswith(START_PREFIX) or not any(one.name in medians for one in shown):
            continue
        texts = (_overview_cell(medians.get(one.name)) for one in shown)
        lines.append((row.name, *texts, ""))
    if len(shown) < 2 or len(lines) < 2:
        return None
    names = (one.name.removeprefix("process/filter/") for one in shown)
    return Table("overview: medians, and their ratio to none", ("row", *names, ""), tuple(lines))


def _overview_cell(one: Cell | None) -> str:
    if one is None or one.value is None:
        return "—"
    text = number(one.value.median, one.row.unit)
    if one.to_none is None or one.configuration.name in (NONE, FLOOR):
        return text
    return f"{text} ({ratio_text(one.to_none)})"


def _pairs() -> Iterator[tuple[str, str, str]]:
    """(what, one configuration, the one that it is compared with) of each choice that the RFC asked about."""
    for ipc in IPC_CHOICES:
        yield f"isolation over {ipc}", f"process/filter/{ipc}", NONE
    for ipc in IPC_CHOICES:
        yield f"a process, not a thread, {ipc}", f"process/filter/{ipc}", f"thread/{ipc}"
    for ipc in IPC_CHOICES:
        yield f"filter, not off, {ipc}", f"process/filter/{ipc}", f"process/off/{ipc}"
    for ipc in IPC_CHOICES:
        yield f"strict, not filter, {ipc}", f"process/strict/{ipc}", f"process/filter/{ipc}"
    for ipc in IPC_CHOICES:
        yield f"per-device, not process, {ipc}", f"per-device/filter/{ipc}", f"process/filter/{ipc}"
    for ipc in IPC_CHOICES:
        yield f"isolated, not QEMU, {ipc}", f"process/filter/{ipc}", QEMU


def choice_table(results: Results, row: str = CHOICE_ROW) -> Table | None:
    """What each choice costs by itself, for one row: ratio and difference, both round by round."""
    lines = []
    for what, one, other in _pairs():
        factor, more = ratio(results, row, one, row, other), added(results, row, one, other)
        if factor is None or more is None:
            continue
        spread = f"{difference(more.low)}–{difference(more.high)}" if more.count > 1 else ""
        remark = f"noisy: {factor.noise}" if factor.noise else ""
        lines.append((what, ratio_text(factor), ratio_range(factor), difference(more.median), spread, remark))
    columns = ("choice", "ratio", "from–to", "added, µs", "from–to", "")
    return Table(f"what each choice costs: {row}", columns, tuple(lines)) if lines else None


def difference(nanoseconds: float) -> str:
    """A difference of so many ns, in µs, with its sign."""
    return f"{nanoseconds / 1e3:+.2f}".replace("-", "−")


def stage_table(results: Results) -> Table | None:
    """The stages of a start, a column each, or None if no start was measured."""
    stages = [row for row in results.rows if row.name.startswith(START_PREFIX)]
    lines = []
    for configuration in results.configurations:
        values = [results.values(row.name, configuration.name) for row in stages]
        if any(values):
            texts = (number(median(found), "ns") if found else "—" for found in values)
            lines.append((configuration.name, *texts, ""))
    names = (row.name.removeprefix(START_PREFIX) for row in stages)
    return Table("start, by stage (medians)", ("configuration", *names, ""), tuple(lines)) if lines else None


def failure_table(results: Results) -> Table | None:
    """What could not be measured, and why."""
    lines = [
        (one.name, job, reason)
        for one in results.configurations
        for job, reason in sorted(results.failures.get(one.name, {}).items())
    ]
    return Table("not measured", ("configuration", "job", "reason"), tuple(lines)) if lines else None


def heading(results: Results) -> list[str]:
    """The lines that go before the tables: the host, and how to read them."""
    facts = results.facts
    host = ", ".join(str(facts[key]) for key in ("kernel", "processor", "python", "qemu") if facts.get(key))
    hot_path = f"; hot path {facts['hot_path']}" if facts.get("hot_path") else ""
    covered = min(
        (one.value.covered for row in results.rows for one in cells(results, row) if one.value is not None),
        default=0.0,
    )
    rounds = f"{results.rounds} interleaved round{'s' if results.rounds != 1 else ''}"
    unfinished = "" if results.finished else " (not finished)"
    percent = int(covered * 1000) / 10  # rounded down: it is a promise
    worth = (
        f"from–to covers the true median with {percent:g} % or more; noisy: wider than {NOISY_WIDTH:.0%}, or "
        "drifting"
        if covered >= MIN_COVERAGE
        else "too few rounds for an interval that says much"
    )
    return [
        f"kvmbox {facts.get('kvmbox', '?')} bench on {host}{hot_path}",
        f"KVM backend {facts.get('kvm_backend', '?')}, {facts.get('cpus', '?')} CPUs, "
        f"TSC {int(facts.get('tsc_khz', 0)) / 1000:.0f} MHz, load {facts.get('load', '?')} at the start, "
        f"{facts.get('started', '')}",
        f"{rounds}{unfinished}; medians, ratios round by round; {worth}",
    ]


# --- Text ------------------------------------------------------------------------------------------------


def _is_left(index: int, table: Table) -> bool:
    return index in (0, len(table.columns) - 1)


def plain(table: Table) -> str:
    """The table as aligned text."""
    widths = [
        max(len(line[index]) for line in (table.columns, *table.lines)) for index in range(len(table.columns))
    ]
    rule = "  ".join("─" * width for width in widths).rstrip()
    lines = [table.title]
    for line in (table.columns, *table.lines):
        texts = (
            text.ljust(width) if _is_left(index, table) else text.rjust(width)
            for index, (text, width) in enumerate(zip(line, widths, strict=True))
        )
        lines.append("  ".join(texts).rstrip())
        if line is table.columns:
            lines.append(rule)
    return "\n".join(lines) + "\n"


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|")


def markdown(table: Table) -> str:
    """The table as Markdown, under a heading of the third level."""
    marks = (":--" if _is_left(index, table) else "--:" for index in range(len(table.columns)))
    lines = [f"### {table.title}", "", "| " + " | ".join(map(_escape, table.columns)) + " |"]
    lines.append("|" + "|".join(marks) + "|")
    lines += ["| " + " | ".join(map(_escape, line)) + " |" for line in table.lines]
    return "\n".join(lines) + "\n"


def plan_tables(plan: Plan) -> list[Table]:
    """What would be measured: rows and configurations, by name."""
    rows = tuple((row.name, row.job, row.title) for row in plan.rows)
    configurations: list[tuple[str, ...]] = [
        (one.name, " ".join(one.options) or one.kind, ", ".join(plan.jobs(one)))
        for one in plan.configurations
    ]
    return [
        Table("rows", ("row", "job", "what it measures"), rows),
        Table("configurations", ("configuration", "options", "jobs"), tuple(configurations)),
    ]
