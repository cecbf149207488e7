"""When a profile's samples are taken, and what becomes of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kvmbox.base.errors import StartError
from kvmbox.base.symbol_file import SymbolFile
from kvmbox.explain.sampler import ACCESSING, HALTED, RUNNING
from kvmbox.kvm import uapi
from kvmbox.parts.profile.part import Profile
from kvmbox.parts.profile.profiler import IMPATIENCE, PATIENCE, Profiler
from kvmbox.parts.profile.samples import USER, with_top
from kvmbox.run.loop.vcpu_pause import VcpuPause, Visitor
from kvmbox.run.part import PERHAPS_FULL, Lost
from tests.support.scripted_vcpu import FakeVcpu

CLOCK: Any = None


class Time:
    """The host's clock, which the test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Thread:
    """A vCPU thread that pauses when it is asked, or does not."""

    def __init__(self, index: int = 0, *, pauses: bool = True, alive: bool = True) -> None:
        self.vcpu: Any = FakeVcpu()
        self.vcpu.index = index
        self.in_access = False
        self.is_alive = alive
        self.is_paused = not alive
        self.pauses = pauses
        self.log: list[str] = []

    def pause(self) -> None:
        self.log.append("pause")
        self.is_paused = self.pauses or not self.is_alive

    def resume(self) -> None:
        self.log.append("resume")
        self.is_paused = not self.is_alive


class Machine:
    """These vCPUs, whose boot begins when all visitors are there."""

    def __init__(self, *threads: Thread) -> None:
        self.standstill = VcpuPause(lambda: None)
        memory = SimpleNamespace(available=lambda _address, _size: b"")
        self.boot: Any = SimpleNamespace(vcpus=threads, guest=SimpleNamespace(memory=memory))

    def profiler(self, rate: int = 100, code: Sequence[range] = ()) -> tuple[Profiler, Time]:
        time = Time()
        made = Profiler(self.standstill, rate, code, now=time)
        self.standstill.admit(made)
        self.standstill.begin(self.boot)
        return made, time

    def turns(self, count: int = 2) -> None:
        """The first turn asks the vCPUs to pause, the second finds them paused."""
        for _ in range(count):
            self.standstill.turn(CLOCK)


def test_sample_is_taken_when_it_is_due_and_not_before() -> None:
    thread = Thread()
    main_loop = Machine(thread)
    made, time = main_loop.profiler()
    time.now += 0.009
    main_loop.turns()
    assert thread.log == []
    assert made.wake_in(CLOCK) == pytest.approx(0.001)
    time.now += 0.002
    main_loop.turns()
    assert made.samples.stacks == {(0, RUNNING, 0x7C00): 1}
    assert thread.log == ["pause", "resume"]
    assert made.wake_in(CLOCK) == pytest.approx(0.01)


def test_late_host_takes_one_sample_and_no_burst() -> None:
    main_loop = Machine(Thread())
    made, time = main_loop.profiler()
    time.now += 10
    main_loop.turns(6)
    assert made.samples.total == 1


def test_each_cpu_gives_a_sample_of_what_it_does() -> None:
    threads = [Thread(index) for index in range(4)]
    threads[1].vcpu.mp_state = uapi.KVM_MP_STATE_HALTED
    threads[2].in_access = True
    threads[3].vcpu.mp_state = uapi.KVM_MP_STATE_UNINITIALIZED
    main_loop = Machine(*threads, Thread(4, alive=False))
    made, time = main_loop.profiler()
    time.now += 1
    main_loop.turns()
    assert set(made.samples.stacks) == {(0, RUNNING, 0x7C00), (1, HALTED, 0x7C00), (2, ACCESSING, 0x7C00)}


def test_user_mode_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    thread = Thread()
    sregs = uapi.kvm_sregs(cr0=1)
    sregs.ss.dpl = 3
    monkeypatch.setattr(thread.vcpu, "get_sregs", lambda: sregs)
    main_loop = Machine(thread)
    made, time = main_loop.profiler()
    time.now += 1
    main_loop.turns()
    assert set(made.samples.stacks) == {(0, RUNNING | USER, 0x7C00)}


def test_vcpu_that_waits_for_a_device_does_not_hold_up_the_others() -> None:
    one, other = Thread(0), Thread(1, pauses=False)
    main_loop = Machine(one, other)
    made, time = main_loop.profiler()
    time.now += 1
    main_loop.turns()
    assert made.samples.total == 0
    assert made.wake_in(CLOCK) == pytest.approx(PATIENCE)
    time.now += PATIENCE
    main_loop.turns()
    assert made.samples.stacks == {(0, RUNNING, 0x7C00): 1, (1, ACCESSING): 1}
    assert not one.is_paused
    assert one.log[-1] == other.log[-1] == "resume"


