"""Cells and tables out of synthetic samples."""

from __future__ import annotations

import pytest

from kvmbox.tools.bench import result_tables
from kvmbox.tools.bench.analysis import Cell, cell, cells, ratio
from kvmbox.tools.bench.measuring_plan import FLOOR, NONE, Plan, Unit, choose
from kvmbox.tools.bench.results import Results

SHM = "process/filter/shm"
DRIFT = (1.0, 1.3, 1.0, 1.1, 1.2, 1.0, 1.1)
"""How slow the whole host was in each round."""


def results_of(plan: Plan, samples: dict[str, dict[str, list[float]]]) -> Results:
    results = Results.of(plan, {"kernel": "Linux 6.1", "kvm_backend": "vmx", "cpus": 4, "tsc_khz": 3_000_000})
    for row, by_name in samples.items():
        for name, series in by_name.items():
            for round_, value in enumerate(series):
                results.record(round_, name, row, value)
                results.rounds = max(results.rounds, round_ + 1)
    results.finished = True
    return results


@pytest.fixture
def results() -> Results:
    """A host that is up to 1.3 times slower in some rounds, where shm costs exactly 1.5 times `none`."""
    return results_of(
        choose(only=["post", "rtc*", SHM]),
        {
            "post": {
                FLOOR: [8_000 * slow for slow in DRIFT],
                NONE: [10_000 * slow for slow in DRIFT],
                SHM: [15_000 * slow for slow in DRIFT],
            },
            "rtc_read": {SHM: [20_000 * slow for slow in DRIFT]},
            "rtc_two_reads": {SHM: [40_000 * slow for slow in DRIFT]},
        },
    )


def find(results: Results, row: str, name: str) -> Cell:
    return next(
        cell(results, known, one)
        for known in results.rows
        for one in results.configurations
        if known.name == row and one.name == name
    )


def test_ratio_of_a_round_does_not_see_a_slow_host(results: Results) -> None:
    found = ratio(results, "post", SHM, "post", NONE)
    assert found is not None
    assert (found.median, found.low, found.high) == (1.5, 1.5, 1.5)
    assert found.noise == ""


def test_ratio_skips_a_round_that_one_side_lacks_and_keeps_the_others_together() -> None:
    results = results_of(choose(only=["post", SHM]), {"post": {SHM: [20.0, 60.0]}})
    results.record(1, NONE, "post", 30.0)  # nothing in round 0
    found = ratio(results, "post", SHM, "post", NONE)
    assert found is not None
    assert (found.median, found.count) == (2.0, 1)


def test_cell_has_ratios_to_none_floor_and_its_reference(results: Results) -> None:
    found = find(results, "post", SHM)
    assert found.value is not None
    assert found.value.median == pytest.approx(16_500)
    assert found.to_none is not None
    assert found.to_none.median == pytest.approx(1.5)
    assert found.to_floor is not None
    assert found.to_floor.median == pytest.approx(15 / 8)
    assert found.to_reference is None
    reads = find(results, "rtc_read", SHM)
    assert reads.to_none is None
    assert reads.to_reference is not None
    assert reads.to_reference.median == pytest.approx(0.5)


def test_noise_is_judged_by_the_ratio_where_there_is_one(results: Results) -> None:
    assert find(results, "post", SHM).noise == ""
    assert find(results, "post", NONE).noise == "wide"


def test_failed_cell_shows_the_reason_in_its_place(results: Results) -> None:
    results.fail(NONE, "accesses", "refused because of | reasons")
    table = result_tables.row_table(results, next(row for row in results.rows if row.name == "rtc_read"))
    assert table is not None
    assert table.lines[0][0] == NONE
    assert table.lines[0][1] == "—"
    assert table.lines[0][-1] == "refused because of | reasons"
    assert r"refused because of \| reasons" in result_tables.markdown(table)


def test_cell_that_failed_in_some_rounds_has_both_number_and_reason(results: Results) -> None:
    del results.samples["post"][SHM][3:]
    results.fail(SHM, "accesses", "hung")
    found = find(results, "post", SHM)
    assert found.value is not None
    assert found.value.count == 3
    assert found.failure == "hung"


def test_failure_of_a_cell_that_is_complete_is_not_its_own(results: Results) -> None:
    results.fail(SHM, "accesses", "no result")  # of another row of the same job
    assert find(results, "post", SHM).failure == ""


def test_row_that_nobody_measured_has_no_table() -> None:
    results = Results.of(choose(only=["post"]), {})
    assert cells(results, results.rows[0]) == []
    assert result_tables.row_tables(results) == []
    assert result_tables.failure_table(results) is None


def test_table_has_medians_ratios_and_the_noise_mark(results: Results) -> None:
    tables = {table.title.partition(":")[0]: table for table in result_tables.row_tables(results)}
    lines = {line[0]: line for line in tables["post"].lines}
    assert lines[SHM] == (SHM, "16.5 µs", "15.0 µs–19.5 µs", "1.50", "1.50–1.50", "1.88", "")
    assert lines[NONE][3:] == ("1.00", "", "1.25", "noisy: wide")
    reads = {line[0]: line for line in tables["rtc_read"].lines}
    assert reads[SHM][-1].startswith("0.50 × rtc_two_reads (0.50–0.50)")


