"""tools/instructions.py: what valgrind has counted becomes a table."""

from __future__ import annotations

from pathlib import Path

from kvmbox.tools.bench.replay_script import ACCESSES
from tools import instructions


def test_counts_are_read_in_the_order_of_the_marks(tmp_path: Path) -> None:
    for number in range(1, 12):
        (tmp_path / f"out.{number}").write_text(f"summary: 1 2\n\ntotals: {100 * number} 7\n")

    assert instructions.counts(tmp_path) == [100 * number for number in range(1, 12)]


def test_table_has_what_an_access_takes_more_if_it_is_made_more_often() -> None:
    rows = len(instructions.IPCS) * len(ACCESSES)
    found = [9, 5000, 9, 5000 + 250 * instructions.TIMES] * rows

    first, *lines = instructions.table(found)

    assert first.split()[-3:] == list(instructions.IPCS)
    assert {tuple(line.split()[-3:]) for line in lines} == {("250", "250", "250")}
    assert len(lines) == len(ACCESSES)
