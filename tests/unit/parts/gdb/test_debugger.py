"""The debugger of a machine: what becomes of exits, who is told of what, what KVM is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest

from kvmbox.base.outcome import GUEST_CRASHED, INTERRUPTED, Decision, Outcome
from kvmbox.host.sockets.endpoint import Endpoint
from kvmbox.kvm import exits, guest_debug, uapi
from kvmbox.parts.gdb import debugger as module
from kvmbox.parts.gdb import packets
from kvmbox.parts.gdb.breakpoints import HARDWARE, SOFTWARE, WRITE_WATCH, Point
from kvmbox.parts.gdb.debugger import Debugger
from kvmbox.parts.gdb.refused import RefusedError
from kvmbox.run.api.monitor_commands import MonitorError
from kvmbox.run.vcpu.run_loop import ExitAction
from tests.support.stopped_cpu import Memory, long_mode

BREAKPOINT = exits.DebugExit(guest_debug.BP_VECTOR, 0, 0, 0)
STEPPED = exits.DebugExit(guest_debug.DB_VECTOR, 0, guest_debug.DR6_SINGLE_STEP, 0)
REFUSED = exits.InternalErrorExit(uapi.KVM_INTERNAL_ERROR_EMULATION, ())
HALTED = Outcome(GUEST_CRASHED, "the guest is halted for ever", error=True)


class FakeLink:
    """A client whose bytes the test gives."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.has_client = endpoint.is_pipe
        self.will_come = False
        self.comes: bytes | None = b""
        self.sent: list[bytes] = []

    def is_mine(self, _descriptor: int) -> bool:
        return True

    def handle(self) -> bytes | None:
        self.has_client = self.has_client or self.will_come
        self.will_come = False
        return self.comes

    def send(self, data: bytes) -> str | None:
        events = packets.Parser().feed(data)
        self.sent += [event.payload for event in events if isinstance(event, packets.Packet)]
        return None

    def drop(self) -> None:
        self.has_client = False

    finish = drop


class FakeMonitor:
    """Knows one word."""

    cpu = 7

    def answer(self, words: list[str]) -> str:
        if words != ["cpu"]:
            raise MonitorError("no such word")
        return f"{self.cpu}\n"


class FakeVcpu:
    def __init__(self, index: int, memory: Memory) -> None:
        self.index = index
        self.cpu = long_mode(memory, rip=0x7C00 + 0x100 * index)
        self.mp_state = uapi.KVM_MP_STATE_RUNNABLE

    def get_regs(self) -> uapi.kvm_regs:
        return self.cpu.regs

    def get_sregs(self) -> uapi.kvm_sregs:
        return self.cpu.sregs

    def get_fpu(self) -> uapi.kvm_fpu:
        return uapi.kvm_fpu()

    def set_regs(self, _regs: uapi.kvm_regs) -> None:
        pass

    def get_mp_state(self) -> int:
        return self.mp_state


class Ram(Memory):
    def available(self, address: int, size: int) -> bytes:
        return self.read(address, size)

    def contains(self, address: int, size: int) -> bool:
        return len(self.read(address, size)) == size


