"""What is concluded from synthetic results."""

from __future__ import annotations

from kvmbox.bench.plan import choose
from kvmbox.bench.results import Results
from kvmbox.bench.statistics import estimate
from kvmbox.bench.verdict import best_ipc, verdict

ROUNDS = 7
BASE = {
    "floor": 8_000.0,
    "none": 10_000.0,
    "process/filter/socketpair": 23_000.0,
    "process/filter/pipe": 18_000.0,
    "process/filter/shm": 11_000.0,
}


def results_of(values: dict[str, float], **rows: dict[str, float]) -> Results:
    """Each configuration takes exactly `values` ns for the row that the verdict is about, in every round."""
    results = Results.of(choose(peer=True), {"kernel": "Linux 6.1", "kvm_backend": "svm", "cpus": 2})
    for row, by_name in {"inb_from_device": values, **rows}.items():
        for name, value in by_name.items():
            for round_ in range(ROUNDS):
                results.record(round_, name, row, value)
    results.rounds, results.finished = ROUNDS, True
    return results


def test_verdict_tells_the_base_and_what_each_ipc_costs() -> None:
    text = verdict(results_of(BASE))
    assert "(Linux 6.1, KVM backend svm)" in text
    assert "costs 10.0 µs with the models in the vCPU thread, 1.25× the bare exit of 8.00 µs." in text
    assert (
        "2.30× over socketpair (+13.0 µs a read), 1.80× over pipe (+8.00 µs a read) and 1.10× over shm"
        in text
    )
    assert "shm is the cheapest here, at the price of a spinning device process" in text


def test_cheap_isolation_should_be_on_unconditionally() -> None:
    assert verdict(results_of(BASE)).endswith(
        "So isolation should be on unconditionally: over shm an access costs 10 % more, "
        "where a CPU can be spared for it; over socketpair, the default, 2.30×."
    )


def test_isolation_in_between_should_be_on_by_default() -> None:
    text = verdict(results_of(BASE | {"process/filter/shm": 30_000.0}))
    assert "pipe is the cheapest here." in text
    assert "on by default: over pipe an access costs 80 % more" in text


def test_dear_isolation_should_not_be_on_unconditionally() -> None:
    dear = {name: value * (4 if "/" in name else 1) for name, value in BASE.items()}
    text = verdict(results_of(dear))
    assert "should not be on unconditionally here" in text
    assert "even over shm an access costs 4.4 times as much" in text


def test_thread_is_compared_with_a_process_over_the_same_ipc() -> None:
    text = verdict(results_of(BASE | {"thread/pipe": 9_000.0, "thread/shm": 22_000.0}))
    assert "which isolates nothing, costs 0.50× over pipe and 2.00× over shm." in text


def test_filter_that_costs_nothing_is_said_to_cost_nothing() -> None:
    text = verdict(results_of(BASE | {"process/off/shm": 10_950.0}))
    assert "The filter itself costs nothing that shows (1.00×)" in text


def test_filter_that_costs_something_is_said_to() -> None:
    text = verdict(results_of(BASE | {"process/off/shm": 10_000.0}))
    assert "The filter itself costs 1.10×" in text


def test_strict_is_compared_with_the_filter_for_each_ipc_that_has_both() -> None:
    text = verdict(results_of(BASE | {"process/strict/shm": 11_000.0, "process/strict/socketpair": 34_500.0}))
    assert "strict mode instead of it 1.50× over socketpair and 1.00× over shm" in text


def test_strict_that_was_refused_is_said_to_be() -> None:
    results = results_of(BASE)
    results.fail("process/strict/shm", "accesses", "runs under a filter already")
    assert "strict mode could not be measured (runs under a filter already)." in verdict(results)


def test_process_per_device_is_compared_with_one_per_type_in_time_and_memory() -> None:
    text = verdict(
        results_of(
            BASE | {"per-device/filter/shm": 11_010.0},
            pss={"process/filter/shm": 30e6, "per-device/filter/shm": 45e6},
        )
    )
    assert "A process per device costs as much as one per type (1.00×), and 1.50× the memory." in text


def test_qemu_and_start_and_memory_are_told_if_they_were_measured() -> None:
    text = verdict(
        results_of(
            BASE | {"qemu": 10_000.0},
            start={"none": 120e6, "process/filter/socketpair": 130e6},
            pss={"none": 20 << 20, "process/filter/socketpair": 30 << 20},
        )
    )
    assert "Over shm a read takes 1.10× what it takes in QEMU" in text
    assert (
        "A VM with default options starts in 130 ms (120 ms without isolation) and takes 30.0 MiB "
        "(20.0 MiB without isolation)."
    ) in text


def test_what_was_not_measured_is_not_spoken_of() -> None:
    text = verdict(results_of({"none": 10_000.0, "process/filter/pipe": 18_000.0}))
    for word in ("strict", "QEMU", "thread of the VMM", "per-device", "bare exit", "starts in", "shm"):
        assert word not in text
    assert "Only pipe was measured." in text


def test_ipcs_that_cannot_be_told_apart_are_both_named() -> None:
    costs = {
        "pipe": estimate([1.1, 1.2, 1.3]),
        "shm": estimate([1.0, 1.1, 1.15]),
        "socketpair": estimate([2.0]),
    }
    assert best_ipc(costs) == ("shm", ["pipe"])


def test_answer_that_the_interval_does_not_carry_is_doubted() -> None:
    results = results_of(BASE)
    assert "not certain" not in verdict(results)
    results.samples["inb_from_device"]["process/filter/shm"][0] = 14_000.0
    text = verdict(results)
    assert "on unconditionally: over shm an access costs 10 % more" in text
    assert "That is not certain: the true ratio may lie anywhere from 1.10 to 1.40." in text


def test_answer_of_one_round_is_doubted() -> None:
    results = results_of(BASE)
    for series in results.samples["inb_from_device"].values():
        del series[1:]
    assert verdict(results).endswith("That rests on 1 round, which says little.")


def test_noisy_ratio_is_marked() -> None:
    results = results_of(BASE)
    results.samples["inb_from_device"]["process/filter/pipe"][0] = 40_000.0
    assert "1.80× (noisy) over pipe" in verdict(results)


def test_no_verdict_without_none() -> None:
    values = {name: value for name, value in BASE.items() if name != "none"}
    assert verdict(results_of(values)) == "No verdict: inb_from_device was not measured with --sandbox none."


def test_no_answer_where_no_isolation_was_measured_but_the_reason() -> None:
    results = results_of({"none": 10_000.0})
    results.fail("process/filter/socketpair", "accesses", "no libseccomp")
    assert verdict(results).endswith("What isolation costs was not measured: no libseccomp.")
    assert "should" not in verdict(results)
