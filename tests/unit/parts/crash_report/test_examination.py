"""What is told of all CPUs when a guest has come to a bad end."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from kvmbox.base.errors import KvmError, UnknownExitError
from kvmbox.base.memory import GuestMemory
from kvmbox.base.outcome import (
    CLEAN,
    DEVICE_FAILED,
    GUEST_CRASHED,
    INTERRUPTED,
    TIMED_OUT,
    UNKNOWN_EXIT,
    Outcome,
)
from kvmbox.base.symbol_file import SymbolFile
from kvmbox.explain.sampler import HALTED, RUNNING, Sample
from kvmbox.kvm import uapi
from kvmbox.parts.crash_report import examination as module
from kvmbox.parts.crash_report.examination import Examination, examine, last_lines_of
from kvmbox.parts.crash_report.hang_profile import HangProfile
from kvmbox.run.vcpu.stop_report import report_beside
from tests.support.scripted_vcpu import FakeVcpu

CRASH = Outcome(
    GUEST_CRASHED, "the guest crashed: triple fault of CPU 1", error=True, report="CPU 1\nregisters"
)
UD2 = b"\x0f\x0b"


@pytest.fixture
def memory() -> Iterator[GuestMemory]:
    memory = GuestMemory(1 << 20)
    memory.write(0x7C00, UD2)
    yield memory
    memory.close()


def thread(
    index: int, *, state: int = uapi.KVM_MP_STATE_RUNNABLE, outcome: Outcome | None = None, error: Any = None
) -> Any:
    vcpu: Any = FakeVcpu()
    vcpu.index, vcpu.mp_state = index, state
    recent = [(("in", 0x3FD, 1), 0x60)] * 3 + [(("out", 0x3F8, 1), None)]
    return SimpleNamespace(vcpu=vcpu, loop=SimpleNamespace(outcome=outcome, recent=recent), error=error)


def headings(report: str) -> list[str]:
    return [line for line in report.splitlines() if line.startswith("CPU ") and "in real mode" not in line]


def test_cpu_that_crashed_comes_first_and_is_explained_as_one_that_crashed(memory: GuestMemory) -> None:
    found = examine([thread(0), thread(1, outcome=CRASH), thread(2)], memory, CRASH)
    assert headings(found.report) == ["CPU 1", "CPU 0", "CPU 2"]
    assert found.report.count("Cause: #UD") == 1
    assert [cpu["cpu"] for cpu in found.cpus] == [1, 0, 2]
    assert [cpu["fault"] is None for cpu in found.cpus] == [False, True, True]


def test_unknown_exit_of_one_comes_first(memory: GuestMemory) -> None:
    outcome = Outcome(UNKNOWN_EXIT, "KVM internal error 1", error=True, report="CPU 1\nregisters")
    other, own = (
        UnknownExitError("KVM_RUN failed\n"),
        UnknownExitError("KVM internal error 1\nCPU 1\nregisters"),
    )
    found = examine([thread(0, error=other), thread(1, error=own)], memory, outcome)
    assert headings(found.report) == ["CPU 1", "CPU 0"]
    assert "Cause" not in found.report


def test_time_out_shows_all_cpus_in_their_order(memory: GuestMemory) -> None:
    found = examine([thread(0), thread(1)], memory, Outcome(TIMED_OUT, ""))
    assert headings(found.report) == ["CPU 0", "CPU 1"]


def test_one_cpu_has_no_heading(memory: GuestMemory) -> None:
    found = examine([thread(0)], memory, Outcome(TIMED_OUT, ""))
    assert headings(found.report) == []
    assert "CPU in real mode, RIP=0x7c00" in found.report
    assert "Code at RIP: 0f 0b 00" in found.report


def test_profile_of_a_hang_is_in_the_report(memory: GuestMemory) -> None:
    profile = HangProfile()
    running = Sample(RUNNING, False, False, 0x7C00)
    profile.samples[0] = [running] * 3 + [Sample(HALTED, False, True, 0x7C02)]
    found = examine([thread(0)], memory, Outcome(TIMED_OUT, ""), profile=profile)
    assert found.report.splitlines()[:3] == [
        "The CPU, 4 samples in 200 ms:",
        "   75 % 0x7c00, running, interrupts off",
        "   25 % 0x7c02, halted, interrupts on",
    ]


def test_symbols_name_addresses(memory: GuestMemory) -> None:
    symbols = [SymbolFile(b"0000000000007bf0 T start\n", 0), SymbolFile(b"7c00 T other\n", 1 << 32)]
    found = examine([thread(0)], memory, Outcome(TIMED_OUT, ""), symbols)
    assert found.report.startswith("at start+0x10\n")
    assert found.cpus[0]["where"] == "start+0x10"


@pytest.mark.parametrize(
    ("printed", "told"),
    [
        ({}, ()),
        ({"COM1": b" panic: \xff\x1b[2J "}, (("COM1", "panic: \ufffd\\x1b[2J"),)),
        ({"COM1": b"panic", "debug console": b"panic"}, (("COM1", "panic"),)),
        ({"COM1": b"one", "COM2": b"two"}, (("COM1", "one"), ("COM2", "two"))),
        ({"COM1": b"x" * 161}, (("COM1", "\u2026" + "x" * 160),)),
    ],
)
def test_last_lines_are_fit_for_a_terminal_and_told_once(
    printed: dict[str, bytes], told: tuple[tuple[str, str], ...]
) -> None:
    assert last_lines_of(printed) == told


def test_guest_that_has_halted_itself_gets_a_short_statement(memory: GuestMemory) -> None:
    outcome = Outcome(GUEST_CRASHED, "the guest is halted for ever", error=True, brief=True)
    halted, waits = uapi.KVM_MP_STATE_HALTED, uapi.KVM_MP_STATE_UNINITIALIZED
    symbols = [SymbolFile(b"0000000000007bf0 T start\n", 0)]
    found = examine([thread(0, state=halted)], memory, outcome, symbols)
    assert found.report == "at start+0x10"
    assert found.cpus[0]["accesses"]  # the data has it all
    found = examine([thread(0, state=halted), thread(1, state=waits)], memory, outcome)
    assert found.report.splitlines() == [
        "CPU 0 is halted", "at 0x7c00", "CPU 1 waits for a start-up IPI",
    ]  # fmt: skip


class ResetVcpu(FakeVcpu):
    """A vCPU that KVM has reset before it reported the triple fault. Its last look was at 0x7C00."""

    last_regs: Any = None
    last_sregs: Any = None

    def get_regs(self) -> uapi.kvm_regs:
        return uapi.kvm_regs(rip=0xFFF0, rflags=2)

    def get_sregs(self) -> uapi.kvm_sregs:
        sregs = uapi.kvm_sregs(cr0=0x6000_0010)
        sregs.cs.base, sregs.cs.selector = 0xFFFF_0000, 0xF000
        return sregs


@pytest.mark.parametrize("looked", [False, True])
def test_cpu_that_kvm_has_reset_is_told_by_what_is_left(memory: GuestMemory, looked: bool) -> None:
    one = thread(0, outcome=CRASH, state=uapi.KVM_MP_STATE_UNINITIALIZED)
    one.vcpu = ResetVcpu()
    one.loop.last_rip = 0x7C04
    if looked:
        one.vcpu.last_regs, one.vcpu.last_sregs = uapi.kvm_regs(rip=0x7C00), uapi.kvm_sregs()
    symbols = [SymbolFile(b"0000000000007bf0 T start\n", 0)]
    found = examine([one], memory, CRASH, symbols)
    assert found.diagnosis is not None
    assert found.diagnosis.startswith("KVM on AMD-V resets a CPU before it reports the triple fault")
    lines = found.report.splitlines()
    assert lines[:2] == [
        "The registers of the triple fault are lost: KVM on AMD-V has reset the CPU.",
        "Last access to a device: by RIP 0x7c04 start+0x14",
    ]
    assert ("at start+0x10" in lines) is looked
    assert ("RIP=0xfff0" in found.report) is not looked
    assert "Cause" not in found.report
    assert lines[-1] == "  out   0x03f8 size 1  a string"
    assert [cpu["is_lost"] for cpu in found.cpus] == [True]


@pytest.mark.parametrize("status", [CLEAN, DEVICE_FAILED, 33])
def test_end_that_the_guests_state_does_not_explain_is_not_examined(status: int, memory: GuestMemory) -> None:
    assert examine([thread(2)], memory, Outcome(status, "")) == Examination()


def test_hint_of_one_cpu_is_told_after_a_signal_too(
    memory: GuestMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "diagnose", lambda vcpu, _read: "a hint" if vcpu.index == 2 else None)
    assert examine([thread(0), thread(2)], memory, Outcome(INTERRUPTED, "")) == Examination("a hint")


@pytest.mark.parametrize(
    ("state", "heading"),
    [
        (uapi.KVM_MP_STATE_UNINITIALIZED, "CPU 1 waits for a start-up IPI"),
        (uapi.KVM_MP_STATE_INIT_RECEIVED, "CPU 1 waits for a start-up IPI"),
        (uapi.KVM_MP_STATE_HALTED, "CPU 1 is halted"),
        (uapi.KVM_MP_STATE_RUNNABLE, "CPU 1"),
    ],
)
def test_heading_says_whether_the_cpu_sleeps(state: int, heading: str, memory: GuestMemory) -> None:
    found = examine([thread(0), thread(1, state=state)], memory, Outcome(TIMED_OUT, ""))
    assert headings(found.report) == ["CPU 0", heading]
    assert len(found.cpus) == (1 if "waits" in heading else 2)


def test_cpu_whose_state_cannot_be_read_says_so(memory: GuestMemory) -> None:
    one = thread(0)
    one.vcpu.gone = True
    found = examine([one], memory, Outcome(TIMED_OUT, ""))
    assert found.report == (
        "(registers cannot be read: cannot read kvm_regs of vCPU 0: ioctl KVM_GET_REGS: Input/output error)"
    )
    assert found.cpus == ()


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
    assert report_beside(vcpu, lambda _address: 0).startswith(words)


def test_report_of_a_cpu_whose_state_cannot_be_read_says_so() -> None:
    def refuse() -> int:
        raise KvmError("cannot read kvm_mp_state of vCPU 0")

    vcpu: Any = SimpleNamespace(index=0, get_mp_state=refuse)
    assert report_beside(vcpu, lambda _address: 0) == "CPU 0\n(cannot read kvm_mp_state of vCPU 0)"


def test_report_ends_with_the_last_accesses_to_devices(memory: GuestMemory) -> None:
    found = examine([thread(0)], memory, CRASH)
    assert found.report.splitlines()[-3:] == [
        "Last accesses to devices, the newest last:",
        "  in    0x03fd size 1  0x60, 3 times",
        "  out   0x03f8 size 1  a string",
    ]
    assert len(found.cpus[0]["accesses"]) == 4