class Rig:
    """A debugger whose client is there from the start, and two CPUs that have paused."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        *,
        is_pvm: bool = False,
        can_debug: bool = True,
        endpoint: Endpoint | None = None,
    ) -> None:
        """With an `endpoint`, nobody has come, and the CPUs have not paused yet."""
        self.controls: list[tuple[int, int]] = []
        monkeypatch.setattr(
            module,
            "set_guest_debug",
            lambda vcpu, control, addresses, dr7: self.controls.append((vcpu.index, control)),
        )
        self.link = FakeLink(endpoint or Endpoint())
        self.said: list[str] = []
        self.calls: list[str] = []
        self.decision = Decision()
        self.standstill = SimpleNamespace(
            admit=lambda visitor: None,
            call=lambda: self.calls.append("stop"),
            let_go=lambda: self.calls.append("go"),
        )
        capabilities = {
            guest_debug.KVM_CAP_SET_GUEST_DEBUG: int(can_debug),
            guest_debug.KVM_CAP_SET_GUEST_DEBUG2: guest_debug.KVM_GUESTDBG_BLOCKIRQ,
        }
        self.memory = Ram()
        self.threads = [
            SimpleNamespace(vcpu=FakeVcpu(index, self.memory), proceed=lambda: None, is_paused=True)
            for index in range(2)
        ]
        self.guest = SimpleNamespace(memory=self.memory, is_pvm=is_pvm)
        self.boot = cast(Any, SimpleNamespace(guest=self.guest, vcpus=self.threads))
        self.debugger = Debugger(
            cast(Any, self.link),
            cast(Any, SimpleNamespace(check_extension=lambda number: capabilities[number])),
            self.memory,
            [],
            2,
            self.decision,
            cast(Any, self.standstill),
            self.timeless,
            lambda: self.calls.append("reset"),
            cast(Any, FakeMonitor()),
            self.said.append,
        )
        self.debugger.boot_begins(self.boot)
        if endpoint is None:
            self.debugger.visit()
            self.ask(b"QStartNoAckMode")

    def connect(self) -> None:
        """A client comes."""
        self.link.comes, self.link.will_come = b"", True
        self.debugger.handle(0)

    @contextmanager
    def timeless(self) -> Iterator[Any]:
        self.calls.append("time stands")
        with self.debugger.hidden():
            yield self.guest
        self.calls.append("time goes")

    def ask(self, payload: bytes) -> list[bytes]:
        """What the client is sent for this packet."""
        self.link.comes = packets.encode(payload)
        before = len(self.link.sent)
        assert self.debugger.handle(0)
        return self.link.sent[before:]

    def hang_up(self) -> None:
        self.link.comes = None
        self.debugger.handle(0)


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Rig:
    return Rig(monkeypatch)


@pytest.fixture
def pvm(monkeypatch: pytest.MonkeyPatch) -> Rig:
    return Rig(monkeypatch, is_pvm=True)


def test_guest_stands_at_its_entry_with_its_time_until_it_is_let_go(rig: Rig) -> None:
    assert not rig.debugger.wants
    assert all(rig.debugger.holds(cast(Any, thread)) for thread in rig.threads)
    assert rig.ask(b"c") == []
    assert rig.calls == ["time stands", "time goes", "go"]
    assert not any(rig.debugger.holds(cast(Any, thread)) for thread in rig.threads)


def test_planted_byte_is_a_hit_and_another_int3_is_the_guest_s(rig: Rig) -> None:
    rig.debugger.add_point(0, Point(SOFTWARE, 0x7C00, 1))
    rig.ask(b"c")
    assert rig.memory.read(0x7C00, 1) == b"\xcc"
    wanted = guest_debug.KVM_GUESTDBG_ENABLE | guest_debug.KVM_GUESTDBG_USE_SW_BP
    assert rig.controls == [(0, wanted), (1, wanted)]
    assert rig.debugger.filter_exit(0, BREAKPOINT) == ExitAction.STOP
    assert rig.debugger.filter_exit(1, BREAKPOINT) == ExitAction.IGNORE  # 0x7d00
    assert rig.controls[-1] == (1, wanted | guest_debug.KVM_GUESTDBG_INJECT_BP)
    assert rig.debugger.wants
    rig.debugger.visit()
    assert rig.link.sent[-1] == b"T05thread:1;"
    assert rig.memory.read(0x7C00, 1) == b"\0"  # its own


def test_planted_byte_is_back_behind_somebody_who_looked_and_failed(rig: Rig) -> None:
    rig.debugger.add_point(0, Point(SOFTWARE, 0x7C00, 1))
    rig.ask(b"c")

    def look() -> None:
        with rig.debugger.hidden():
            assert rig.memory.read(0x7C00, 1) == b"\0"
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        look()
    assert rig.memory.read(0x7C00, 1) == b"\xcc"


def test_where_kvm_refuses_the_planted_byte_that_is_the_hit(pvm: Rig) -> None:
    pvm.debugger.add_point(0, Point(SOFTWARE, 0x7C00, 1))
    pvm.ask(b"c")
    assert pvm.controls == []  # KVM need not be asked for anything
    assert pvm.debugger.filter_exit(0, REFUSED) == ExitAction.STOP
    assert pvm.debugger.filter_exit(1, REFUSED) == ExitAction.CRASH


@pytest.mark.parametrize(
    ("found", "signal"),
    [(exits.ShutdownExit(), b"0b"), (REFUSED, b"06"), (exits.FailEntryExit(1, 0), b"06")],
)
def test_crash_is_told_in_words_before_the_run_ends(rig: Rig, found: exits.Exit, signal: bytes) -> None:
    rig.ask(b"c")
    assert rig.debugger.filter_exit(1, found) == ExitAction.CRASH
    rig.debugger.visit()
    assert rig.link.sent[-2][:1] == b"O"
    assert rig.link.sent[-1] == b"T" + signal + b"thread:2;"


def test_ordinary_exits_are_nobody_s_business(rig: Rig) -> None:
    rig.ask(b"c")
    for found in (exits.MmioExit(0, 1, False, b""), exits.IntrExit(), exits.HltExit()):
        assert rig.debugger.filter_exit(0, found) == ExitAction.HANDLE
    assert not rig.debugger.wants


def test_breakpoint_of_a_client_that_has_gone_since_ends_no_run(pvm: Rig) -> None:
    pvm.debugger.add_point(0, Point(SOFTWARE, 0x7C00, 1))
    pvm.ask(b"c")
    pvm.hang_up()
    assert pvm.debugger.filter_exit(0, REFUSED) == ExitAction.IGNORE
    assert pvm.debugger.filter_exit(0, STEPPED) == ExitAction.IGNORE
    assert pvm.debugger.filter_exit(1, REFUSED) == ExitAction.HANDLE
    assert pvm.debugger.wants
    pvm.debugger.visit()
    assert pvm.memory.read(0x7C00, 1) == b"\0"
    assert not pvm.debugger.wants
    assert pvm.debugger.filter_exit(0, REFUSED) == ExitAction.HANDLE


def test_two_cpus_meet_something_and_nothing_is_lost(rig: Rig) -> None:
    rig.debugger.add_point(0, Point(SOFTWARE, 0x7C00, 1))
    rig.ask(b"c")
    rig.debugger.filter_exit(0, BREAKPOINT)
    rig.debugger.filter_exit(1, exits.ShutdownExit())
    rig.debugger.visit()
    assert rig.link.sent[-1] == b"T05thread:1;"
    rig.ask(b"c")
    assert rig.debugger.wants  # the crash
    rig.debugger.visit()
    assert rig.link.sent[-1] == b"T0bthread:2;"


def test_step_is_one_cpu_s_and_passes_a_breakpoint(rig: Rig) -> None:
    rig.debugger.add_point(1, Point(SOFTWARE, 0x7D00, 1))
    rig.ask(b"vCont;s:2")
    assert [rig.debugger.holds(cast(Any, thread)) for thread in rig.threads] == [True, False]
    assert rig.memory.read(0x7D00, 1) == b"\0"
    flags = guest_debug.KVM_GUESTDBG_SINGLESTEP | guest_debug.KVM_GUESTDBG_BLOCKIRQ
    assert [(number, bool(control & flags)) for number, control in rig.controls] == [(0, False), (1, True)]
    assert rig.controls[1][1] & flags == flags
    assert rig.debugger.filter_exit(1, STEPPED) == ExitAction.STOP
    rig.debugger.visit()
    assert rig.link.sent[-1] == b"T05thread:2;"


@pytest.mark.parametrize(
    ("state", "word"),
    [
        (uapi.KVM_MP_STATE_UNINITIALIZED, "waits for INIT"),
        (uapi.KVM_MP_STATE_INIT_RECEIVED, "waits for a start-up IPI"),
    ],
)
@pytest.mark.parametrize("packet", [b"vCont;s:2", b"vCont;c:2"])
def test_step_of_a_cpu_that_waits_for_another_is_refused_with_the_reason(
    rig: Rig, packet: bytes, state: int, word: str
) -> None:
    rig.threads[1].vcpu.mp_state = state
    assert rig.ask(packet) == [b"E01"]
    assert rig.said == [
        f"--gdb: CPU 1 {word}, and executes nothing before another CPU sends that: "
        "let all CPUs go on, or step another one"
    ]
    assert all(rig.debugger.holds(cast(Any, thread)) for thread in rig.threads)
    assert rig.ask(b"vCont;c") == []  # all of them: CPU 0 may send it
    assert "go" in rig.calls


@pytest.mark.parametrize("goes_on", [False, True])
def test_client_at_a_pipe_that_detaches_ends_the_run(rig: Rig, goes_on: bool) -> None:
    if goes_on:
        rig.ask(b"c")
        rig.debugger.filter_exit(0, STEPPED)
        rig.debugger.visit()
    assert rig.ask(b"D") == [b"OK"]
    outcome = rig.decision.outcome
    assert outcome is not None
    assert (outcome.status, outcome.reason) == (INTERRUPTED, "the client of --gdb has left")


def test_client_of_a_socket_that_detaches_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(monkeypatch, endpoint=Endpoint("gdb.sock"))
    rig.connect()
    rig.debugger.visit()
    assert rig.ask(b"D")[-1] == b"OK"
    assert rig.decision.outcome is None


def test_hit_of_a_debug_register_is_named(rig: Rig) -> None:
    rig.debugger.add_point(0, Point(HARDWARE, 0x7C10, 1))
    rig.debugger.add_point(0, Point(WRITE_WATCH, 0x8000, 4))
    rig.ask(b"c")
    assert rig.debugger.filter_exit(0, exits.DebugExit(guest_debug.DB_VECTOR, 0, 0b10, 0)) == ExitAction.STOP
    rig.debugger.visit()
    assert rig.link.sent[-1] == b"T05thread:1;watch:8000;"


def test_what_this_kvm_cannot_do_is_refused(pvm: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RefusedError, match="has no watchpoints"):
        pvm.debugger.add_point(0, Point(WRITE_WATCH, 0x8000, 4))
    pvm.threads[0].vcpu.cpu.sregs.ss.dpl = 3
    for kind in (SOFTWARE, HARDWARE):
        with pytest.raises(RefusedError, match="stops no code at CPL 3"):
            pvm.debugger.add_point(0, Point(kind, 0x7C00, 1))
    assert pvm.ask(b"s") == [b"E01"]
    assert pvm.calls == ["time stands"]  # it still stands
    none = Rig(monkeypatch, can_debug=False)
    with pytest.raises(RefusedError, match="cannot debug guests"):
        none.debugger.add_point(0, Point(SOFTWARE, 0x7C00, 1))
    assert none.ask(b"s") == [b"E01"]


def test_guest_that_is_halted_for_ever_is_told_once(rig: Rig) -> None:
    rig.ask(b"c")
    assert rig.debugger.stops(HALTED)
    rig.debugger.visit()
    assert rig.link.sent[-1] == b"T06thread:1;"
    rig.ask(b"c")
    assert not rig.debugger.stops(HALTED)  # the run ends
    rig.debugger.interrupt()
    rig.debugger.visit()
    rig.ask(b"P10=0010000000000000")
    rig.ask(b"c")
    assert rig.debugger.stops(HALTED)


def test_reset_stands_at_the_next_entry(rig: Rig) -> None:
    rig.debugger.add_point(0, Point(SOFTWARE, 0x7C00, 1))
    assert rig.ask(b"qRcmd," + b"reset".hex().encode())[-1] == b"OK"
    assert "reset" in rig.calls
    rig.debugger.boot_ends(rig.boot, None)
    assert rig.calls[-1] == "time goes"
    rig.debugger.boot_begins(rig.boot)
    assert rig.debugger.wants
    assert rig.memory.read(0x7C00, 1) == b"\0"
    rig.debugger.visit()
    rig.ask(b"c")
    assert rig.memory.read(0x7C00, 1) == b"\xcc"


def test_breakpoints_are_planted_in_the_boot_after_the_guest_s_own_reset(rig: Rig) -> None:
    rig.debugger.add_point(0, Point(SOFTWARE, 0x7C00, 1))
    rig.ask(b"c")
    rig.debugger.boot_ends(rig.boot, None)
    assert rig.memory.read(0x7C00, 1) == b"\0"
    rig.debugger.boot_begins(rig.boot)
    assert rig.memory.read(0x7C00, 1) == b"\xcc"


def test_what_this_kvm_may_miss_is_told_once(rig: Rig, pvm: Rig) -> None:
    for one in (rig, pvm):
        one.debugger.add_point(0, Point(SOFTWARE, 0x7C00, 1))
        one.debugger.add_point(0, Point(HARDWARE, 0x7D00, 1))
    assert rig.said == []
    assert [text for text in pvm.said if "stops no code at CPL 3" in text] == pvm.said
    assert len(pvm.said) == 1


def test_end_of_gdb_s_pipe_is_the_end_of_the_run(rig: Rig) -> None:
    rig.hang_up()
    assert rig.said == ["the client of --gdb has hung up"]
    assert rig.decision.outcome is not None
    assert rig.decision.outcome.status == INTERRUPTED


def test_client_that_was_rude_is_named(rig: Rig) -> None:
    rig.link.comes = b"$" + b"a" * packets.PACKET_SIZE
    rig.debugger.handle(0)
    assert rig.said == ["the client of --gdb sends a packet that is too long"]
    assert not rig.link.has_client


@pytest.mark.parametrize("stands", [False, True])
def test_guest_waits_on_when_a_client_has_said_nothing(monkeypatch: pytest.MonkeyPatch, stands: bool) -> None:
    rig = Rig(monkeypatch, endpoint=Endpoint("gdb.sock"))
    if stands:
        rig.debugger.visit()
    rig.connect()
    rig.hang_up()
    if not stands:
        assert rig.debugger.wants
        rig.debugger.visit()
    assert all(rig.debugger.holds(cast(Any, thread)) for thread in rig.threads)
    assert rig.calls[-1] == "time stands"


@pytest.mark.parametrize("stands", [False, True])
def test_guest_that_runs_goes_on_after_a_client_that_has_said_nothing(
    monkeypatch: pytest.MonkeyPatch, stands: bool
) -> None:
    rig = Rig(monkeypatch, endpoint=Endpoint("gdb.sock", waits=False))
    assert not rig.debugger.wants
    rig.connect()
    assert rig.debugger.wants
    if stands:
        rig.debugger.visit()
    rig.hang_up()
    if rig.debugger.wants:
        rig.debugger.visit()
    assert not rig.debugger.wants
    assert not any(rig.debugger.holds(cast(Any, thread)) for thread in rig.threads)
