"""Lines of the bench guest."""

from __future__ import annotations

import pytest

from kvmbox.tools.bench.guest_output import parse


def test_parse_reads_mean_and_spread_of_one_test() -> None:
    found = parse(
        b"bench inb_from_device iterations=200 cycles=4000\n"
        b"bench inb_from_device samples=200 min=15 p50=20 p90=21 p99=60 max=90\n"
    )
    assert list(found) == ["inb_from_device"]
    assert found["inb_from_device"].value("mean") == 20.0
    assert found["inb_from_device"].value("p99") == 60
    assert found["inb_from_device"].value("p99/p50") == 3.0


def test_mean_of_several_passes_is_their_median() -> None:
    found = parse(b"".join(b"bench inb iterations=10 cycles=%d\n" % cycles for cycles in (900, 20, 30)))
    assert found["inb"].value("mean") == 3.0


def test_parse_finds_a_line_behind_what_a_measurement_printed() -> None:
    found = parse(b"\x00....\n....bench thr_polled iterations=64 cycles=640\r\n")
    assert found["thr_polled"].value("mean") == 10.0


def test_parse_keeps_the_ticks_that_an_iteration_waits_for() -> None:
    found = parse(b"bench hlt_latency iterations=10 cycles=30000 ticks=1193\n")
    assert found["hlt_latency"].ticks == 1193


@pytest.mark.parametrize(
    "line",
    [
        b"bench inb iterations=0 cycles=40\n",
        b"bench inb iterations=10 cycles=40",  # cut
        b"bench inb iterations=-1 cycles=40\n",
        b"bench inb iterations=999999999999999999999999 cycles=1\n",
        b"bench holding\n",
        b"bench inb\n",
        b"",
    ],
)
def test_parse_of_what_is_no_measurement_has_no_mean(line: bytes) -> None:
    found = parse(line)
    assert all(one.value("mean") is None for one in found.values())


def test_value_that_was_not_measured_is_none() -> None:
    found = parse(b"bench inb samples=3 min=0 p50=0 p99=4\nbench outb iterations=1 cycles=2\n")
    assert found["inb"].value("mean") is None
    assert found["inb"].value("p99/p50") is None  # a median of no cycles
    assert found["inb"].value("p75") is None
    assert found["outb"].value("p50") is None
