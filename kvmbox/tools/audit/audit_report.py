"""What an audit found, as tables for people and as JSON. Who prints it is the command's business."""

from __future__ import annotations

import os
import platform
from collections import Counter
from typing import Any, Final

from kvmbox import __version__
from kvmbox.jail import layers
from kvmbox.remote.process.device_pool import SECCOMP_MODES
from kvmbox.tools.audit.attack_result import BAD, Ended, ProbeVerdict, Result
from kvmbox.tools.audit.run_audit import Finding, ProbeReport, Report

SCHEMA_VERSION: Final = 1
MODE_NAMES: Final = {mode: name for name, mode in SECCOMP_MODES.items()}

NOT_HIDDEN: Final = "seccomp filter does not hide time, strict does"
CHANNEL: Final = "the VMM's channel"

Row = tuple[str, ...]


def ended(report: ProbeReport, finding: Finding, target: str = "") -> str:
    """How the attack ended in `target`, for people; with the reason where no layer is to blame."""
    probe, control = report.probe, report.control_of(target)
    text = str(finding.result)
    if text == "came to nothing":
        text = probe.unsuccessful
    if finding.verdict is ProbeVerdict.OPEN:
        text += f": {probe.open_reason}"
    if finding.verdict is ProbeVerdict.IMPOSSIBLE and control not in (None, finding.result):
        text += f"; without any layer: {control}"
    return text


def findings_table(report: Report) -> tuple[Row, list[Row]]:
    """(headings, rows): one row a probe, or one for each group of device types that differ."""
    headings = ("probe", "tries to", "verdict", "how it ended", "stopped by")
    rows: list[Row] = []
    for one in report.probes:
        name, tries = one.probe.name, one.probe.tries
        if not one.findings:
            why = NOT_HIDDEN if one.probe.strict_only else "not a target of these"
            rows.append((name, tries, ProbeVerdict.INAPPLICABLE.value, why, ""))
            continue
        kinds: dict[Row, list[str]] = {}
        for device_type, finding in one.findings.items():
            verdict = _verdict_word(report, finding)
            kind: Row = (verdict, ended(one, finding, device_type), stopper(finding))
            kinds.setdefault(kind, []).append(device_type)
        for kind, types in kinds.items():
            label = name if len(kinds) == 1 else f"{name} ({', '.join(types)})"
            rows.append((label, tries, *kind))
    return headings, rows


def _verdict_word(report: Report, finding: Finding) -> str:
    if not report.options.control:
        return finding.verdict.value
    return "effective" if finding.result.effective else ProbeVerdict.IMPOSSIBLE.value


def matrix_table(report: Report) -> tuple[Row, list[Row]]:
    """(headings, rows) of probe × layer: what each layer does by itself.

    'X' where the layer alone stops the probe, '.' where it does not, '?' where it was not tried, '-' where
    the probe does not succeed without any layer either.
    """
    columns = report.removable(report.layers)
    headings = ("probe", *(str(number) for number, _ in enumerate(columns, 1)), "without seccomp: stopped by")
    rows: list[Row] = []
    for one in report.probes:
        possible = one.control is None or one.control.effective
        cells = [_cell(one.alone.get(layer)) if possible else "-" for layer in columns]
        removed = one.removed.get(layers.SECCOMP)
        rows.append((one.probe.name, *cells, "" if removed is None else _stands(removed)))
    return headings, rows


def matrix_legend(report: Report) -> list[str]:
    """The layers by the numbers that head the columns, and what cannot be left out."""
    columns = report.removable(report.layers)
    lines = []
    for number, layer in enumerate(columns, 1):
        beside = report.beside.get(layer, 0)
        with_it = f" (tried beside {', '.join(layers.names(beside))})" if beside else ""
        lines.append(f"{number:>3} {layers.NAMES[layer]}{with_it}")
    if report.kept:
        lines.append(f"always there, in the control run too: {', '.join(layers.names(report.kept))}")
    return lines


def _cell(result: Result | None) -> str:
    if result is None:
        return "?"
    return "." if result.effective else "X"


def _stands(finding: Finding) -> str:
    return "nothing: it succeeds" if finding.result.effective else stopper(finding)


def stopper(finding: Finding) -> str:
    """Who stopped it, for people; empty where nobody did."""
    if finding.result.ended is Ended.REFUSED:
        return CHANNEL
    return (" with " if finding.together else " or ").join(layers.names(finding.stopped_by))


