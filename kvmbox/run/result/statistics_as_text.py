"""The statistics of a run as text, for --stats."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from kvmbox.jail import layers
from kvmbox.run.result.run_statistics import RunStats

NS_PER_MS: Final = 1_000_000

MOST_SOURCES: Final = 10
"""How many sources of exits the text has; the data has more."""


def format_stats(stats: RunStats, wall: int) -> str:
    """The numbers as text, one fact a line. `wall` is the time from start to end in ns."""
    return "\n".join(
        (
            *_times(stats, wall),
            *_accesses(stats),
            *_sources(stats.exit_sources),
            *_devices(stats),
            *_starts(stats),
            *_faults(stats),
            *_hot_path(stats),
            *_sandbox(stats),
        )
    )


def format_net(net: Mapping[str, Any]) -> str:
    """The facts of a network interface as one line."""
    return _line(
        net["name"],
        f"{net['sent']} frames sent, {net['waited']} waited, {net['lost_sent']} lost; "
        f"{net['received']} received, {net['lost_received']} lost",
    )


def _line(label: str, text: object) -> str:
    return f"{label:<24} {text}"


def _ms(ns: int) -> str:
    return f"{ns / NS_PER_MS:.1f}"


def _times(stats: RunStats, wall: int) -> Iterator[str]:
    yield _line("wall time", f"{_ms(wall)} ms")
    boots = f", {stats.boots} boots" if stats.boots > 1 else ""
    yield _line("guest time", f"{_ms(stats.guest_time)} ms{boots}")
    if stats.stalls:
        stalled = f"{_ms(stats.stalled)} ms in all, {stats.stalls} times, because kvmbox did not run"
        yield _line("  stood still", stalled)
    first = stats.first_console_byte
    yield _line("first console byte", "none" if first is None else f"{_ms(first)} ms")


def _accesses(stats: RunStats) -> Iterator[str]:
    yield _line("exits", stats.exits)
    if len(stats.exits_by_cpu) > 1:
        yield from (_line(f"  CPU {number}", count) for number, count in enumerate(stats.exits_by_cpu))
    for name, count in stats.device_accesses.items():
        if count["reads"] or count["writes"]:
            yield _line(f"  {name}", f"{count['reads']} reads, {count['writes']} writes")
    for port in stats.ports:
        yield _line(f"  {port.direction:<3} {port.port:#06x} size {port.size}", port)
    if stats.mmio_exits:
        yield _line("  memory-mapped", stats.mmio_exits)
    yield from (_line(f"  unclaimed {kind}", number) for kind, number in stats.unclaimed.items() if number)


def _sources(found: dict[str, Any]) -> Iterator[str]:
    if found.get("sources"):
        yield _line("exits come from", f"{found['sampled']} of {found['exits']} were looked at")
        for one in found["sources"][:MOST_SOURCES]:
            access = f"{one['access']:<5} {one['address']:#06x} size {one['size']}"
            yield f"  {100 * one['share']:3.0f} %  {access}  {one['place'] or format(one['rip'], '#x')}"


def _devices(stats: RunStats) -> Iterator[str]:
    for irq in stats.interrupts:
        if irq.raised or irq.coalesced:
            yield _line(f"IRQ {irq.line}", f"{irq.raised} raised, {irq.coalesced} coalesced")
    for what, numbers, unit in (
        ("output", stats.bytes_out, "bytes"),
        ("input", stats.bytes_in, "bytes"),
        ("dropped", stats.bytes_dropped, "bytes"),
        ("not repeated", stats.bytes_shown_for_another, "bytes, which stdout had of the other port"),
    ):
        for name, number in numbers.items():
            if number or what == "input":
                yield _line(f"{name} {what}", f"{number} {unit}")


def _starts(stats: RunStats) -> Iterator[str]:
    before = 0
    for stage, at in stats.stages.items():
        yield _line(stage, f"+{_ms(at - before)} ms (at {_ms(at)})")
        before = at
    for name, start in stats.on_demand.items():
        text = "not needed"
        if start is not None:
            how = "failed after" if start["failed"] else "started in"
            text = f"{how} {_ms(start['took'])} ms (at {_ms(start['at'])})"
        yield _line(f"process of {name}", text)


def _faults(stats: RunStats) -> Iterator[str]:
    for one in stats.injected:
        yield _line(f"{one['device']} {one['fault']}", f"{one['injected']} of {one['events']} injected")


def _hot_path(stats: RunStats) -> Iterator[str]:
    yield _line("hot path", stats.hot_path)
    if spins := stats.spins:
        yield _line("right to spin", f"{spins['granted']} granted, {spins['revoked']} revoked")
    if "budget" in (restarts := stats.restarts):
        text = ", ".join(f"{name} {count}" for name, count in restarts["by_type"].items())
        yield _line("restarts", f"{text or 'none'}; {restarts['budget']} left")
        if took := sorted(restarts["durations"]):
            median, longest = _ms(took[len(took) // 2]), _ms(took[-1])
            again = f"{restarts['replayed']} requests again"
            yield _line("  took", f"{median} ms (median), {longest} ms (longest), {again}")


def _sandbox(stats: RunStats) -> Iterator[str]:
    every = list(stats.sandbox.values())
    common = [name for name in every[0] if all(name in other for other in every)] if every else []
    yield f"sandbox ({stats.design}): {', '.join(common) or 'no layer'}"
    if missing := [name for name in layers.NAMES.values() if name not in common]:
        yield _line("sandbox layers missing", ", ".join(missing))
    yield _line("sandbox of kvmbox itself", ", ".join(stats.vmm) or "no layer")
    yield from (_line(f"  {name}", reason) for name, reason in stats.missing.items())
