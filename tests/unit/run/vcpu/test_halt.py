"""Which sleep of a vCPU nothing but another vCPU can end, and when that ends the guest."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import pytest

from kvmbox.base.outcome import GUEST_CRASHED
from kvmbox.kvm import uapi
from kvmbox.kvm.vcpu import Vcpu
from kvmbox.run.vcpu.halt import Sleep, examine_all, sleep_of
from kvmbox.run.vcpu.handle import VcpuThread
from tests.support.scripted_vcpu import RFLAGS_IF, FakeVcpu


def look(vcpu: FakeVcpu) -> Sleep:
    return sleep_of(cast(Vcpu, vcpu), vcpu.ioapic)


def halted() -> FakeVcpu:
    vcpu = FakeVcpu()
    vcpu.mp_state, vcpu.rflags = uapi.KVM_MP_STATE_HALTED, 0
    return vcpu


def test_halted_with_interrupts_off_is_for_ever() -> None:
    sleep = look(halted())
    assert sleep.halted
    assert sleep.reason == "hlt with interrupts off"


def test_halted_while_it_handles_an_nmi_minds_no_further_nmi() -> None:
    vcpu = line_is_routed_as_nmi()
    vcpu.nmi.masked = 1
    assert look(vcpu).reason


@pytest.mark.parametrize("state", [uapi.KVM_MP_STATE_INIT_RECEIVED, uapi.KVM_MP_STATE_UNINITIALIZED])
def test_wait_for_a_start_up_ipi_is_for_ever(state: int) -> None:
    vcpu = FakeVcpu()
    vcpu.mp_state = state
    assert "waits for a start-up IPI" in look(vcpu).reason


def running() -> FakeVcpu:
    vcpu = halted()
    vcpu.mp_state = uapi.KVM_MP_STATE_RUNNABLE
    return vcpu


def interrupts_on() -> FakeVcpu:
    vcpu = halted()
    vcpu.rflags = RFLAGS_IF
    return vcpu


def nmi_pending() -> FakeVcpu:
    vcpu = halted()
    vcpu.nmi.pending = 1
    return vcpu


def nmi_injected() -> FakeVcpu:
    vcpu = halted()
    vcpu.nmi.injected = 1
    return vcpu


def smi_pending() -> FakeVcpu:
    vcpu = halted()
    vcpu.smi.pending = 1
    return vcpu


def line_is_routed_as_nmi() -> FakeVcpu:
    vcpu = halted()
    vcpu.ioapic.redirtbl[8] = 4 << 8
    return vcpu


def line_is_routed_as_start_up_ipi() -> FakeVcpu:
    vcpu = FakeVcpu()
    vcpu.mp_state = uapi.KVM_MP_STATE_INIT_RECEIVED
    vcpu.ioapic.redirtbl[8] = 6 << 8
    return vcpu


def start_up_ipi_came() -> FakeVcpu:
    vcpu = halted()
    vcpu.mp_state = uapi.KVM_MP_STATE_SIPI_RECEIVED
    return vcpu


@pytest.mark.parametrize(
    "arrange",
    [running, interrupts_on, nmi_pending, nmi_injected, smi_pending, line_is_routed_as_nmi,
     line_is_routed_as_start_up_ipi, start_up_ipi_came],
)  # fmt: skip
def test_what_may_go_on_has_no_reason(arrange: Callable[[], FakeVcpu]) -> None:
    vcpu = arrange()
    assert look(vcpu).reason == ""
    assert look(vcpu).halted is (vcpu.mp_state == uapi.KVM_MP_STATE_HALTED)


# --- All of them together ----------------------------------------------------------------------------------


class Paused:
    """As much of a paused VcpuThread as a look needs."""

    def __init__(self, vcpu: FakeVcpu) -> None:
        self.vcpu = vcpu


def look_at_these(*vcpus: FakeVcpu) -> tuple[bool, str | None, str]:
    threads = [cast(VcpuThread, Paused(vcpu)) for vcpu in vcpus]
    found = examine_all(threads, vcpus[0].ioapic, lambda _address: 0)
    if found.outcome is None:
        return found.halted, None, ""
    assert found.outcome.status == GUEST_CRASHED
    return found.halted, found.outcome.reason, found.outcome.report


def test_only_cpu_that_sleeps_for_ever_ends_the_guest() -> None:
    halts, reason, report = look_at_these(halted())
    assert halts
    assert reason == "the guest is halted for ever: hlt with interrupts off"
    assert "Code at RIP" in report


@pytest.mark.parametrize("other", [running, interrupts_on, nmi_pending])
def test_parked_cpu_beside_one_that_may_go_on_ends_nothing(other: Callable[[], FakeVcpu]) -> None:
    assert look_at_these(halted(), other())[1] is None
    assert look_at_these(other(), halted())[1] is None


def test_last_cpu_that_falls_asleep_ends_the_guest_and_each_is_shown() -> None:
    waiting = FakeVcpu()
    waiting.index, waiting.mp_state = 1, uapi.KVM_MP_STATE_UNINITIALIZED
    halts, reason, report = look_at_these(halted(), waiting)
    assert not halts
    assert reason is not None
    assert reason.endswith("hlt with interrupts off, and each of its 2 CPUs sleeps")
    assert report.startswith("CPU 0 is halted\nCPU in ")
    assert report.endswith("\nCPU 1 waits for a start-up IPI")
