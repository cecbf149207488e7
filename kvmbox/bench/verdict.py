"""The RFC's question, answered in words out of what was measured on this host, and of nothing else.

What isolation costs is the ratio of a configuration to `none`, for one read of a UART register (ROW): the
access that guests make most and that does least, so that nothing hides the cost of the way there and back.

- The ipc that is best is the one with the lowest ratio among `process/filter/…`; those whose intervals
  overlap with its own are named beside it.
- Isolation should be on unconditionally if its best ratio is at most CHEAP, and by default up to DEAR. Beyond
  that, whoever runs trusted guests may want a choice.
- Two choices make "no difference" if the interval of their ratio contains 1, or the ratio is within 2 %.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from kvmbox.bench import report
from kvmbox.bench.analysis import added, ratio
from kvmbox.bench.plan import DEFAULT, FLOOR, NONE, QEMU
from kvmbox.bench.results import Results
from kvmbox.bench.statistics import Estimate, median
from kvmbox.channel.transports import IPC_CHOICES

ROW: Final = "inb_from_device"
CHEAP: Final = 1.25
DEAR: Final = 2.5
SAME: Final = 0.02
FEW: Final = 3


def _isolated(ipc: str) -> str:
    return f"process/filter/{ipc}"


def _times(estimate: Estimate) -> str:
    mark = " (noisy)" if estimate.noise else ""
    return f"{estimate.median:.2f}×{mark}"


def _differs(estimate: Estimate) -> bool:
    return not estimate.low <= 1 <= estimate.high and abs(estimate.median - 1) > SAME


def _value(results: Results, row: str, name: str) -> str:
    unit = next(known.unit for known in results.rows if known.name == row)
    return report.number(median(results.values(row, name)), unit)


def _costs(results: Results) -> dict[str, Estimate]:
    """ipc → ratio of the isolated configuration to `none`, of those that were measured."""
    found = {ipc: ratio(results, ROW, _isolated(ipc), ROW, NONE) for ipc in IPC_CHOICES}
    return {ipc: cost for ipc, cost in found.items() if cost is not None}


def best_ipc(costs: dict[str, Estimate]) -> tuple[str, list[str]]:
    """The cheapest, and those that cannot be told from it. `costs` is not empty."""
    best = min(costs, key=lambda ipc: costs[ipc].median)
    equal = [ipc for ipc in costs if ipc != best and costs[ipc].overlaps(costs[best])]
    return best, equal


def _base(results: Results) -> str:
    text = f"a read of a UART register costs {_value(results, ROW, NONE)} with the models in the vCPU thread"
    to_floor = ratio(results, ROW, NONE, ROW, FLOOR)
    if to_floor is not None:
        text += f", {_times(to_floor)} the bare exit of {_value(results, ROW, FLOOR)}"
    return text + "."


def _isolation(results: Results, costs: dict[str, Estimate]) -> str:
    parts = []
    for ipc, cost in costs.items():
        more = added(results, ROW, _isolated(ipc), NONE)
        assert more is not None
        parts.append(f"{_times(cost)} over {ipc} ({_signed(more.median)} a read)")
    return f"A process per device type under a seccomp filter makes it {_listed(parts)}."


def _signed(nanoseconds: float) -> str:
    sign = "+" if nanoseconds >= 0 else "−"
    return sign + report.number(abs(nanoseconds), "ns")


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _choice(costs: dict[str, Estimate], cpus: object) -> str:
    best, equal = best_ipc(costs)
    text = f"Of the ways to talk to it, {best} is the cheapest here"
    if equal:
        text += f", though {_listed(equal)} cannot be told from it"
    elif len(costs) == 1:
        return f"Only {best} was measured."
    if best == "shm":
        text += ", at the price of a spinning device process while the guest is busy"
        if cpus == 1:
            text += ", and with one CPU it sleeps instead"
    return text + "."


def _against(results: Results, name: str, other: str) -> Estimate | None:
    return ratio(results, ROW, name, ROW, other)


def _over_each_ipc(results: Results, one: str) -> str:
    """What `one` costs instead of a process under a filter, over each ipc that was measured; or nothing."""
    costs = {ipc: _against(results, f"{one}/{ipc}", _isolated(ipc)) for ipc in IPC_CHOICES}
    parts = [f"{_times(cost)} over {ipc}" for ipc, cost in costs.items() if cost is not None]
    return _listed(parts) if parts else ""


def _seccomp(results: Results, ipc: str) -> str:
    """What the filter and strict mode cost, over the ipc that is best."""
    parts = []
    over_off = _against(results, f"process/filter/{ipc}", f"process/off/{ipc}")
    if over_off is not None:
        what = _times(over_off) if _differs(over_off) else f"nothing that shows ({_times(over_off)})"
        parts.append(f"The filter itself costs {what}")
    strict = _over_each_ipc(results, "process/strict")
    if strict:
        parts.append(f"strict mode instead of it {strict}")
    else:
        reason = results.failures.get(f"process/strict/{ipc}", {}).get("accesses")
        if reason:
            parts.append(f"strict mode could not be measured ({reason})")
    return "; ".join(parts) + "." if parts else ""


def _granularity(results: Results, ipc: str) -> str:
    cost = _against(results, f"per-device/filter/{ipc}", f"process/filter/{ipc}")
    if cost is None:
        return ""
    what = f"{_times(cost)} one per type" if _differs(cost) else f"as much as one per type ({_times(cost)})"
    memory = ratio(results, "pss", f"per-device/filter/{ipc}", "pss", f"process/filter/{ipc}")
    more = "" if memory is None else f", and {memory.median:.2f}× the memory"
    return f"A process per device costs {what}{more}."


def _thread(results: Results) -> str:
    costs = _over_each_ipc(results, "thread")
    if not costs:
        return ""
    return f"A thread of the VMM in place of a process, which isolates nothing, costs {costs}."


def _peer(results: Results, ipc: str) -> str:
    cost = _against(results, _isolated(ipc), QEMU)
    if cost is None:
        return ""
    return f"Over {ipc} a read takes {_times(cost)} what it takes in QEMU, whose devices are part of it."


def _house(results: Results) -> str:
    parts = []
    for row, what in (("start", "starts in"), ("pss", "takes")):
        if results.values(row, DEFAULT) and results.values(row, NONE):
            parts.append(
                f"{what} {_value(results, row, DEFAULT)} ({_value(results, row, NONE)} without isolation)"
            )
    return f"A VM with default options {_listed(parts)}." if parts else ""


def _answer(costs: dict[str, Estimate]) -> str:
    best, _ = best_ipc(costs)
    cost = costs[best]
    more = f"{max(cost.median - 1, 0) * 100:.0f} %"
    if cost.median <= CHEAP:
        spare = ", where a CPU can be spared for it" if best == "shm" else ""
        usual = DEFAULT.rpartition("/")[2]
        default = f"; over {usual}, the default, {costs[usual].median:.2f}×" if usual in costs else ""
        return (
            f"So isolation should be on unconditionally: over {best} an access costs {more} more{spare}"
            f"{default if usual != best else ''}."
        )
    if cost.median <= DEAR:
        return (
            f"So isolation should be on by default: over {best} an access costs {more} more, which a guest "
            "notices that does little but port accesses."
        )
    return (
        "So isolation should not be on unconditionally here, but for guests that nobody trusts: even over "
        f"{best} an access costs {cost.median:.1f} times as much."
    )


def _doubt(costs: dict[str, Estimate]) -> str:
    """A warning where the answer could be another one within the interval of the number that it rests on."""
    best, _ = best_ipc(costs)
    cost = costs[best]
    if cost.count < FEW:
        return f"That rests on {cost.count} round{'s' if cost.count > 1 else ''}, which says little."
    if not any(cost.low <= limit < cost.high for limit in (CHEAP, DEAR)):
        return ""
    return (
        f"That is not certain: the true ratio may lie anywhere from {cost.low:.2f} to {cost.high:.2f}. "
        "Measure again on a quieter host, or with more rounds."
    )


def verdict(results: Results) -> str:
    """One paragraph. It says what is missing where nothing can be concluded."""
    if not results.values(ROW, NONE):
        return f"No verdict: {ROW} was not measured with --sandbox none."
    host = (
        f"{results.facts.get('kernel', 'this kernel')}, KVM backend {results.facts.get('kvm_backend', '?')}"
    )
    costs = _costs(results)
    opening = f"On this host ({host}) {_base(results)}"
    if not costs:
        reasons = [results.failures.get(_isolated(ipc), {}).get("accesses", "") for ipc in IPC_CHOICES]
        reason = next((text for text in reasons if text), "not asked for")
        return f"{opening} What isolation costs was not measured: {reason}."
    best, _ = best_ipc(costs)
    sentences = [
        opening,
        _isolation(results, costs),
        _choice(costs, results.facts.get("cpus")),
        _seccomp(results, best),
        _granularity(results, best),
        _thread(results),
        _peer(results, best),
        _house(results),
        _answer(costs),
        _doubt(costs),
    ]
    return " ".join(sentence for sentence in sentences if sentence)
