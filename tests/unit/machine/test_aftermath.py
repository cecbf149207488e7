"""What is told of the other CPUs when one has ended the guest."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from kvmbox.errors import KvmError, UnknownExitError
from kvmbox.kvm import uapi
from kvmbox.machine import aftermath as module
from kvmbox.machine.aftermath import Aftermath, examine
from kvmbox.machine.crash_report import report_beside
from kvmbox.outcome import CLEAN, DEVICE_FAILED, GUEST_CRASHED, TIMED_OUT, UNKNOWN_EXIT, Outcome
from tests.support.scripted_vcpu import FakeVcpu

CRASH = Outcome(
    GUEST_CRASHED, "the guest crashed: triple fault of CPU 1", error=True, report="CPU 1\nregisters"
)


def thread(index: int, *, outcome: Outcome | None = None, error: BaseException | None = None) -> Any:
    return SimpleNamespace(
        vcpu=SimpleNamespace(index=index), loop=SimpleNamespace(outcome=outcome), error=error
    )


@pytest.fixture(autouse=True)
def reports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "report_beside", lambda vcpu, read: f"report of CPU {vcpu.index}")
    monkeypatch.setattr(module, "diagnose", lambda vcpu, read: "a hint" if vcpu.index == 2 else None)


def read(_address: int) -> int | None:
    return 0


def test_crash_of_one_shows_the_others_in_their_order() -> None:
    found = examine([thread(0), thread(1, outcome=CRASH), thread(2)], read, CRASH)
    assert found == Aftermath("a hint", "report of CPU 0\nreport of CPU 2")


def test_unknown_exit_of_one_shows_the_others() -> None:
    outcome = Outcome(UNKNOWN_EXIT, "KVM internal error 1", error=True, report="CPU 0\nregisters")
    errors = [
        UnknownExitError("KVM internal error 1\nCPU 0\nregisters"),
        UnknownExitError("KVM_RUN failed\n"),
    ]
    threads = [thread(0, error=errors[0]), thread(1, error=errors[1])]
    assert examine(threads, read, outcome).other_cpus == "report of CPU 1"


@pytest.mark.parametrize("status", [TIMED_OUT, GUEST_CRASHED])
def test_end_that_is_no_cpus_own_shows_none_of_them(status: int) -> None:
    assert examine([thread(0), thread(2)], read, Outcome(status, "")) == Aftermath("a hint", "")


@pytest.mark.parametrize("status", [CLEAN, DEVICE_FAILED, 33])
def test_end_that_the_guests_state_does_not_explain_is_not_examined(status: int) -> None:
    assert examine([thread(2)], read, Outcome(status, "")) == Aftermath()


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (uapi.KVM_MP_STATE_UNINITIALIZED, "CPU 0 waits for a start-up IPI"),
        (uapi.KVM_MP_STATE_INIT_RECEIVED, "CPU 0 waits for a start-up IPI"),
        (uapi.KVM_MP_STATE_HALTED, "CPU 0 is halted\nCPU in "),
        (uapi.KVM_MP_STATE_RUNNABLE, "CPU 0\nCPU in "),
    ],
)
def test_report_says_whether_the_cpu_sleeps(state: int, words: str) -> None:
    vcpu: Any = FakeVcpu()
    vcpu.index, vcpu.mp_state = 0, state
    assert report_beside(vcpu, read).startswith(words)


def test_report_of_a_cpu_whose_state_cannot_be_read_says_so() -> None:
    def refuse() -> int:
        raise KvmError("cannot read kvm_mp_state of vCPU 0")

    vcpu: Any = SimpleNamespace(index=0, get_mp_state=refuse)
    assert report_beside(vcpu, read) == "CPU 0\n(cannot read kvm_mp_state of vCPU 0)"
