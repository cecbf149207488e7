"""From the guest's words to rows, and the peer's command line."""

from __future__ import annotations

import pytest

from kvmbox.bench import peer
from kvmbox.bench.jobs import PIT_HZ, stages, values_of
from kvmbox.bench.plan import choose
from kvmbox.errors import StartError

TSC_KHZ = 2_000_000  # two cycles to the nanosecond


def test_cycles_become_nanoseconds_of_each_row() -> None:
    rows = choose(only=["inb_from_device", "inb_p99", "post"]).rows
    output = (
        b"bench inb_from_device iterations=100 cycles=2000000\n"
        b"bench inb_from_device samples=100 min=1 p50=20 p90=3 p99=50 max=60\n"
    )
    assert values_of(output, rows, TSC_KHZ) == {"inb_from_device": 10_000.0, "inb_p99": 2.5}


def test_latency_is_what_comes_after_the_time_that_was_asked_for() -> None:
    rows = choose(only=["hlt_latency_p50"]).rows
    ticks = 1193
    late = 40_000
    cycles = round((ticks * 1e9 / PIT_HZ + late) * 2)
    output = (
        b"bench hlt_latency iterations=9 cycles=%d ticks=%d\n"
        b"bench hlt_latency samples=9 min=1 p50=%d p90=3 p99=4 max=5\n" % (cycles * 9, ticks, cycles)
    )
    assert values_of(output, rows, TSC_KHZ)["hlt_latency_p50"] == pytest.approx(late, abs=1)


def test_latency_is_never_negative() -> None:
    rows = choose(only=["hlt_latency_p50"]).rows
    output = b"bench hlt_latency iterations=1 cycles=5 ticks=1193\nbench hlt_latency samples=1 p50=5\n"
    assert values_of(output, rows, TSC_KHZ) == {"hlt_latency_p50": 0.0}


def test_stages_of_a_start_add_up_to_the_whole() -> None:
    found = stages({"wall_time": 90, "stages": {"one": 20, "two": 50, "end": 90}}, 140)
    assert found == {
        "start: interpreter, imports, exit": 50,
        "start: one": 20,
        "start: two": 30,
        "start: end": 40,
    }
    assert sum(found.values()) == 140


def test_stages_that_are_no_numbers_are_an_error_that_the_job_expects() -> None:
    with pytest.raises((KeyError, TypeError, ValueError, AttributeError)):
        stages({"wall_time": 1, "stages": {"one": None}}, 5)


def test_qemu_gets_the_same_image_and_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _name: "/usr/bin/qemu-system-x86_64")
    command = peer.command("/images/bench.elf", ["post=5", "inb_from_device=7"])
    assert command[0] == "/usr/bin/qemu-system-x86_64"
    assert command[command.index("-kernel") + 1] == "/images/bench.elf"
    assert command[command.index("-append") + 1] == "post=5 inb_from_device=7"
    assert "isa-debug-exit,iobase=0xf4,iosize=4" in command


def test_missing_qemu_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _name: None)
    with pytest.raises(StartError, match="qemu-system-x86_64 is not installed"):
        peer.find()
    assert peer.version() == ""