def removals(report: Report) -> list[str]:
    """A line for each layer that was removed: what opens, or what stands in for it."""
    lines = []
    for layer, name in layers.NAMES.items():
        if layer in report.inseparable:
            lines.append(f"without {name}: not tried: {report.inseparable[layer]}")
            continue
        found = [
            (one, one.removed[layer])
            for one in report.probes
            if layer in one.removed and ProbeVerdict.CONTAINED in {f.verdict for f in one.findings.values()}
        ]
        if not found:
            continue
        opened = [one.probe.name for one, finding in found if finding.verdict in BAD]
        instead = Counter(
            stopper(finding) or "several together"
            for one, finding in found
            if finding.verdict not in BAD
            and finding.stopped_by != next(iter(one.findings.values())).stopped_by
        )
        parts = [f"opens {', '.join(opened)}" if opened else "opens nothing"]
        if instead:
            parts.append("instead: " + ", ".join(f"{who} {count}" for who, count in instead.most_common()))
        gone = report.also_gone.get(layer, 0)
        with_it = f" (and with it {', '.join(layers.names(gone))})" if gone else ""
        lines.append(f"without {name}{with_it}: {'; '.join(parts)}")
    return lines


def summary(report: Report) -> str:
    """One paragraph: how many of what, under which layers."""
    options = report.options
    if options.control:
        effective = sum(
            all(finding.result.effective for finding in one.findings.values()) and bool(one.findings)
            for one in report.probes
        )
        impossible = len(report.probes) - effective
        kept = f" ({', '.join(layers.names(report.kept))} cannot be left out)" if report.kept else ""
        return (
            f"control, without any layer{kept}: {effective} of {len(report.probes)} probes succeed, "
            f"{impossible} not possible here"
        )
    counts = ", ".join(
        f"{report.count(verdict)} {verdict.value}" for verdict in ProbeVerdict if report.count(verdict)
    )
    left_out = ""
    if options.without & ~report.layers:
        left_out += f", without {', '.join(layers.names(options.without & ~report.layers))}"
    if options.without & report.layers:
        left_out += f", with {', '.join(layers.names(options.without & report.layers))} all the same"
    return (
        f"{len(report.probes)} probes, {_targets(report)}, "
        f"seccomp {MODE_NAMES[options.conditions.mode]}, ipc {options.ipc}{left_out}: {counts}"
    )


def _targets(report: Report) -> str:
    options = report.options
    parts = [f"device types {', '.join(options.types)}"] if options.types else []
    parts += [f"threads of kvmbox itself {', '.join(options.threads)}"] if options.threads else []
    return ", ".join(parts)


def as_data(report: Report) -> dict[str, Any]:
    """The report as JSON data; docs/audit.md describes it."""
    options = report.options
    return {
        "schema": SCHEMA_VERSION,
        "kvmbox": __version__,
        "host": {
            "kernel": platform.release(),
            "machine": platform.machine(),
            "python": platform.python_version(),
            "uid": os.geteuid(),
        },
        "options": {
            "types": list(options.types),
            "threads": list(options.threads),
            "seccomp": MODE_NAMES[options.conditions.mode],
            "ipc": options.ipc,
            "without": layers.names(options.without),
            "control": options.control,
            "matrix": options.matrix,
        },
        "layers": layers.names(report.layers),
        "vmm_layers": layers.names(report.vmm_layers),
        "cannot_be_left_out": layers.names(report.kept),
        "status": report.status,
        "counts": {verdict.value: report.count(verdict) for verdict in ProbeVerdict},
        "also_gone": {
            layers.NAMES[layer]: layers.names(gone) for layer, gone in report.also_gone.items() if gone
        },
        "alone_beside": {
            layers.NAMES[layer]: layers.names(beside) for layer, beside in report.beside.items() if beside
        },
        "inseparable": {layers.NAMES[layer]: why for layer, why in report.inseparable.items()},
        "probes": [_probe_data(one) for one in report.probes],
    }


def _probe_data(one: ProbeReport) -> dict[str, Any]:
    return {
        "name": one.probe.name,
        "group": one.probe.group,
        "tries": one.probe.tries,
        "verdict": one.verdict.value,
        "control": None if one.control is None else _result_data(one.control),
        "types": {name: _finding_data(finding) for name, finding in one.findings.items()},
        "thread_controls": {name: _result_data(result) for name, result in one.thread_controls.items()},
        "alone": {layers.NAMES[layer]: _result_data(result) for layer, result in one.alone.items()},
        "removed": {layers.NAMES[layer]: _finding_data(finding) for layer, finding in one.removed.items()},
    }


def _result_data(result: Result) -> dict[str, Any]:
    return {
        "effective": result.effective,
        "ended": result.ended.value,
        "call": result.call or None,
        "number": result.number,
        "text": str(result),
    }


def _finding_data(finding: Finding) -> dict[str, Any]:
    return {
        **_result_data(finding.result),
        "verdict": finding.verdict.value,
        "stopped_by": ["channel"]
        if finding.result.ended is Ended.REFUSED
        else layers.names(finding.stopped_by),
        "together": finding.together,
    }
