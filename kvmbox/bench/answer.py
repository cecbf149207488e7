"""The RFC's question as a table: over which ipc does isolation cost so little that it can always be on?

The cost of isolation is the ratio of `process/filter/IPC` to `none` for one read of a UART register (ROW).
A guest makes that access most often, and the access does least, so nothing hides the way there and back.
Isolation can always be on if the ratio is at most ALWAYS. Isolation can be the default if the ratio is at
most DEFAULT_LIMIT. The answer is uncertain if the interval of the ratio contains such a limit.
"""

from __future__ import annotations

from typing import Final

from kvmbox.bench.analysis import added, ratio
from kvmbox.bench.plan import NONE, QEMU
from kvmbox.bench.report import Table, difference, ratio_range, ratio_text
from kvmbox.bench.results import Results
from kvmbox.bench.statistics import Estimate
from kvmbox.channel.transports import IPC_CHOICES

ROW: Final = "inb_from_device"
ALWAYS: Final = 1.25
DEFAULT_LIMIT: Final = 2.5
FEW: Final = 3
"""Fewer rounds say little."""


def answer(cost: Estimate) -> str:
    """When isolation of this cost should be on: "always", "by default" or "by choice"."""
    if cost.median <= ALWAYS:
        return "always"
    return "by default" if cost.median <= DEFAULT_LIMIT else "by choice"


def doubt(cost: Estimate) -> str:
    """Why the answer may be another one, or an empty text."""
    if cost.count < FEW:
        return "too few rounds"
    if any(cost.low <= limit < cost.high for limit in (ALWAYS, DEFAULT_LIMIT)):
        return "uncertain: measure more rounds"
    return f"noisy: {cost.noise}" if cost.noise else ""


def answer_table(results: Results) -> Table | None:
    """A line for each ipc that was measured; None if there is nothing to compare with."""
    lines = []
    for ipc in IPC_CHOICES:
        name = f"process/filter/{ipc}"
        cost, more = ratio(results, ROW, name, ROW, NONE), added(results, ROW, name, NONE)
        if cost is None or more is None:
            continue
        peer = ratio_text(ratio(results, ROW, name, ROW, QEMU))
        lines.append(
            (
                ipc,
                ratio_text(cost),
                ratio_range(cost),
                difference(more.median),
                peer,
                answer(cost),
                doubt(cost),
            )
        )
    columns = ("ipc", "× none", "from–to", "added, µs", "× qemu", "isolation on", "")
    return Table("answer: can isolation always be on?", columns, tuple(lines)) if lines else None
