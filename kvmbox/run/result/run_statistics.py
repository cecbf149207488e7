"""The statistics of a run, as data for --json. Collected once, at the end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kvmbox.base.compiled import describe
from kvmbox.base.value_classes import Value
from kvmbox.host.console.serial_ports import Console
from kvmbox.jail import layers
from kvmbox.remote.process.device_pool import DevicePool
from kvmbox.run.loop.main_loop import MainLoop
from kvmbox.run.machine.device_set import Devices
from kvmbox.run.result.stage_times import Timeline
from kvmbox.run.vcpu.exit_routes import port_access


class PortCount(Value):
    """Exits of one kind of access. `direction` is "in" or "out", `size` bytes. `steady` of them were answered
    with a steady value, without the device.
    """

    port: int
    direction: str
    size: int
    count: int
    steady: int = 0

    def __str__(self) -> str:
        return f"{self.count}, {self.steady} of them steady" if self.steady else str(self.count)


class InterruptCount(Value):
    """One interrupt line: rising edges delivered, and those that were folded into another one."""

    line: int
    raised: int
    coalesced: int


class RunStats(Value):
    """Numbers of one run; times in ns since the start of kvmbox, sizes in bytes."""

    format: str
    boots: int
    exits: int
    exits_by_cpu: list[int]
    device_accesses: dict[str, dict[str, int]]
    ports: list[PortCount]
    unclaimed: dict[str, int]
    mmio_exits: int
    interrupts: list[InterruptCount]
    bytes_out: dict[str, int]
    bytes_in: dict[str, int]
    bytes_dropped: dict[str, int]
    bytes_shown_for_another: dict[str, int]
    """Printed by a port after another one had printed the same, and so not shown again."""
    first_console_byte: int | None
    guest_time: int
    stalls: int
    """How often guest time stood still because the main thread did not run."""
    stalled: int
    """How long, in all."""
    stages: dict[str, int]
    design: str
    hot_path: str
    """Whether the run loop, the channels and the serving loops are compiled."""
    spins: dict[str, int]
    sandbox: dict[str, list[str]]
    """The layers of each device process that has started."""
    on_demand: dict[str, dict[str, int] | None]
    """Of each process that starts when the guest uses its devices: when that began, how long it took, and
    whether it failed. None where the guest has not used them."""
    restarts: dict[str, Any]
    """Of lost device processes. Empty where a run ends with the first one."""
    vmm: list[str]
    missing: dict[str, str]
    injected: list[dict[str, Any]]
    """The faults of devices: of which device, which fault, its events, and how many of them it has hit."""
    exit_sources: dict[str, Any]
    """Which instructions made the exits (`exit_sources`). Empty where that was not asked for."""
    _shown = ("boots", "exits", "guest_time")

    def as_json(self) -> dict[str, Any]:
        """The numbers as data for JSON."""
        return self.as_dict() | {
            "ports": [port.as_dict() for port in self.ports],
            "interrupts": [line.as_dict() for line in self.interrupts],
        }


def collect(
    devices: Devices, main_loop: MainLoop, console: Console, timeline: Timeline, facts: Mapping[str, Any]
) -> RunStats:
    """Collect all numbers at the end of a run, before anything is closed. `facts` are those of its parts."""
    totals = main_loop.totals
    pool = devices.pool
    first = console.first_byte_at
    return RunStats(
        format=totals.format,
        boots=totals.boots,
        exits=totals.exits,
        exits_by_cpu=list(totals.exits_by_cpu),
        device_accesses={
            proxy.name: {"reads": proxy.reads, "writes": proxy.writes} for proxy in devices.proxies
        },
        ports=[
            PortCount(port, direction, size, count, totals.steady.get(word, 0))
            for word, count in sorted(totals.ports.items(), key=lambda item: -item[1])
            for direction, port, size in (port_access(word),)
        ],
        unclaimed={
            "port reads": devices.ports.unclaimed_reads,
            "port writes": devices.ports.unclaimed_writes,
            "memory reads": devices.mmio.unclaimed_reads,
            "memory writes": devices.mmio.unclaimed_writes,
        },
        mmio_exits=totals.mmio_exits,
        interrupts=[
            InterruptCount(line, state.raised, state.coalesced)
            for line, state in sorted(devices.router.lines.items())
        ],
        bytes_out=dict(console.bytes_out),
        bytes_in=dict(console.bytes_in),
        bytes_dropped=console.dropped,
        bytes_shown_for_another=console.shown_for_another,
        first_console_byte=None if first is None else first - timeline.started,
        guest_time=devices.clock.now(),
        stalls=devices.clock.stalls,
        stalled=devices.clock.stalled,
        stages=dict(timeline.stages),
        design=str(pool.design),
        hot_path=describe(),
        spins={"granted": pool.spin.granted, "revoked": pool.spin.revoked} if pool.spin is not None else {},
        vmm=[] if main_loop.confinement is None else layers.names(main_loop.confinement.applied),
        missing=_missing(pool, main_loop),
        exit_sources=facts.get("exit_sources", {}),
        sandbox={
            member.device_type: layers.names(member.layers)
            for member in pool.members.values()
            if member.device_type not in pool.starts.names or member.device_type in pool.starts.made
        },
        on_demand=_on_demand(pool, timeline),
        restarts=facts.get("restarts", {}),
        injected=facts.get("injected", []),
    )


def _on_demand(pool: DevicePool, timeline: Timeline) -> dict[str, dict[str, int] | None]:
    found: dict[str, dict[str, int] | None] = dict.fromkeys(pool.starts.names)
    for name, start in pool.starts.made.items():
        found[name] = start.as_dict() | {"at": start.at - timeline.started}
    return found


def _missing(pool: DevicePool, main_loop: MainLoop) -> dict[str, str]:
    """The reason for each missing layer, by name."""
    found = dict(pool.spawner.missing) if pool.spawner is not None else {}
    if main_loop.confinement is not None:
        found |= main_loop.confinement.missing
    return found
