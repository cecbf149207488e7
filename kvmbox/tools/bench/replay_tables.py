"""The tables of `bench --exit none`: what was measured, and what follows from it for other hosts. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from kvmbox.tools.bench.replay_script import ACCESSES
from kvmbox.tools.bench.result_tables import Table, number

PREDICTED: Final = (1.0, 1.5, 8.0)
"""What a bare exit takes, in µs: two of hosts with VMX or SVM, as published, and one of PVM."""


def tables(measured: Mapping[str, Mapping[str, float]]) -> list[Table]:
    """What kvmbox adds to an exit, and what follows from that for hosts with other exits."""
    heads = ("access", *measured)
    added = [
        (access.title, *(number(rows[access.title], "ns") for rows in measured.values()))
        for access in ACCESSES
    ]
    read = ACCESSES[0].title
    predicted = [
        (f"{exit_us:g} µs", *(number(1000 * exit_us + rows[read], "ns") for rows in measured.values()))
        for exit_us in PREDICTED
    ]
    return [
        Table("kvmbox alone, without an exit", heads, tuple(added), remarks=False),
        Table(
            f"prediction, not measured: {read}, on a host whose bare exit takes so long",
            ("bare exit", *measured),
            tuple(predicted),
            remarks=False,
        ),
    ]
