"""What is measured: names, choices, and the guest's command line."""

from __future__ import annotations

import pytest

from kvmbox.bench.plan import (
    DEFAULT,
    FLOOR,
    MAIN,
    NONE,
    QEMU,
    QUICK_CONFIGURATIONS,
    ROWS,
    Configuration,
    Plan,
    choose,
    configurations,
    words,
)
from kvmbox.errors import UsageError


def names(plan: Plan) -> list[str]:
    return [configuration.name for configuration in plan.configurations]


def row_names(plan: Plan) -> list[str]:
    return [row.name for row in plan.rows]


def one(plan: Plan, name: str) -> Configuration:
    return next(configuration for configuration in plan.configurations if configuration.name == name)


def test_space_has_each_choice_that_makes_a_difference_once() -> None:
    space = [configuration.name for configuration in configurations()]
    assert len(space) == len(set(space)) == 1 + 1 + 3 + 9 + 3 + 1
    assert {"none", "thread/shm", "process/strict/pipe", "process/off/shm", "per-device/filter/pipe"} < set(
        space
    )


def test_configuration_options_are_those_of_run() -> None:
    plan = choose()
    assert one(plan, "process/strict/pipe").options == (
        *("--sandbox", "process", "--seccomp", "strict", "--ipc", "pipe"),
    )
    assert one(plan, DEFAULT).options == ("--sandbox", "process", "--seccomp", "filter", "--ipc", "auto")
    assert one(plan, NONE).options == ("--sandbox", "none")
    assert one(plan, FLOOR).options == ()


def test_names_that_others_refer_to_exist() -> None:
    rows = [row.name for row in ROWS]
    assert len(rows) == len(set(rows))
    assert {row.reference for row in ROWS} - {None} <= set(rows)
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
    assert "inb_from_device" in row_names(plan)
    assert len(plan.rows) < 12
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
    assert names(plan) == [FLOOR, NONE, "process/off/socketpair", "process/off/pipe", "process/off/shm"]
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
    assert plan.jobs(qemu) == ["accesses"]
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


def test_dear_jobs_run_in_the_main_configurations_unless_others_are_named() -> None:
    assert "crowd" not in choose().jobs(one(choose(), "process/strict/shm"))
    assert "crowd" in choose().jobs(one(choose(), "process/filter/shm"))
    named = choose(only=["process/strict/shm"])
    assert "crowd" in named.jobs(one(named, "process/strict/shm"))


def test_words_ask_for_passes_over_all_means_then_for_each_spread_once() -> None:
    plan = choose(only=["inb_from_device", "inb_p99", "post"], divide=10)
    assert words(plan.rows, plan) == ["inb_from_device=200", "post=100"] * 5 + ["inb_from_device=400,dist"]


def test_iterations_are_never_none() -> None:
    plan = choose(divide=1_000_000)
    assert all(plan.iterations(row) == 1 for row in plan.rows)
