"""Tables of what was measured, as plain data, and as text or Markdown. Pure; `cli` prints them."""

from __future__ import annotations

from typing import Final

from kvmbox.base.value_classes import Value
from kvmbox.tools.bench.analysis import Cell, cells
from kvmbox.tools.bench.measuring_plan import NONE, START_PREFIX, Configuration, Plan, Row, Unit
from kvmbox.tools.bench.results import Results
from kvmbox.tools.bench.statistics import NOISY_WIDTH, Estimate, median

MIB: Final = 1 << 20
REASON_WIDTH: Final = 70
MIN_COVERAGE: Final = 0.5


class Table(Value):
    """A title, names of columns, and lines of texts. The first column is a name, and the last a remark if
    there are `remarks`: these are left-aligned. All others are numbers."""

    title: str
    columns: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]
    remarks: bool = True

    def is_left(self, index: int) -> bool:
        """Whether the column is left-aligned."""
        return index == 0 or (self.remarks and index == len(self.columns) - 1)


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
    """One table for each row, and one for the stages of a start."""
    found = [row_table(results, row) for row in results.rows if not row.name.startswith(START_PREFIX)]
    return [table for table in (*found, stage_table(results)) if table is not None]


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
    if int(facts.get("guest_cpus", 1)) > 1:
        host += f"; {facts['guest_cpus']} CPUs in each VM"
    hot_path = f"; hot path {facts['hot_path']}" if facts.get("hot_path") else ""
    covered = min(
        (one.value.covered for row in results.rows for one in cells(results, row) if one.value is not None),
        default=0.0,
    )
    rounds = f"{results.rounds} interleaved round{'s' if results.rounds != 1 else ''}"
    unfinished = "" if results.finished else " (not finished)"
    percent = int(covered * 1000) / 10  # rounded down: it is a promise
    worth = (
        f"intervals cover the true median with {percent:g} % or more; noisy (~): wider than {NOISY_WIDTH:.0%}"
        " or drifting"
        if covered >= MIN_COVERAGE
        else "too few rounds (~) for an interval that says much"
    )
    return [
        f"kvmbox {facts.get('kvmbox', '?')} bench on {host}{hot_path}",
        f"KVM backend {facts.get('kvm_backend', '?')}, {facts.get('cpus', '?')} CPUs, "
        f"TSC {int(facts.get('tsc_khz', 0)) / 1000:.0f} MHz, load {facts.get('load', '?')} at the start, "
        f"{facts.get('started', '')}",
        f"{rounds}{unfinished}; medians, ratios round by round; {worth}",
    ]


# --- Text ------------------------------------------------------------------------------------------------


def plain(table: Table) -> str:
    """The table as aligned text."""
    widths = [
        max(len(line[index]) for line in (table.columns, *table.lines)) for index in range(len(table.columns))
    ]
    rule = "  ".join("─" * width for width in widths).rstrip()
    lines = [table.title]
    for line in (table.columns, *table.lines):
        texts = (
            text.ljust(width) if table.is_left(index) else text.rjust(width)
            for index, (text, width) in enumerate(zip(line, widths, strict=True))
        )
        lines.append("  ".join(texts).rstrip())
        if line is table.columns:
            lines.append(rule)
    return "\n".join(lines) + "\n"


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|")


def grid(table: Table) -> str:
    """The table as Markdown, without its title, and without a line break at the end."""
    marks = (":--" if table.is_left(index) else "--:" for index in range(len(table.columns)))
    lines = ["| " + " | ".join(map(_escape, table.columns)) + " |", "|" + "|".join(marks) + "|"]
    lines += ["| " + " | ".join(map(_escape, line)) + " |" for line in table.lines]
    return "\n".join(lines)


def markdown(table: Table) -> str:
    """The table as Markdown, under a heading of the third level."""
    return f"### {table.title}\n\n{grid(table)}\n"


def _how(configuration: Configuration) -> str:
    """What chooses it: variables of the environment and options of `kvmbox run`, or its kind."""
    variables = [f"{name}={value}" for name, value in configuration.environment.items()]
    return " ".join((*variables, *configuration.options)) or configuration.kind


def plan_tables(plan: Plan) -> list[Table]:
    """What would be measured: rows and configurations, by name."""
    rows = tuple((row.name, row.job, row.title) for row in plan.rows)
    configurations: list[tuple[str, ...]] = [
        (one.name, _how(one), ", ".join(plan.jobs(one))) for one in plan.configurations
    ]
    return [
        Table("rows", ("row", "job", "what it measures"), rows),
        Table("configurations", ("configuration", "options", "jobs"), tuple(configurations)),
    ]
