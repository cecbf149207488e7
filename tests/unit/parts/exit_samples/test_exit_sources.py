"""Which instructions make the exits: bursts of samples, and what they stand for."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from kvmbox.base.symbol_file import SymbolFile
from kvmbox.kvm import uapi
from kvmbox.parts.exit_samples.part import (
    BURST,
    FIRST,
    INTERVAL,
    MOST_LISTED,
    MOST_SOURCES,
    ExitSampler,
)
from kvmbox.run.loop.vcpu_pause import VcpuPause
from kvmbox.run.vcpu.run_state import Access
from tests.support.scripted_vcpu import FakeVcpu

CLOCK: Any = None
IN: Access = ("in", 0x3FD, 1)
OUT: Access = ("out", 0x3F8, 1)


class Vcpu(FakeVcpu):
    """Its program counter is what the test says."""

    rip = 0x7C00

    def get_regs(self) -> uapi.kvm_regs:
        super().get_regs()
        return uapi.kvm_regs(rip=self.rip)


class Thread:
    """Makes the exits that the test wants, and shows them as a vCPU does."""

    def __init__(self) -> None:
        self.vcpu = Vcpu()
        self.loop = SimpleNamespace(routes=SimpleNamespace(guest_exits=0))
        self.in_access = False
        self.is_alive = True
        self.observer: Callable[[Access], bool] | None = None
        self.shows = False
        self.requests = 0

    def observe(self, observer: Callable[[Access], bool]) -> None:
        self.observer, self.shows = observer, True
        self.requests += 1

    def pause(self) -> None:
        raise AssertionError("nobody needs a standstill")

    resume = pause

    def exits(self, count: int, access: Access = IN, rip: int = 0x7C00) -> None:
        self.vcpu.rip = rip
        for _ in range(count):
            self.loop.routes.guest_exits += 1
            if self.shows:
                assert self.observer is not None
                self.shows = self.observer(access)


class Rig:
    def __init__(self, cpus: int = 1) -> None:
        self.now = 100.0
        self.sampler = ExitSampler(now=lambda: self.now)
        self.standstill = VcpuPause(lambda: None)
        self.standstill.admit(self.sampler)
        self.threads: list[Any] = []
        self.boot(cpus)

    def boot(self, cpus: int) -> None:
        self.threads = [Thread() for _ in range(cpus)]
        boot: Any = SimpleNamespace(vcpus=self.threads)
        self.standstill.begin(boot)

    def turn(self, seconds: float = INTERVAL) -> None:
        self.now += seconds
        self.standstill.turn(CLOCK)

    def report(self, symbols: bytes = b"") -> dict[str, Any]:
        return self.sampler.sources([SymbolFile(symbols)])

    def shares(self) -> dict[tuple[str, int], float]:
        return {(one["access"], one["rip"]): one["share"] for one in self.report()["sources"]}


def test_first_exits_are_all_looked_at() -> None:
    rig = Rig()
    rig.threads[0].exits(30)
    rig.threads[0].exits(10, OUT, 0x7C10)
    assert rig.shares() == {("in", 0x7C00): 0.75, ("out", 0x7C10): 0.25}
    assert rig.report()["sampled"] == rig.report()["exits"] == 40


def test_burst_stands_for_the_exits_since_the_one_before() -> None:
    rig = Rig()
    rig.threads[0].exits(FIRST)
    rig.threads[0].exits(1000 - BURST, OUT)  # nobody looks
    rig.turn()
    rig.threads[0].exits(BURST, OUT)
    rig.threads[0].exits(10, IN, 0x9999)
    found = rig.report()
    assert (found["sampled"], found["exits"]) == (FIRST + BURST, FIRST + 1010)
    assert rig.shares() == {
        ("out", 0x7C00): round(1000 / (1000 + FIRST), 4),
        ("in", 0x7C00): round(FIRST / (1000 + FIRST), 4),
    }


def test_burst_begins_when_its_time_has_come_and_the_one_before_is_over() -> None:
    rig = Rig()
    thread = rig.threads[0]
    assert rig.sampler.wake_in(CLOCK) is None  # the guest makes no exits: nobody disturbs it
    rig.turn(1)
    assert thread.requests == 1  # by the boot
    rig.threads[0].exits(FIRST)
    assert not thread.shows
    assert rig.sampler.wake_in(CLOCK) == pytest.approx(INTERVAL)
    rig.turn(INTERVAL / 2)
    assert not thread.shows
    rig.turn(INTERVAL / 2)
    assert thread.shows
    assert rig.sampler.wake_in(CLOCK) is None
    rig.threads[0].exits(BURST - 1)
    assert thread.shows
    rig.threads[0].exits(1)
    assert not thread.shows


def test_vcpu_that_has_ended_is_not_asked() -> None:
    rig = Rig()
    rig.threads[0].exits(FIRST)
    rig.threads[0].is_alive = False
    rig.turn(1)
    assert not rig.threads[0].shows


def test_cpus_and_boots_add_up() -> None:
    rig = Rig(2)
    rig.threads[0].exits(10)
    rig.threads[1].exits(20, OUT)
    rig.boot(1)
    rig.threads[0].exits(10, OUT)
    assert rig.shares() == {("out", 0x7C00): 0.75, ("in", 0x7C00): 0.25}


def test_exit_whose_registers_cannot_be_read_is_not_counted() -> None:
    rig = Rig()
    rig.threads[0].vcpu.gone = True
    rig.threads[0].exits(FIRST)
    assert not rig.threads[0].shows
    assert rig.report() == {"exits": FIRST, "sampled": 0, "sources": []}


def test_sources_are_bounded_and_the_rest_keeps_its_share() -> None:
    rig = Rig()
    rig.threads[0].exits(FIRST, IN, 1)
    for rip in range(2, MOST_SOURCES + 100):
        if not rig.threads[0].shows:
            rig.turn()
        rig.threads[0].exits(1, IN, rip)
    found = rig.report()
    assert len(found["sources"]) == MOST_LISTED
    assert found["sources"][0]["share"] == round(FIRST / found["exits"], 4)


def test_place_is_that_of_the_instruction_before() -> None:
    rig = Rig()
    rig.threads[0].exits(3, IN, 0x2000)
    rig.threads[0].exits(2, IN, 0x500)
    rig.threads[0].exits(1, IN, 0x3001)
    symbols = b"1000 T poll\n2000 T next\n3000 T " + b"n" * 500 + b"\n4000 T end\n"
    places = [one["place"] for one in rig.report(symbols)["sources"]]
    assert places[:2] == ["poll+0x1000", None]
    assert len(places[2]) == 120
    assert places[2].endswith("nn+0x1")
