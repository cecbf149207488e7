"""Tables and JSON, from findings that are made up."""

from __future__ import annotations

import errno
import json

from kvmbox.jail import layers
from kvmbox.tools.audit.attack_result import Ended, ProbeVerdict, Result
from kvmbox.tools.audit.audit_report import (
    as_data,
    findings_table,
    matrix_legend,
    matrix_table,
    removals,
    summary,
)
from kvmbox.tools.audit.probe_catalogue import Probe
from kvmbox.tools.audit.run_audit import Finding, Options, ProbeReport, Report

IN_FORCE = layers.SECCOMP | layers.RLIMITS | layers.CLOSED_DESCRIPTORS
YES = Result(Ended.FINISHED, 0, effective=True)
HELD = Result(Ended.FORBIDDEN, IN_FORCE, call="openat")
LIMITED = Result(Ended.FAILED, IN_FORCE, call="openat", number=errno.EMFILE)


def contained(result: Result = HELD, by: int = layers.SECCOMP) -> Finding:
    return Finding(result, ProbeVerdict.CONTAINED, by)


def report(one: ProbeReport, **options: object) -> Report:
    made = Report(Options(types=("uart", "rtc"), **options), [one])  # type: ignore[arg-type]
    made.layers, made.kept = IN_FORCE, layers.CLOSED_DESCRIPTORS
    return made


def probe(**more: object) -> Probe:
    return Probe("peek", "files", "peek", "nothing", **more)  # type: ignore[arg-type]


def test_table_types_alike_share_a_row() -> None:
    one = ProbeReport(probe(), YES, {"uart": contained(), "rtc": contained()})

    assert findings_table(report(one))[1] == [("peek", "peek", "contained", "killed at openat", "seccomp")]


def test_table_layers_that_suffice_alone_and_layers_that_it_takes_together_read_differently() -> None:
    both = layers.SECCOMP | layers.RLIMITS
    each = ProbeReport(probe(), YES, {"uart": contained(by=both)})
    together = ProbeReport(probe(), YES, {"uart": Finding(HELD, ProbeVerdict.CONTAINED, both, together=True)})

    assert findings_table(report(each))[1][0][4] == "seccomp or rlimits"
    assert findings_table(report(together))[1][0][4] == "seccomp with rlimits"


def test_table_types_that_differ_have_a_row_each() -> None:
    other = Finding(YES, ProbeVerdict.ESCAPED, 0)
    rows = findings_table(report(ProbeReport(probe(), YES, {"uart": contained(), "rtc": other})))[1]

    assert rows == [
        ("peek (uart)", "peek", "contained", "killed at openat", "seccomp"),
        ("peek (rtc)", "peek", "ESCAPED", "succeeded", ""),
    ]


def test_table_not_possible_here_says_how_it_ended_without_any_layer() -> None:
    control = Result(Ended.FAILED, 0, call="openat", number=errno.ENOENT)
    finding = Finding(HELD, ProbeVerdict.IMPOSSIBLE, layers.SECCOMP)
    row = findings_table(report(ProbeReport(probe(), control, {"uart": finding})))[1][0]

    assert row[2:4] == ("not possible here", "killed at openat; without any layer: openat: ENOENT")


def test_table_probe_without_findings_is_not_applicable() -> None:
    assert findings_table(report(ProbeReport(probe(strict_only=True))))[1][0][2] == "not applicable"


def test_status_is_12_for_one_type_that_lets_something_out() -> None:
    escaped = Finding(YES, ProbeVerdict.ESCAPED, 0)
    unclear = Finding(Result(Ended.SILENT, 0), ProbeVerdict.UNCLEAR, 0)
    documented = Finding(YES, ProbeVerdict.OPEN, 0)

    for finding, status in ((escaped, 12), (unclear, 12), (documented, 0), (contained(), 0)):
        assert report(ProbeReport(probe(), YES, {"uart": contained(), "rtc": finding})).status == status


def test_status_of_a_control_run_is_0_though_everything_succeeds() -> None:
    escaped = Finding(YES, ProbeVerdict.ESCAPED, 0)

    assert report(ProbeReport(probe(), YES, {"uart": escaped}), control=True).status == 0


def test_matrix_shows_what_each_layer_does_alone_and_what_stands_behind_the_filter() -> None:
    one = ProbeReport(probe(), YES, {"uart": contained()})
    one.alone = {layers.SECCOMP: HELD}
    one.removed = {layers.SECCOMP: contained(LIMITED, layers.RLIMITS)}
    made = report(one, matrix=True)
    made.beside = {layers.RLIMITS: layers.LANDLOCK}

    headings, rows = matrix_table(made)
    assert headings[1:3] == ("1", "2")
    assert rows == [("peek", "X", "?", "rlimits")]
    assert matrix_legend(made)[:2] == ["  1 seccomp", "  2 rlimits (tried beside landlock)"]
    assert "closed-descriptors" in matrix_legend(made)[2]


def test_matrix_of_a_probe_that_is_not_possible_here_gives_no_layer_any_credit() -> None:
    one = ProbeReport(probe(), HELD, {"uart": contained()}, alone={layers.SECCOMP: HELD})

    assert matrix_table(report(one))[1] == [("peek", "-", "-", "")]


def test_removals_say_what_opens_and_what_stands_in() -> None:
    one = ProbeReport(probe(), YES, {"uart": contained()})
    one.removed = {
        layers.SECCOMP: contained(LIMITED, layers.RLIMITS),
        layers.RLIMITS: Finding(YES, ProbeVerdict.ESCAPED, 0),
    }
    made = report(one, matrix=True)
    made.also_gone = {layers.RLIMITS: layers.LANDLOCK}
    made.inseparable = {layers.LANDLOCK: "why"}

    assert removals(made) == [
        "without seccomp: opens nothing; instead: rlimits 1",
        "without rlimits (and with it landlock): opens peek",
        "without landlock: not tried: why",
    ]


def test_summary_counts_every_verdict() -> None:
    text = summary(report(ProbeReport(probe(), YES, {"uart": contained()})))

    assert text == "1 probes, device types uart, rtc, seccomp filter, ipc socketpair: 1 contained"


def test_json_is_complete_and_plain() -> None:
    one = ProbeReport(probe(), YES, {"uart": contained()}, alone={layers.SECCOMP: HELD})
    one.removed = {layers.RLIMITS: Finding(YES, ProbeVerdict.ESCAPED, 0)}
    data = json.loads(json.dumps(as_data(report(one))))

    assert data["schema"] == 1
    assert data["status"] == 0
    assert data["layers"] == ["seccomp", "closed-descriptors", "rlimits"]
    assert data["options"]["types"] == ["uart", "rtc"]
    (row,) = data["probes"]
    assert row["verdict"] == "contained"
    assert row["types"]["uart"] == {
        "effective": False,
        "ended": "forbidden",
        "call": "openat",
        "number": 0,
        "text": "killed at openat",
        "verdict": "contained",
        "stopped_by": ["seccomp"],
        "together": False,
    }
    assert row["control"]["effective"] is True
    assert row["alone"]["seccomp"]["ended"] == "forbidden"
    assert row["removed"]["rlimits"]["verdict"] == "ESCAPED"