def test_ratio_to_the_peer_has_a_column_where_the_peer_was_measured() -> None:
    results = results_of(choose(peer=True), {"post": {NONE: [10.0] * 3, SHM: [12.0] * 3, "qemu": [8.0] * 3}})
    (table,) = result_tables.row_tables(results)
    assert table.columns[5:] == ("× floor", "× qemu", "")
    lines = {line[0]: line for line in table.lines}
    assert lines[SHM][6] == "1.50"
    results.fail("process/filter/pipe", "accesses", "refused")
    (table,) = [one for one in result_tables.row_tables(results) if one.title.startswith("post")]
    assert {len(line) for line in table.lines} == {8}


def test_stages_of_a_start_are_the_columns_of_one_table() -> None:
    results = results_of(choose(only=["start"]), {"start": {NONE: [9e6] * 3}})
    for round_, late in enumerate((0.0, 9e6, 1e6)):
        results.record(round_, NONE, "start: imports", 3e6 + late)
        results.record(round_, NONE, "start: guest", 5e6)
    tables = result_tables.row_tables(results)
    assert [table.title for table in tables][1:] == ["start, by stage (medians)"]
    assert tables[1].columns == ("configuration", "imports", "guest", "")
    assert tables[1].lines == ((NONE, "4.00 ms", "5.00 ms", ""),)


def test_console_row_tells_bytes_per_second() -> None:
    results = results_of(choose(only=["debugcon"]), {"debugcon": {NONE: [10_000.0] * 7}})
    (table,) = result_tables.row_tables(results)
    assert table.lines[0][1] == "10.0 µs/B"
    assert table.lines[0][-1] == "100 kB/s"


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.0, "ns", "0 ns"),
        (431.4, "ns", "431 ns"),
        (999.4, "ns", "999 ns"),
        (999.6, "ns", "1.00 µs"),
        (8_312.0, "ns", "8.31 µs"),
        (22_540.0, "ns/byte", "22.5 µs/B"),
        (131_700_000.0, "ns", "132 ms"),
        (2_500_000_000.0, "ns", "2.50 s"),
        (30 * (1 << 20), "bytes", "30.0 MiB"),
        (4.567, "times", "×4.57"),
    ],
)
def test_number_is_written_for_a_person(value: float, unit: Unit, text: str) -> None:
    assert result_tables.number(value, unit) == text


def test_plain_table_is_aligned() -> None:
    table = result_tables.Table("title", ("name", "value", ""), (("a", "1.00", "x"), ("longer", "12.00", "")))
    assert result_tables.plain(table).splitlines() == [
        "title",
        "name    value",
        "──────  ─────  ─",
        "a        1.00  x",
        "longer  12.00",
    ]


def test_table_without_remarks_aligns_its_last_column_right() -> None:
    table = result_tables.Table("title", ("name", "value"), (("a", "1.00"),), remarks=False)
    assert result_tables.grid(table).splitlines() == ["| name | value |", "|:--|--:|", "| a | 1.00 |"]
    assert result_tables.plain(table).splitlines()[1:] == ["name  value", "────  ─────", "a      1.00"]


def test_heading_tells_how_many_cpus_a_vm_has_if_several(results: Results) -> None:
    assert "in each VM" not in result_tables.heading(results)[0]
    results.facts["guest_cpus"] = 4
    assert "4 CPUs in each VM" in result_tables.heading(results)[0]


def test_markdown_table_has_a_heading_and_aligns_numbers_right() -> None:
    table = result_tables.Table("title", ("name", "value", ""), (("a", "1.00", "x"),))
    assert result_tables.markdown(table).splitlines() == [
        "### title",
        "",
        "| name | value |  |",
        "|:--|--:|:--|",
        "| a | 1.00 | x |",
    ]


def test_heading_names_the_host_and_what_the_interval_covers(results: Results) -> None:
    text = "\n".join(result_tables.heading(results))
    assert "Linux 6.1" in text
    assert "backend vmx" in text
    assert "7 interleaved rounds;" in text
    assert "98.4 % or more" in text
    results.finished = False
    assert "(not finished)" in "\n".join(result_tables.heading(results))


def test_plan_tables_list_every_row_and_configuration() -> None:
    rows, configurations = result_tables.plan_tables(choose(peer=True))
    assert [line[0] for line in rows.lines] == [row.name for row in choose().rows]
    assert [line[0] for line in configurations.lines] == [
        one.name for one in choose(peer=True).configurations
    ]
    how = {line[0]: line[1] for line in configurations.lines}
    assert how["pure/process/filter/shm"] == "KVMBOX_PURE=1 --sandbox process --seccomp filter --ipc shm"
    assert (how["floor"], how["none"], how["qemu"]) == ("floor", "--sandbox none", "qemu")
