"""Who owns the process: what a program's machine leaves alone, and what the command line's takes."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from kvmbox.base.errors import SandboxError
from kvmbox.base.outcome import CLEAN, Decision, Outcome
from kvmbox.host.process.signals import Wakeup
from kvmbox.host.time.start_timeout import StartDeadline, StartTimeout
from kvmbox.jail import layers
from kvmbox.kvm.vcpu import KICK_SIGNAL
from kvmbox.remote.process.device_pool import NONE, Design, DevicePool
from kvmbox.run.frontend import SWITCH_INTERVAL, Caller, ProcessOwner
from kvmbox.run.result.stage_times import Timeline


@pytest.fixture
def wakeup() -> Iterator[Wakeup]:
    made = Wakeup()
    yield made
    made.close()


@pytest.fixture
def _process() -> Iterator[None]:
    interval, kick = sys.getswitchinterval(), signal.getsignal(KICK_SIGNAL)
    yield
    sys.setswitchinterval(interval)
    signal.signal(KICK_SIGNAL, kick)


def requiring(mask: int) -> Any:
    return SimpleNamespace(require=mask)


def handlers() -> list[object]:
    return [signal.getsignal(number) for number in sorted(signal.valid_signals())]


def test_program_keeps_its_handlers_and_its_switch_interval(wakeup: Wakeup) -> None:
    before = handlers(), sys.getswitchinterval()
    caller = Caller()
    caller.ready(Decision(), wakeup)
    assert (handlers(), sys.getswitchinterval()) == before
    assert caller.ended_by is None
    assert not caller.terminal.is_terminal
    caller.release()


def test_program_starts_by_a_deadline_and_the_owner_of_the_process_by_an_alarm() -> None:
    assert isinstance(Caller().starting(1.0, Timeline()), StartDeadline)
    assert isinstance(ProcessOwner().starting(1.0, Timeline()), StartTimeout)


@pytest.mark.parametrize("kind", [Caller, ProcessOwner])
def test_start_without_a_timeout_touches_nothing(kind: type[Caller]) -> None:
    starting = kind().starting(None, Timeline())
    with starting:
        assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
        assert starting.at is None
        starting.over()


def test_program_is_not_confined_and_cannot_require_it() -> None:
    pool = DevicePool(Design(NONE))
    needs: dict[str, Any] = {"readable": (), "accepts": False, "disks": False}
    assert Caller().confine(pool, requiring(layers.SECCOMP), **needs) is None
    with pytest.raises(SandboxError, match="sandbox layer missing: vmm-seccomp"):
        Caller().confine(pool, requiring(layers.VMM_SECCOMP | layers.SECCOMP), **needs)


@pytest.mark.usefixtures("_process")
def test_owner_of_the_process_hears_signals_until_it_is_released(wakeup: Wakeup) -> None:
    before = [one for number, one in enumerate(handlers()) if number]
    owner = ProcessOwner()
    owner.ready(Decision(), wakeup)
    try:
        assert sys.getswitchinterval() == pytest.approx(SWITCH_INTERVAL)
        signal.raise_signal(signal.SIGTERM)
        assert owner.ended_by == "ended by SIGTERM"
    finally:
        owner.release()
    signal.signal(KICK_SIGNAL, signal.SIG_DFL)  # the only one that stays
    assert [one for number, one in enumerate(handlers()) if number] == before


@pytest.mark.usefixtures("_process")
@pytest.mark.parametrize("decided", [False, True])
def test_owner_of_the_process_gives_up_at_the_third_signal_unless_the_run_is_decided(
    wakeup: Wakeup, decided: bool
) -> None:
    owner, verdict = ProcessOwner(), Decision()
    if decided:
        verdict.decide(Outcome(CLEAN, "over"))
    owner.ready(verdict, wakeup)
    interrupted = 0
    try:
        for _ in range(4):
            try:
                signal.raise_signal(signal.SIGTERM)
            except KeyboardInterrupt:
                interrupted += 1
    finally:
        owner.release()
    assert interrupted == (0 if decided else 1)