def test_vcpu_that_was_late_twice_holds_up_the_others_for_a_shorter_time() -> None:
    late, other, new = Thread(0, pauses=False), Thread(1), Thread(2)
    main_loop = Machine(late, other, new)
    made, time = main_loop.profiler()
    time.now += 1
    main_loop.turns()
    time.now += PATIENCE
    main_loop.turns(1)
    assert made.samples.total == 3
    time.now += 1
    main_loop.turns()
    assert made.wake_in(CLOCK) == pytest.approx(IMPATIENCE)
    time.now += IMPATIENCE
    new.is_paused = False  # this one was not late: it has the whole time
    main_loop.turns(1)
    assert made.samples.total == 3
    new.is_paused = True
    main_loop.turns(1)
    assert made.samples.total == 6


def test_sample_has_the_words_of_the_stack_that_point_to_code() -> None:
    main_loop = Machine(Thread())
    vcpu = main_loop.boot.vcpus[0].vcpu
    vcpu.get_sregs = lambda: uapi.kvm_sregs(cr0=1, cs=uapi.kvm_segment(db=1), ss=uapi.kvm_segment(db=1))
    words = [0x7C10, 0, 5, 0x7CFF, 0x7D00, 0x7BFF] + [0] * 58
    stack = b"".join(word.to_bytes(4, "little") for word in words)
    main_loop.boot.guest.memory.available = lambda address, size: stack[address : address + size]
    vcpu.translate = lambda linear: linear
    made, time = main_loop.profiler(code=[range(0x7C00, 0x7D00)])
    time.now += 1
    main_loop.turns()
    assert list(made.samples.stacks) == [with_top(0, RUNNING, (0x7C10, 0, 0, 0x7CFF), (0x7C00,))]


def test_sample_whose_registers_cannot_be_read_is_lost() -> None:
    thread = Thread()
    thread.vcpu.gone = True
    main_loop = Machine(thread)
    made, time = main_loop.profiler()
    time.now += 1
    main_loop.turns()
    assert made.samples.total == 0
    assert not thread.is_paused


def test_no_sample_is_taken_of_a_guest_that_has_ended() -> None:
    main_loop = Machine(Thread())
    made, time = main_loop.profiler()
    time.now += 1
    main_loop.turns(1)
    main_loop.standstill.end(main_loop.boot, None)
    main_loop.turns()
    assert made.samples.total == 0


def test_no_sample_is_taken_while_a_debugger_holds_a_vcpu() -> None:
    class Holder(Visitor):
        wants = False

        def holds(self, vcpu: Any) -> bool:
            return bool(vcpu.vcpu.index == 1)

    main_loop = Machine(Thread(0), Thread(1))
    main_loop.standstill.admit(Holder())
    made, time = main_loop.profiler()
    time.now += 1
    main_loop.turns()
    assert made.samples.total == 0
    assert made.wake_in(CLOCK) == pytest.approx(0.01)


# --- The file --------------------------------------------------------------------------------------------


def opened(path: Path, time: Time | None = None) -> Profile:
    made = Profile(str(path), 100, now=time or Time())
    opening: Any = SimpleNamespace(config=SimpleNamespace(guest="/somewhere/kernel.elf"))
    made.open(opening)
    return made


def profiling(path: Path) -> Profile:
    time = Time()
    made = opened(path, time)
    main_loop = Machine(Thread())
    symbols = [SymbolFile(b"7c00 T boot\n8000 T end\n")]
    standing: Any = SimpleNamespace(loop=main_loop, source=SimpleNamespace(symbols=symbols))
    made.attach(standing)
    main_loop.standstill.begin(main_loop.boot)
    for _ in range(3):
        time.now += 1
        main_loop.turns()
    return made


def test_file_has_names_in_the_format_of_its_name(tmp_path: Path) -> None:
    for name in ("a.folded", "a.json"):
        made = profiling(tmp_path / name)
        assert made.ended(None) is None
        made.close()
    assert (tmp_path / "a.folded").read_text() == "boot 3\n"
    found = json.loads((tmp_path / "a.json").read_text())
    assert (found["name"], found["profiles"][0]["weights"]) == ("kernel.elf", [3])


def test_run_without_samples_has_an_empty_profile(tmp_path: Path) -> None:
    assert opened(tmp_path / "a.folded").ended(None) is None
    assert (tmp_path / "a.folded").read_text() == ""


def test_file_that_cannot_be_opened_is_an_error_of_the_start(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="cannot write the profile"):
        opened(tmp_path / "none" / "a.folded")


def test_full_disk_is_told() -> None:
    made = profiling(Path("/dev/full"))
    words = "cannot write the profile '/dev/full': No space left on device"
    assert made.ended(None) == Lost(words, hint=PERHAPS_FULL)
    made.close()
    made.close()
