"""The statistics of a run as text, for --stats."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from kvmbox.jail import layers
from kvmbox.run.statistics import RunStats

NS_PER_MS: Final = 1_000_000

MOST_SOURCES: Final = 10
"""How many sources of exits the text has; the data has more."""


def _sources(found: dict[str, Any]) -> list[str]:
    if not found.get("sources"):
        return []
    return [
        f"exits come from          {found['sampled']} of {found['exits']} were looked at",
        *(
            f"  {100 * one['share']:3.0f} %  {one['access']:<5} {one['address']:#06x} size {one['size']}  "
            f"{one['place'] or format(one['rip'], '#x')}"
            for one in found["sources"][:MOST_SOURCES]
        ),
    ]


def format_net(net: Mapping[str, Any]) -> str:
    """The facts of a network interface as one line."""
    return (
        f"{net['name']:<24} {net['sent']} frames sent, {net['waited']} waited, {net['lost_sent']} lost; "
        f"{net['received']} received, {net['lost_received']} lost"
    )


def format_stats(stats: RunStats, wall: int) -> str:
    """The numbers as text, one fact a line. `wall` is the time from start to end in ns."""
    lines = [
        f"wall time                {wall / NS_PER_MS:.1f} ms",
        f"guest time               {stats.guest_time / NS_PER_MS:.1f} ms"
        + (f", {stats.boots} boots" if stats.boots > 1 else ""),
        *(
            [
                f"  stood still            {stats.stalled / NS_PER_MS:.1f} ms in all, {stats.stalls} times, "
                "because kvmbox did not run"
            ]
            if stats.stalls
            else []
        ),
        "first console byte       "
        + ("none" if stats.first_console_byte is None else f"{stats.first_console_byte / NS_PER_MS:.1f} ms"),
        f"exits                    {stats.exits}",
    ]
    if len(stats.exits_by_cpu) > 1:
        lines += [f"  CPU {number:<18} {count}" for number, count in enumerate(stats.exits_by_cpu)]
    for name, count in stats.device_accesses.items():
        if count["reads"] or count["writes"]:
            lines.append(f"  {name:<22} {count['reads']} reads, {count['writes']} writes")
    for port in stats.ports:
        lines.append(f"  {port.direction:<3} {port.port:#06x} size {port.size}      {port}")
    if stats.mmio_exits:
        lines.append(f"  memory-mapped          {stats.mmio_exits}")
    for kind, number in stats.unclaimed.items():
        if number:
            lines.append(f"  unclaimed {kind:<12} {number}")
    lines += _sources(stats.exit_sources)
    for line in stats.interrupts:
        if line.raised or line.coalesced:
            lines.append(f"IRQ {line.line:<20} {line.raised} raised, {line.coalesced} coalesced")
    for name, number in stats.bytes_out.items():
        if number:
            lines.append(f"{name + ' output':<24} {number} bytes")
    for name, number in stats.bytes_in.items():
        lines.append(f"{name + ' input':<24} {number} bytes")
    for name, number in stats.bytes_dropped.items():
        if number:
            lines.append(f"{name + ' dropped':<24} {number} bytes")
    for name, number in stats.bytes_shown_for_another.items():
        if number:
            lines.append(f"{name + ' not repeated':<24} {number} bytes, which stdout had of the other port")
    before = 0
    for stage, at in stats.stages.items():
        lines.append(f"{stage:<24} +{(at - before) / NS_PER_MS:.1f} ms (at {at / NS_PER_MS:.1f})")
        before = at
    for name, start in stats.on_demand.items():
        what = f"process of {name}"
        if start is None:
            lines.append(f"{what:<24} not needed")
        else:
            how = "failed after" if start["failed"] else "started in"
            took, began = start["took"] / NS_PER_MS, start["at"] / NS_PER_MS
            lines.append(f"{what:<24} {how} {took:.1f} ms (at {began:.1f})")
    for fault in stats.injected:
        what = f"{fault['device']} {fault['fault']}"
        lines.append(f"{what:<24} {fault['injected']} of {fault['events']} injected")
    every = list(stats.sandbox.values())
    common = [name for name in every[0] if all(name in other for other in every)] if every else []
    lines.append(f"hot path                 {stats.hot_path}")
    if stats.spins:
        lines.append(
            f"right to spin            {stats.spins['granted']} granted, {stats.spins['revoked']} revoked"
        )
    if stats.restarts:
        durations = sorted(stats.restarts["durations"])
        told = ", ".join(f"{name} {count}" for name, count in stats.restarts["by_type"].items())
        lines.append(f"restarts                 {told or 'none'}; {stats.restarts['budget']} left")
        if durations:
            lines.append(
                f"  took                   {durations[len(durations) // 2] / NS_PER_MS:.1f} ms (median), "
                f"{durations[-1] / NS_PER_MS:.1f} ms (longest), {stats.restarts['replayed']} requests again"
            )
    lines.append(f"sandbox ({stats.design}): {', '.join(common) or 'no layer'}")
    missing = [name for name in layers.NAMES.values() if name not in common]
    if missing:
        lines.append(f"sandbox layers missing   {', '.join(missing)}")
    lines.append(f"sandbox of kvmbox itself {', '.join(stats.vmm) or 'no layer'}")
    for name, reason in stats.missing.items():
        lines.append(f"  {name:<22} {reason}")
    return "\n".join(lines)
