"""tools/instructions.py: what valgrind has counted becomes a table."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvmbox.tools.bench.replay_script import ACCESSES
from tools import instructions


def test_counts_are_read_in_the_order_of_the_marks(tmp_path: Path) -> None:
    for number in range(1, 12):
        (tmp_path / f"out.{number}").write_text(f"summary: 1 2\n\ntotals: {100 * number} 7\n")
    (tmp_path / "out").write_text("totals: 1\n")

    assert instructions.counts(tmp_path) == [*(100 * number for number in range(1, 12)), 1]


def test_column_has_what_an_access_takes_more_if_it_is_made_more_often() -> None:
    rows = len(instructions.IPCS) * len(ACCESSES)
    found = [value for row in range(rows) for value in (9, 5000, 9, 5000 + row * instructions.TIMES)]

    of_all = list(instructions.columns([*found, 77]))

    assert [cell for cells in of_all for cell in cells] == list(range(rows))
    assert len(of_all) == len(instructions.IPCS)


def test_table_has_a_line_for_each_access_and_a_column_for_each_name() -> None:
    first, *lines = instructions.table([("one", range(9)), ("two", range(9, 18))])

    assert first.split()[-2:] == ["one", "two"]
    assert [line.split()[-2:] for line in lines] == [[f"{row}", f"{9 + row}"] for row in range(9)]
    assert len(lines) == len(ACCESSES) == len(instructions.PEER_WORDS)


@pytest.mark.parametrize(("arguments", "status"), [(["--help"], 0), (["--pear"], 2), (["hello64"], 2)])
def test_help_and_mistakes_count_nothing(arguments: list[str], status: int) -> None:
    with pytest.raises(SystemExit) as caught:
        instructions.main(arguments)
    assert caught.value.code == status


def test_valgrind_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit, match="cannot start valgrind: No such file"):
        instructions.main([])
