"""What is measured: names, choices, and the guest's command line."""

from __future__ import annotations

import pytest

from kvmbox.base.errors import UsageError
from kvmbox.remote.transport.ipc_table import DEFAULT_IPC, IPC_CHOICES
from kvmbox.tools.bench.measuring_plan import (
    CHOICES,
    DEFAULT,
    FLOOR,
    MAIN,
    NONE,
    PRIMARY,
    QEMU,
    QUICK_CONFIGURATIONS,
    ROWS,
    Configuration,
    Plan,
    choose,
    configurations,
    pure,
    words,
)


def names(plan: Plan) -> list[str]:
    return [configuration.name for configuration in plan.configurations]


def row_names(plan: Plan) -> list[str]:
    return [row.name for row in plan.rows]


def one(plan: Plan, name: str) -> Configuration:
    return next(configuration for configuration in plan.configurations if configuration.name == name)


def test_space_has_each_choice_that_makes_a_difference_once() -> None:
    space = [configuration.name for configuration in configurations()]
    chosen_by_the_default = DEFAULT_IPC not in IPC_CHOICES
    assert len(space) == len(set(space)) == 1 + 1 + 3 + 9 + 3 + chosen_by_the_default + len(MAIN)
    assert {"none", "thread/shm", "process/strict/pipe", "process/off/shm", "per-device/filter/pipe"} < set(
        space
    )


def test_pure_python_is_a_choice_only_where_it_is_not_the_only_one() -> None:
    assert one(choose(), "pure/process/filter/shm").environment == {"KVMBOX_PURE": "1"}
    assert one(choose(), "process/filter/shm").environment == {}
    assert not any(configuration.pure for configuration in configurations(compiled=False))
    assert not any(configuration.pure for configuration in choose(compiled=False).configurations)


def test_what_run_does_without_options_is_measured_whatever_its_ipc_is() -> None:
    assert DEFAULT in MAIN
    plan = choose()
    assert one(plan, DEFAULT).options == ("--sandbox", "process", "--seccomp", "filter", "--ipc", DEFAULT_IPC)


def test_pure_python_has_the_options_of_what_it_is_compared_with() -> None:
    plan = choose()
    assert all(one(plan, pure(name)).options == one(plan, name).options for name in MAIN)


def test_configuration_options_are_those_of_run() -> None:
    plan = choose()
    assert one(plan, "process/strict/pipe").options == (
        *("--sandbox", "process", "--seccomp", "strict", "--ipc", "pipe"),
    )
    assert one(plan, NONE).options == ("--sandbox", "none")
    assert one(plan, FLOOR).options == ()


def test_names_that_others_refer_to_exist() -> None:
    rows = [row.name for row in ROWS]
    assert len(rows) == len(set(rows))
    assert {row.reference for row in ROWS} - {None} <= set(rows)
    assert {*PRIMARY, *CHOICES} <= set(rows)
    space = {configuration.name for configuration in configurations()}
    assert {*MAIN, *QUICK_CONFIGURATIONS, DEFAULT} <= space


def test_everything_is_measured_in_seven_rounds_by_default() -> None:
    plan = choose()
    assert plan.rounds == 7
    assert plan.divide == 1
    assert len(plan.rows) == len(ROWS)
    assert len(plan.configurations) == len(configurations())


def test_quick_has_few_rows_and_configurations() -> None:
    plan = choose(quick=True)
    assert names(plan) == list(QUICK_CONFIGURATIONS)
    assert set(row_names(plan)) == {*PRIMARY, "rtc_two_reads", "start"}
    assert plan.rounds == 3
    assert {job for name in names(plan) for job in plan.jobs(one(plan, name))} == {"accesses", "start"}


def test_only_a_row_keeps_all_configurations_and_what_it_is_compared_with() -> None:
    plan = choose(only=["vms_4"])
    assert row_names(plan) == ["vms_1", "vms_4"]
    assert len(plan.configurations) == len(configurations())


def test_only_a_configuration_keeps_all_rows_and_the_references() -> None:
    plan = choose(only=["per-device/*/shm"])
    assert names(plan) == [FLOOR, NONE, "per-device/filter/shm"]
    assert len(plan.rows) == len(ROWS)


def test_only_takes_rows_and_configurations_together() -> None:
    plan = choose(only=["post", "inb_*", "process/off/*"])
    assert names(plan) == [FLOOR, NONE, "process/off/shm", "process/off/pipe", "process/off/socketpair"]
    assert "post" in row_names(plan)
    assert "inb_unclaimed" in row_names(plan)
    assert "outb_to_device" not in row_names(plan)


def test_only_names_win_over_quick() -> None:
    plan = choose(only=["pss", "thread/pipe"], quick=True)
    assert row_names(plan) == ["pss"]
    assert names(plan) == [FLOOR, NONE, "thread/pipe"]


@pytest.mark.parametrize("pattern", ["no_such_row", "process", "", "qemu"])
def test_only_of_nothing_is_a_usage_error_that_names_it(pattern: str) -> None:
    with pytest.raises(UsageError, match=f"--only '{pattern}'"):
        choose(only=["post", pattern])


def test_peer_adds_qemu_without_what_its_pc_does_not_have() -> None:
    plan = choose(peer=True)
    qemu = one(plan, QEMU)
    assert plan.jobs(qemu)[:5] == ["accesses", "ata", "virtio", "network", "graphics"]
    assert plan.jobs(qemu)[5:] == ["start", "boots", "memory", "crowd"]
    measured = {row.name for row in plan.rows_of("accesses", qemu)}
    assert "inb_from_device" in measured
    assert measured.isdisjoint({"mov_from_device", "mov_to_device", "pit_read"})


def test_floor_is_not_asked_for_what_needs_a_device() -> None:
    plan = choose()
    floor = one(plan, FLOOR)
    measured = {row.name for row in plan.rows_of("accesses", floor)}
    assert "inb_from_device" in measured
    assert "mov_from_device" in measured
    assert measured.isdisjoint({"thr_irq", "hlt_latency_p50", "hlt_latency_p99"})
    assert plan.jobs(floor) == ["accesses", "native"]


def test_configurations_beside_the_main_ones_measure_few_rows_unless_something_is_named() -> None:
    plan = choose()
    strict, python = one(plan, "process/strict/shm"), one(plan, "pure/none")
    assert {row.name for row in plan.rows if plan.wants(row, strict)} == CHOICES
    assert {row.name for row in plan.rows if plan.wants(row, python)} == {*PRIMARY, "start"}
    assert all(plan.wants(row, one(plan, "process/filter/shm")) for row in plan.rows)
    for named in (["process/strict/shm"], ["vms_4"]):
        assert "crowd" in choose(only=named).jobs(one(choose(only=named), "process/strict/shm"))


def test_words_ask_for_passes_over_all_means_then_for_each_spread_once() -> None:
    plan = choose(only=["inb_from_device", "inb_p99", "post"], divide=10)
    assert words(plan.rows, plan) == ["inb_from_device=200", "post=100"] * 5 + ["inb_from_device=400,dist"]


def test_words_have_the_passes_of_interrupts_at_the_end() -> None:
    plan = choose(only=["thr_only", "thr_irq", "debugcon", "busy_p99"], divide=10)
    found = words(plan.rows, plan)
    assert found[:10] == ["thr_only=100", "debugcon=100"] * 5
    assert found[10:] == ["thr_polled=400,dist", *["thr_irq=100"] * 5]


def test_iterations_are_never_none() -> None:
    plan = choose(divide=1_000_000)
    assert all(plan.iterations(row) == 1 for row in plan.rows)
