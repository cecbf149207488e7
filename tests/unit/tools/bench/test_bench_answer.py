"""The tables over many rows, out of synthetic results."""

from __future__ import annotations

import pytest

from kvmbox.tools.bench import answer
from kvmbox.tools.bench.measuring_plan import MAIN, NONE, QEMU, choose, isolated, pure
from kvmbox.tools.bench.result_tables import Table
from kvmbox.tools.bench.results import Results

SHM, PIPE = isolated("shm"), isolated("pipe")
READ, OUTPUT = "inb_from_device", "thr_polled"
SLOW = (1, 2, 1, 3, 1, 1, 2)
"""How slow the whole host was in each round: no ratio may see it."""


def results_of(samples: dict[str, dict[str, float]], *, peer: bool = True) -> Results:
    """Row → configuration → what it takes in a quiet round."""
    results = Results.of(choose(peer=peer), {})
    for row, by_name in samples.items():
        for name, value in by_name.items():
            for round_, slow in enumerate(SLOW):
                results.record(round_, name, row, value * slow)
    results.rounds, results.finished = len(SLOW), True
    return results


def lines_of(table: Table | None) -> dict[str, tuple[str, ...]]:
    assert table is not None
    return {line[0]: line[1:] for line in table.lines}


MEASURED = {
    READ: {NONE: 9_000.0, SHM: 8_800.0, PIPE: 12_000.0, QEMU: 8_000.0, pure(NONE): 11_200.0},
    OUTPUT: {NONE: 10_000.0, SHM: 11_000.0, QEMU: 20_000.0},
}


def test_answer_is_a_multiple_of_qemu_for_each_access_and_ipc() -> None:
    table = answer.answer_table(results_of(MEASURED))
    assert table is not None
    assert table.title == "the cost of isolation, as multiples of QEMU's time"
    assert table.columns == ("access", "QEMU, time", "none", "shm", "pipe")
    assert lines_of(table) == {
        "read of the line status register": ("8.00 µs", "1.12", "1.10", "1.50"),
        "output, polled, per byte": ("20.0 µs/B", "0.50", "0.55", "—"),
    }


def test_answer_without_qemu_is_a_multiple_of_no_isolation() -> None:
    without = {row: {name: v for name, v in cells.items() if name != QEMU} for row, cells in MEASURED.items()}
    table = answer.answer_table(results_of(without, peer=False))
    assert table is not None
    assert table.title == "the cost of isolation, as multiples of the time without isolation"
    assert table.columns == ("access", "none, time", "shm", "pipe")
    assert lines_of(table)["output, polled, per byte"] == ("10.0 µs/B", "1.10", "—")


def test_answer_marks_a_noisy_ratio() -> None:
    results = results_of(MEASURED)
    for round_ in range(3):
        results.record(round_, SHM, READ, 12_000.0)
    assert lines_of(answer.answer_table(results))["read of the line status register"][2].endswith(" ~")


def test_answer_marks_ratios_of_too_few_rounds() -> None:
    results = results_of(MEASURED)
    for cells in results.samples.values():
        for series in cells.values():
            del series[2:]
    assert lines_of(answer.answer_table(results))["read of the line status register"][1:] == (
        "1.12 ~",
        "1.10 ~",
        "1.50 ~",
    )


def test_pure_python_has_the_same_table_of_its_own() -> None:
    table = answer.pure_table(results_of(MEASURED))
    assert table is not None
    assert table.columns == ("access", "QEMU, time", "none")
    assert lines_of(table) == {"read of the line status register": ("8.00 µs", "1.40")}


def test_busy_host_is_compared_with_qemu_in_the_same_company_and_with_oneself_alone() -> None:
    found = lines_of(
        answer.busy_table(
            results_of(
                {
                    "vms_1": {SHM: 9_000.0, QEMU: 8_000.0},
                    "vms_4": {SHM: 36_000.0, QEMU: 16_000.0},
                    "load_2": {SHM: 18_000.0, QEMU: 16_000.0},
                }
            )
        )
    )
    assert found["the slowest of 4 busy VMs"] == ("2.25 (4.00)", "(2.00)")
    assert found["one VM beside 2 busy loops"] == ("1.12 (2.00)", "(2.00)")


def test_starts_and_memory_are_values_and_not_the_stages() -> None:
    results = results_of(
        {"start": {NONE: 50e6, SHM: 75e6}, "pss": {SHM: 30 * (1 << 20), QEMU: 40 * (1 << 20)}}
    )
    results.record(0, NONE, "start: imports", 3e6)
    table = answer.resource_table(results)
    assert table is not None
    assert table.columns == ("what", "none", "shm", "QEMU")
    assert lines_of(table) == {
        "start: `hello32` from exec to exit": ("50.0 ms", "75.0 ms", "—"),
        "PSS of all processes of an idle VM": ("—", "30.0 MiB", "40.0 MiB"),
    }


def test_choices_are_compared_with_each_other_over_each_ipc() -> None:
    found = lines_of(
        answer.choice_table(
            results_of(
                {
                    "outb_to_device": {
                        SHM: 12.0,
                        "process/strict/shm": 18.0,
                        "process/off/shm": 12.0,
                        pure(SHM): 15.0,
                        PIPE: 20.0,
                        "process/strict/pipe": 30.0,
                    }
                }
            )
        )
    )
    assert found == {
        "`filter`, not `off`": ("1.00", "—", "—"),
        "`strict`, not `filter`": ("1.50", "1.50", "—"),
        "pure Python, not compiled": ("1.25", "—", "—"),
    }


def test_overview_has_a_line_for_each_row_and_a_column_for_each_main_configuration() -> None:
    table = answer.overview_table(
        results_of({"post": {NONE: 10.0, SHM: 15.0}, "bare": {NONE: 4.0, QEMU: 2.0, "thread/shm": 9.0}})
    )
    assert table is not None
    assert table.columns == ("row", "floor", *(name.rpartition("/")[2] for name in MAIN), "QEMU")
    bare, post = (dict(zip(table.columns, line, strict=True)) for line in table.lines)
    assert {name for name, text in bare.items() if text != "—"} == {"row", "none", "QEMU"}
    assert (bare["row"], bare["none"], bare["QEMU"]) == ("bare", "4 ns", "2 ns (0.50)")
    assert (post["row"], post["none"], post["shm"]) == ("post", "10 ns", "15 ns (1.50)")


@pytest.mark.parametrize("name", answer.TABLES)
def test_nothing_measured_gives_no_table(name: str) -> None:
    assert answer.TABLES[name](results_of({})) is None


def test_one_row_gives_no_overview() -> None:
    assert answer.overview_table(results_of({"post": {NONE: 10.0}})) is None
