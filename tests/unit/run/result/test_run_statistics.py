"""Statistics: gathered from what a run leaves behind, told as text and as JSON."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

from kvmbox.jail import layers
from kvmbox.remote.process.device_pool import Design
from kvmbox.remote.process.late_starts import Start
from kvmbox.run.result.run_statistics import InterruptCount, PortCount, RunStats, collect
from kvmbox.run.result.statistics_as_text import format_stats
from kvmbox.run.vcpu.exit_routes import ExitTotals

IN, OUT = 0, 1

FACTS: dict[str, Any] = {
    "restarts": {"by_type": {"uart": 2}, "durations": [4_000_000], "replayed": 321, "budget": 13},
    "injected": [{"device": "COM1", "fault": "drop-irq", "events": 271, "injected": 3}],
    "exit_sources": {"exits": 3, "sampled": 2, "sources": []},
}
"""What the parts of the run have found."""


def word(direction: int, size: int, port: int) -> int:
    return direction | size << 8 | port << 16


def gathered(*loops: Any) -> RunStats:
    """What `collect` makes of a run with these boots."""
    totals = ExitTotals()
    totals.format = "elf64"
    for loop in loops:
        totals.add([loop])
    parts: dict[str, Any] = {
        "devices": SimpleNamespace(
            proxies=[SimpleNamespace(name="COM1", reads=2, writes=3)],
            ports=SimpleNamespace(unclaimed_reads=4, unclaimed_writes=5),
            mmio=SimpleNamespace(unclaimed_reads=6, unclaimed_writes=7),
            router=SimpleNamespace(
                lines={
                    8: SimpleNamespace(raised=1, coalesced=0),
                    0: SimpleNamespace(raised=990, coalesced=10),
                }
            ),
            clock=SimpleNamespace(now=lambda: 1_500_000_000, stalls=2, stalled=540_000_000),
            pool=SimpleNamespace(
                design=Design(ipc="shm"),
                spawner=SimpleNamespace(missing={"net-namespace": "not allowed"}),
                spin=SimpleNamespace(granted=3, revoked=1),
                members={
                    "uart": SimpleNamespace(device_type="uart", layers=layers.REQUIRED),
                    "pm": SimpleNamespace(device_type="pm", layers=layers.REQUIRED),
                    "hpet": SimpleNamespace(device_type="hpet", layers=0),
                },
                starts=SimpleNamespace(
                    names=["pm", "hpet"], made={"pm": Start(at=9_000_000, took=4_000_000, failed=False)}
                ),
            ),
        ),
        "main_loop": SimpleNamespace(
            totals=totals,
            confinement=SimpleNamespace(
                applied=layers.VMM_SECCOMP, missing={"vmm-landlock": "this kernel has none"}
            ),
        ),
        "console": SimpleNamespace(
            first_byte_at=7_000_000,
            bytes_out={"COM1": 10},
            bytes_in={},
            dropped={"stdout": 0},
            shown_for_another={"COM1": 2, "debugcon": 0},
        ),
        "timeline": SimpleNamespace(started=5_000_000, stages={"closed": 9}),
    }
    return collect(**parts, facts=FACTS)


def boot(
    exits: int, mmio: int, ports: dict[int, int], steady: dict[int, int] | None = None
) -> SimpleNamespace:
    return SimpleNamespace(exit_count=exits, mmio_exits=mmio, port_exits=ports, steady_exits=steady or {})


def test_collect_adds_up_boots_by_port() -> None:
    stats = gathered(
        boot(10, 1, {word(OUT, 1, 0x3F8): 5, word(IN, 1, 0x3FD): 8}, {word(IN, 1, 0x3FD): 6}),
        boot(20, 2, {word(OUT, 1, 0x3F8): 1, word(IN, 1, 0x3FD): 1, word(OUT, 4, 0xF4): 1}),
        boot(0, 0, {word(IN, 1, 0x3FD): 1}, {word(IN, 1, 0x3FD): 1}),
    )
    assert (stats.boots, stats.exits, stats.mmio_exits) == (3, 30, 3)
    # The most frequent first.
    assert stats.ports == [
        PortCount(0x3FD, "in", 1, 10, steady=7),
        PortCount(0x3F8, "out", 1, 6),
        PortCount(0xF4, "out", 4, 1),
    ]


def test_collect_counts_the_exits_of_each_cpu_over_all_boots() -> None:
    boots: list[list[Any]] = [[boot(10, 0, {}), boot(1, 0, {})], [boot(20, 0, {}), boot(2, 0, {})]]
    totals = ExitTotals()
    for loops in boots:
        totals.add(loops)
    assert (totals.exits, totals.exits_by_cpu) == (33, [30, 3])


def test_format_stats_shows_each_cpu_where_there_are_several() -> None:
    lines = format_stats(numbers(exits=33, exits_by_cpu=[30, 3]), wall=0).splitlines()
    at = lines.index("exits                    33")
    assert lines[at + 1 : at + 3] == ["  CPU 0                  30", "  CPU 1                  3"]
    assert "CPU 0" not in format_stats(numbers(exits=30, exits_by_cpu=[30]), wall=0)


def test_collect_takes_every_number_from_where_it_is_counted() -> None:
    stats = gathered()
    assert stats.format == "elf64"
    assert stats.device_accesses == {"COM1": {"reads": 2, "writes": 3}}
    assert list(stats.unclaimed.values()) == [4, 5, 6, 7]
    assert stats.interrupts == [InterruptCount(0, 990, 10), InterruptCount(8, 1, 0)]
    assert stats.first_console_byte == 2_000_000
    assert stats.bytes_shown_for_another == {"COM1": 2, "debugcon": 0}
    assert stats.guest_time == 1_500_000_000
    assert (stats.stalls, stats.stalled) == (2, 540_000_000)
    assert stats.sandbox == dict.fromkeys(("uart", "pm"), layers.names(layers.REQUIRED))
    assert stats.on_demand == {"pm": {"at": 4_000_000, "took": 4_000_000, "failed": False}, "hpet": None}
    assert stats.design == "process, filter, shm"
    assert stats.restarts is FACTS["restarts"]
    assert stats.injected is FACTS["injected"]
    assert stats.exit_sources is FACTS["exit_sources"]
    assert stats.spins == {"granted": 3, "revoked": 1}
    assert stats.vmm == ["vmm-seccomp"]
    assert stats.missing == {"net-namespace": "not allowed", "vmm-landlock": "this kernel has none"}


def test_as_json_is_json() -> None:
    stats = gathered(boot(1, 0, {word(IN, 1, 0x40): 1}))
    data = json.loads(json.dumps(stats.as_json()))
    assert data["ports"] == [{"port": 0x40, "direction": "in", "size": 1, "count": 1, "steady": 0}]
    assert data["interrupts"][0] == {"line": 0, "raised": 990, "coalesced": 10}


def numbers(**changes: Any) -> RunStats:
    """A run that did nothing, but for `changes`."""
    plain: dict[str, Any] = {
        "format": "real",
        "boots": 1,
        "exits": 0,
        "exits_by_cpu": [0],
        "device_accesses": {"COM1": {"reads": 0, "writes": 0}},
        "ports": [],
        "unclaimed": {"port reads": 0, "port writes": 0},
        "mmio_exits": 0,
        "interrupts": [InterruptCount(4, 0, 0)],
        "bytes_out": {"COM1": 0},
        "bytes_in": {},
        "bytes_dropped": {"stdout": 0},
        "bytes_shown_for_another": {"COM1": 0},
        "first_console_byte": None,
        "guest_time": 0,
        "stalls": 0,
        "stalled": 0,
        "stages": {},
        "design": "process, filter, socketpair",
        "hot_path": "pure Python (KVMBOX_PURE is set)",
        "spins": {},
        "sandbox": {},
        "on_demand": {},
        "restarts": {},
        "vmm": [],
        "missing": {},
        "injected": [],
        "exit_sources": {},
    }
    return RunStats(**(plain | changes))


def test_format_stats_tells_how_long_guest_time_stood_still() -> None:
    text = format_stats(numbers(stalls=2, stalled=540_000_000), wall=1_500_000)
    assert "\n  stood still            540.0 ms in all, 2 times, because kvmbox did not run\n" in text
    assert "stood still" not in format_stats(numbers(), wall=1_500_000)


def test_format_stats_leaves_out_what_is_zero() -> None:
    text = format_stats(numbers(), wall=1_500_000)
    assert "wall time                1.5 ms" in text.splitlines()
    assert "first console byte       none" in text
    for absent in ("COM1", "IRQ", "unclaimed", "memory-mapped", "boots", "stdout", "restarts"):
        assert absent not in text


def test_format_stats_shows_a_fact_a_line() -> None:
    text = format_stats(
        numbers(
            boots=3,
            device_accesses={"COM1": {"reads": 2, "writes": 3}},
            ports=[PortCount(0x3F8, "out", 1, 6), PortCount(0x3FD, "in", 1, 9, 8)],
            unclaimed={"port reads": 7},
            mmio_exits=8,
            interrupts=[InterruptCount(0, 990, 10)],
            bytes_out={"COM1": 11},
            bytes_in={"COM1": 12},
            bytes_dropped={"stdout": 13},
            bytes_shown_for_another={"COM1": 0, "debugcon": 14},
            first_console_byte=2_000_000,
            stages={"one": 1_000_000, "two": 3_500_000},
        ),
        wall=0,
    )
    lines = text.splitlines()
    assert "guest time               0.0 ms, 3 boots" in lines
    assert "hot path                 pure Python (KVMBOX_PURE is set)" in lines
    assert "first console byte       2.0 ms" in lines
    assert "  COM1                   2 reads, 3 writes" in lines
    assert "  out 0x03f8 size 1      6" in lines
    assert "  in  0x03fd size 1      9, 8 of them steady" in lines
    assert "  memory-mapped          8" in lines
    assert "  unclaimed port reads   7" in lines
    assert "IRQ 0                    990 raised, 10 coalesced" in lines
    assert "COM1 output              11 bytes" in lines
    assert "COM1 input               12 bytes" in lines
    assert "stdout dropped           13 bytes" in lines
    assert "debugcon not repeated    14 bytes, which stdout had of the other port" in lines
    assert "COM1 not repeated" not in text
    assert "two                      +2.5 ms (at 3.5)" in lines


def test_format_stats_tells_where_the_first_exits_come_from() -> None:
    source = {
        "share": 0.664,
        "access": "in",
        "address": 0x3FD,
        "size": 1,
        "rip": 0x10004F,
        "place": "poll+0xb",
    }
    write = source | {"share": 0.02, "access": "write", "address": 0xD000_0000, "place": None}
    found = {"exits": 900, "sampled": 80, "sources": [source] + [write] * 10}
    lines = format_stats(numbers(exit_sources=found), wall=0).splitlines()
    at = lines.index("exits come from          80 of 900 were looked at")
    assert lines[at + 1 : at + 3] == [
        "   66 %  in    0x03fd size 1  poll+0xb",
        "    2 %  write 0xd0000000 size 1  0x10004f",
    ]
    assert sum(" %  " in line for line in lines) == 10
    assert "exits come from" not in format_stats(numbers(exit_sources=found | {"sources": []}), wall=0)


def test_format_stats_tells_restarts_and_how_long_they_took() -> None:
    restarts = {
        "by_type": {"uart": 2, "pit": 1},
        "durations": [4_000_000, 1_500_000, 2_000_000],
        "replayed": 321,
        "budget": 13,
    }
    lines = format_stats(numbers(restarts=restarts), wall=0).splitlines()
    at = lines.index("restarts                 uart 2, pit 1; 13 left")
    assert lines[at + 1] == ("  took                   2.0 ms (median), 4.0 ms (longest), 321 requests again")


def test_format_stats_tells_which_processes_the_guest_needed_and_which_it_did_not() -> None:
    on_demand = {
        "pm": {"at": 70_000_000, "took": 4_500_000, "failed": False},
        "hpet": {"at": 80_000_000, "took": 500_000, "failed": True},
        "fwcfg": None,
    }
    lines = format_stats(numbers(on_demand=on_demand), wall=0).splitlines()
    assert "process of pm            started in 4.5 ms (at 70.0)" in lines
    assert "process of hpet          failed after 0.5 ms (at 80.0)" in lines
    assert "process of fwcfg         not needed" in lines


def test_format_stats_tells_that_nothing_was_restarted() -> None:
    restarts = {"by_type": {}, "durations": [], "replayed": 0, "budget": 16}
    text = format_stats(numbers(restarts=restarts), wall=0)
    assert "restarts                 none; 16 left" in text
    assert "took" not in text


def test_format_stats_tells_the_layers_that_every_process_has_and_those_that_one_lacks() -> None:
    names = list(layers.NAMES.values())
    text = format_stats(numbers(sandbox={"uart": names, "pit": names[:-1]}), wall=0)
    assert text.splitlines()[-3] == f"sandbox (process, filter, socketpair): {', '.join(names[:-1])}"
    assert text.splitlines()[-2].split()[-1] == names[-1]


def test_format_stats_tells_what_kvmbox_confined_itself_with_and_why_not_with_more() -> None:
    lines = format_stats(numbers(vmm=["vmm-seccomp"], missing={"vmm-landlock": "none here"}), wall=0)
    assert lines.splitlines()[-2:] == [
        "sandbox of kvmbox itself vmm-seccomp",
        "  vmm-landlock           none here",
    ]


def test_format_stats_tells_what_was_injected() -> None:
    injected = [{"device": "COM1", "fault": "drop-irq", "events": 271, "injected": 3}]
    lines = format_stats(numbers(injected=injected), wall=0).splitlines()
    assert "COM1 drop-irq            3 of 271 injected" in lines
