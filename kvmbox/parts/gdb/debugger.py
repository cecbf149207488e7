"""--gdb: a client of GDB's remote protocol looks at a machine, stops it and lets it go on.

Three parties meet here. The **client** talks over a `Link`, which the main loop polls; a `Session`
understands what the client says. The **vCPU threads** call `filter_exit` at exits that may be the client's
business.
The **machine** stands still for the client as for any visitor (`standstill`).

- While the machine stands still for the client, guest time stands still, and the client may ask. This time
  counts neither for --timeout nor for the watchdog.
- Software breakpoints are in memory only while CPUs run (`breakpoints`).
- A CPU that the filter stops is STOPPED (`vcpu_state`) until the client lets it proceed. If two CPUs stop,
  the client is notified of one. A breakpoint stops its CPU again when that one proceeds; all other stops are
  kept, and the client is notified when it wants to go on.
- A single step is one CPU's, and all others stand still.
- A crash stops first. If the client lets the CPU go on then, the run ends as it would have without a client.
"""

from __future__ import annotations

import select
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Final

from kvmbox.base.errors import KvmError
from kvmbox.base.outcome import INTERRUPTED, Decision, Outcome
from kvmbox.explain.stopped_cpu import Cpu
from kvmbox.host.sockets.client_link import Link
from kvmbox.kvm import exits, uapi
from kvmbox.kvm.guest_debug import (
    BP_VECTOR,
    DR6_SINGLE_STEP,
    KVM_CAP_SET_GUEST_DEBUG,
    KVM_CAP_SET_GUEST_DEBUG2,
    KVM_GUESTDBG_BLOCKIRQ,
    KVM_GUESTDBG_ENABLE,
    KVM_GUESTDBG_INJECT_BP,
    KVM_GUESTDBG_SINGLESTEP,
    KVM_GUESTDBG_USE_HW_BP,
    KVM_GUESTDBG_USE_SW_BP,
    set_guest_debug,
)
from kvmbox.parts.gdb.breakpoints import HARDWARE, NAMES, SOFTWARE, Breakpoints, Memory, Point
from kvmbox.parts.gdb.gdb_session import SIGABRT, SIGINT, SIGSEGV, SIGTRAP, Session, Stop
from kvmbox.parts.gdb.refused import RefusedError
from kvmbox.parts.gdb.registers import FLOAT, GENERAL, SPECIAL, Layout, Registers, bits_of_image, layout_of
from kvmbox.run.api.monitor_commands import WORDS, Monitor, MonitorError, usage
from kvmbox.run.loop.paused_time import PausedTime
from kvmbox.run.loop.vcpu_pause import VcpuPause, Visitor
from kvmbox.run.vcpu.run_loop import ExitAction
from kvmbox.run.vcpu.run_state import VcpuControl

if TYPE_CHECKING:
    from kvmbox.base.symbol_file import SymbolFile
    from kvmbox.host.time.guest_clock import GuestClock
    from kvmbox.kvm.system import Kvm
    from kvmbox.kvm.vcpu import Vcpu
    from kvmbox.run.machine.guest_vm import GuestVm
    from kvmbox.run.machine.one_boot import Boot
    from kvmbox.run.vcpu.handle import VcpuThread

_WAITS: Final = {
    uapi.KVM_MP_STATE_UNINITIALIZED: "waits for INIT",
    uapi.KVM_MP_STATE_INIT_RECEIVED: "waits for a start-up IPI",
}
_STATES: Final = {uapi.KVM_MP_STATE_HALTED: "halted", **_WAITS}
PAGE: Final = 4096


class Debugger(Visitor):
    """The client's side of one run. All but `filter_exit` belongs to the main loop's thread."""

    def __init__(
        self,
        link: Link,
        kvm: Kvm,
        memory: Memory,
        symbols: Sequence[SymbolFile],
        cpus: int,
        decision: Decision,
        standstill: VcpuPause,
        timeless: Callable[[], AbstractContextManager[Boot]],
        reset: Callable[[], None],
        monitor: Monitor,
        say: Callable[[str], None],
    ) -> None:
        """`symbols` has the image, which decides how wide registers are, if it is an ELF file. `timeless`
        lets guest time stand still while it lasts, and `reset` resets the guest. `monitor` knows its words.
        """
        self._cpus = cpus
        self._link = link
        self._decision = decision
        self._standstill = standstill
        self._timeless = timeless
        self._reset = reset
        self._monitor = monitor
        self._say = say
        self._can_debug = kvm.check_extension(KVM_CAP_SET_GUEST_DEBUG) > 0
        self._known_flags = max(0, kvm.check_extension(KVM_CAP_SET_GUEST_DEBUG2))
        self._image_bits = next((bits for one in symbols if (bits := bits_of_image(one.data))), None)
        self._session: Session | None = None
        self._layout: Layout | None = None
        self._guest: GuestVm | None = None
        self._threads: Sequence[VcpuThread] = ()
        self._points = Breakpoints(memory)
        self._stops: dict[int, Stop] = {}
        """The stops of which no client has been notified, by CPU: entered by their threads."""
        self._asked: int | None = None
        """The signal of a stop that the client asked for, or that is wanted for another reason."""
        self._leaves = False
        """Whether the client has gone, and its breakpoints have not."""
        self._waits = link.endpoint.waits
        """Whether the guest is to stand at its entry, until a client lets it go on."""
        self._time = PausedTime()
        self._held: set[int] = set()
        self._but: tuple[int | None, int | None] = (None, None)
        """The guest-physical and the linear address of the instruction that is stepped over."""
        self._present = 0
        self._seen: dict[int, Registers] = {}
        self._controls: dict[int, tuple[object, ...]] = {}
        self._end_reported = False
        """Whether the client knows that the guest is halted for ever, and has not changed it since."""
        self._user_code_reported = False
        if link.has_client:
            self._session = Session(self)
            self._asked = SIGTRAP
        elif self._waits:
            self._asked = SIGTRAP
            say(f"--gdb: the guest waits for a client: target remote {link.endpoint}")
        if link.endpoint.port:
            say(f"--gdb {link.endpoint}: every user of this host can connect, and control the guest")
        standstill.admit(self)

    # --- Boots --------------------------------------------------------------------------------------------

    def boot_begins(self, boot: Boot) -> None:
        """See `Visitor`."""
        self._guest, self._threads = boot.guest, boot.vcpus
        if not self.wants:
            self._points.plant()
            self._control()

    def boot_ends(self, _boot: Boot, _end: Outcome | None) -> None:
        """See `Visitor`: whoever looks at memory behind this one finds no breakpoints."""
        if self._time.stands:
            self._asked = SIGTRAP  # and stands in the next boot, too
        self._guest, self._but, self._end_reported = None, (None, None), False
        self._end_standing()
        self._points.lift()
        if self._session is not None:
            self._session.begun_again()
        self._stops.clear()
        self._held.clear()
        self._controls.clear()

    @property
    def stood_ns(self) -> int:
        """See `Visitor`: the time for which a client looks."""
        return self._time.ns

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """See `Visitor`: nobody finds the client's breakpoints in memory."""
        self._points.lift()
        try:
            yield
        finally:
            if not self._time.stands and self._guest is not None:
                self._points.plant(but=self._but[0])

    # --- The vCPU threads ---------------------------------------------------------------------------------

    def filter_exit(self, number: int, found: exits.Exit) -> ExitAction:
        """What is to become of an exit of CPU `number`. On its thread."""
        if self._session is None or self._leaves:
            # A step or a breakpoint of a client that has gone since, and that will be lifted soon.
            is_gone = isinstance(found, exits.DebugExit) or self._is_refused_point(number, found)
            return ExitAction.IGNORE if is_gone else ExitAction.HANDLE
        match found:
            case exits.DebugExit(exception) if exception == BP_VECTOR:
                if not self._is_planted(number):
                    self._give_to_guest(number)
                    return ExitAction.IGNORE
                stop = Stop(number, SIGTRAP, NAMES[SOFTWARE])
            case exits.DebugExit(_, _, dr6, _):
                stop = self._debug_stop(number, dr6)
            case exits.InternalErrorExit() if self._is_refused_point(number, found):
                stop = Stop(number, SIGTRAP, NAMES[SOFTWARE])
            case exits.ShutdownExit():
                stop = Stop(number, SIGSEGV, text="the guest crashed: triple fault")
            case exits.MmioExit() | exits.IntrExit() | exits.HltExit():
                return ExitAction.HANDLE
            case _:
                stop = Stop(number, SIGABRT, text=exits.describe(found))
        self._stops[number] = stop
        self._standstill.call()
        return ExitAction.CRASH if stop.text else ExitAction.STOP

    def stops(self, end: Outcome) -> bool:
        """See `Visitor`: the client is told of a guest that is halted for ever before the run ends."""
        if self._session is None or self._leaves or self._end_reported:
            return False
        self._end_reported = True
        self._stops[self._present] = Stop(self._present, SIGABRT, text=end.reason)
        self._standstill.call()
        return True

    def _cpu(self, number: int) -> Cpu:
        assert self._guest is not None
        vcpu = self._threads[number].vcpu
        return Cpu(vcpu.get_regs(), vcpu.get_sregs(), self._guest.memory.available, number)

    def _is_refused_point(self, number: int, found: exits.Exit) -> bool:
        """Where KVM does not know INT3, the planted byte is an instruction that it cannot emulate."""
        return isinstance(found, exits.InternalErrorExit) and self._is_planted(number)

    def _is_planted(self, number: int) -> bool:
        if not self._points.any_planted:
            return False
        cpu = self._cpu(number)
        return self._points.is_planted(cpu.walk(cpu.pc).physical)

    def _debug_stop(self, number: int, dr6: int) -> Stop:
        point = self._points.hit_by(dr6)
        if point is None or (dr6 & DR6_SINGLE_STEP and point.kind <= HARDWARE):
            return Stop(number, SIGTRAP)
        return Stop(number, SIGTRAP, NAMES[point.kind], point.address)

    def _give_to_guest(self, number: int) -> None:
        """INT3 is the guest's own: KVM is to deliver it."""
        control, addresses, dr7 = self._wanted_control(number)
        control |= KVM_GUESTDBG_INJECT_BP
        set_guest_debug(self._threads[number].vcpu, control, addresses, dr7)

    # --- Standing still -----------------------------------------------------------------------------------

    @property
    def wants(self) -> bool:
        """See `Visitor`."""
        return not self._time.stands and (self._asked is not None or bool(self._stops) or self._leaves)

    def holds(self, vcpu: VcpuControl) -> bool:
        """See `Visitor`."""
        return bool(self._held) and any(self._threads[number] is vcpu for number in self._held)

    def wake_in(self, _clock: GuestClock) -> float | None:
        """See `Visitor`."""
        ready = self.wants and self._guest is not None and all(thread.is_paused for thread in self._threads)
        return 0 if ready else None

    def visit(self) -> None:
        """All CPUs stand still: tell the client. Raises DeviceProcessError."""
        if self._leaves:
            self._let_all_go()
            return
        stop = self._reason()
        self._asked = None
        self._held = set(range(len(self._threads)))
        self._present = stop.cpu
        self._seen.clear()
        self._time.stop(self._timeless())
        if self._session is not None:
            self._choose_layout()
            self._send(self._session.stopped(stop))

    def _reason(self) -> Stop:
        """Why the machine stands still: the stop of the stepped CPU, or of another one, or what was asked."""
        if self._stops:
            number = self._present if self._present in self._stops else next(iter(self._stops))
            stop = self._stops.pop(number)
            # A breakpoint stops its CPU again when that one proceeds. Nothing else would.
            for other in [one for one, kept in self._stops.items() if kept.reason in ("swbreak", "hwbreak")]:
                del self._stops[other]
            return stop
        return Stop(self._present, SIGTRAP if self._asked is None else self._asked)

    def _choose_layout(self) -> None:
        """When a client comes: as wide as the image is, or as the CPU's mode is."""
        if self._layout is None:
            self._layout = layout_of(self._image_bits or self._cpu(self._present).bits)

    def _end_standing(self) -> None:
        self._time.go_on()
        self._seen.clear()

    def _go(self, numbers: Sequence[int]) -> None:
        """Let these CPUs go on, and only these."""
        self._held = set(range(len(self._threads))) - set(numbers)
        self._waits = False
        self._end_standing()
        self._control()
        for number in numbers:
            if number not in self._stops:
                self._threads[number].proceed()
        if self.wants:
            self._standstill.call()  # the client is notified of the other stop now
        else:
            self._standstill.let_go()

    def _wanted_control(self, number: int) -> tuple[int, tuple[int, ...], int]:
        """What KVM_SET_GUEST_DEBUG is to be told of a CPU."""
        assert self._guest is not None
        control, (addresses, dr7) = 0, self._points.debug_registers(but=self._but[1])
        if self._points.any_planted and not self._guest.is_pvm:
            control |= KVM_GUESTDBG_USE_SW_BP
        if self._points.any_slots:
            control |= KVM_GUESTDBG_USE_HW_BP
        if self._but[1] is not None and number == self._present:
            control |= KVM_GUESTDBG_SINGLESTEP | KVM_GUESTDBG_BLOCKIRQ & self._known_flags
        return (control | KVM_GUESTDBG_ENABLE if control else 0), addresses, dr7

    def _control(self) -> None:
        """Tell KVM, for each CPU, what has changed; single steps always."""
        for number, thread in enumerate(self._threads):
            wanted = self._wanted_control(number)
            if wanted != self._controls.get(number, (0, (0, 0, 0, 0), wanted[2])) or self._but[1] is not None:
                set_guest_debug(thread.vcpu, *wanted)
                self._controls[number] = wanted

    # --- The client ---------------------------------------------------------------------------------------

    def watch(self, poll: select.poll) -> None:
        """The main loop polls by this set from now on."""
        self._link.watch(poll)

    def handle(self, descriptor: int) -> bool:
        """Poll has told of a descriptor. Returns whether it is the client's, who has been heard."""
        if not self._link.is_mine(descriptor):
            return False
        was_there = self._link.has_client
        data = self._link.handle()
        if data is None:
            self._client_gone("")
        elif not was_there and self._link.has_client:
            self._client_comes()
        elif data and self._session is not None:
            self._send(self._session.receive(data))
        return True

    def _client_comes(self) -> None:
        self._session, self._layout = Session(self), None
        if self._time.stands:
            self._choose_layout()
            self._send(self._session.stopped(Stop(self._present, SIGTRAP)))
        else:
            self._asked = SIGTRAP
            self._standstill.call()

    def _send(self, data: bytes) -> None:
        session = self._session
        if not data and (session is None or session.closed is None):
            return
        why_gone = self._link.send(data) if data else None
        if session is not None and session.closed is not None:
            self._client_gone(session.closed, left=True)
        elif why_gone is not None:
            self._client_gone(why_gone)

    def _client_gone(self, why: str, *, left: bool = False) -> None:
        """The client has hung up; or has `left` in order, or speaks nonsense, as `why` says."""
        if self._link.endpoint.is_pipe:  # nobody can come back
            why = why or f"the client of --gdb has {'left' if left else 'hung up'}"
            self._decision.decide(Outcome(INTERRUPTED, why))
        if why:
            self._say(why)
        if left:
            self._link.finish()
        else:
            self._link.drop()
        session, self._session = self._session, None
        # Whoever has tried only whether somebody listens does not let a guest go that waits for a debugger.
        if session is not None and (session.has_spoken or not self._waits):
            self._leave()

    def _leave(self) -> None:
        """The client's breakpoints go, and all CPUs go on."""
        if self._time.stands:
            self._let_all_go()
        else:
            self._leaves = True
            self._standstill.call()

    def _let_all_go(self) -> None:
        self._leaves = self._waits = False
        self._asked, self._but = None, (None, None)
        self._stops.clear()
        self._points.lift()
        self._points.clear()
        if self._session is not None:  # the next client has come meanwhile
            self._asked = SIGTRAP
        if self._time.stands:
            self._go(range(len(self._threads)))
            return
        self._held.clear()
        self._control()
        for thread in self._threads:
            thread.proceed()

    def finish(self, status: int) -> None:
        """The run has ended with this exit status."""
        if self._session is not None:
            self._link.send(self._session.ended(status))
        self._link.finish()

    # --- gdb.session.Target -------------------------------------------------------------------------------

    @property
    def cpus(self) -> int:
        """See Target."""
        return self._cpus

    @property
    def layout(self) -> Layout:
        """See Target."""
        assert self._layout is not None
        return self._layout

    def name_of(self, cpu: int) -> str:
        """See Target."""
        state = _STATES.get(self._mp_state(cpu), "")
        return f"CPU {cpu}, {state or f'{self.registers(cpu).cpu.bits}-bit code'}"

    def _mp_state(self, cpu: int) -> int:
        try:
            return self._vcpu(cpu).get_mp_state()
        except KvmError as error:
            raise RefusedError(str(error)) from error

    def _vcpu(self, cpu: int) -> Vcpu:
        return self._threads[cpu].vcpu

    def registers(self, cpu: int) -> Registers:
        """See Target."""
        found = self._seen.get(cpu)
        if found is None:
            try:
                found = self._seen[cpu] = Registers(self._cpu(cpu), self._vcpu(cpu).get_fpu())
            except KvmError as error:
                raise RefusedError(str(error)) from error
        return found

    def set_registers(self, cpu: int, registers: Registers) -> None:
        """See Target."""
        self._seen.pop(cpu, None)
        self._end_reported = False
        vcpu = self._vcpu(cpu)
        try:
            if registers.changed & GENERAL:
                vcpu.set_regs(registers.regs)
            if registers.changed & SPECIAL:
                vcpu.set_sregs(registers.sregs)
            if registers.changed & FLOAT:
                vcpu.set_fpu(registers.fpu)
        except KvmError as error:
            raise RefusedError(str(error)) from error

    def read(self, cpu: int | None, address: int, size: int) -> bytes:
        """See Target."""
        assert self._guest is not None
        if cpu is None:
            return self._guest.memory.available(address, size)
        return self.registers(cpu).cpu.read(address, size)

    def write(self, cpu: int | None, address: int, data: bytes) -> None:
        """See Target."""
        assert self._guest is not None
        memory, pieces, done = self._guest.memory, list[tuple[int, bytes]](), 0
        while done < len(data):
            linear = address + done & (1 << 64) - 1
            place = linear if cpu is None else self.registers(cpu).cpu.walk(linear).physical
            piece = data[done : done + PAGE - linear % PAGE]
            if place is None or not memory.contains(place, len(piece)):
                raise RefusedError(f"there is no memory to write to at {linear:#x}")
            pieces.append((place, piece))
            done += len(piece)
        for place, piece in pieces:
            memory.write(place, piece)

    def add_point(self, cpu: int, point: Point) -> None:
        """See Target."""
        assert self._guest is not None
        if not self._can_debug:
            raise RefusedError("this host's KVM cannot debug guests")
        if point.kind > HARDWARE and self._guest.is_pvm:
            raise RefusedError(
                "this host's KVM (PVM) has no watchpoints; "
                "after 'set can-use-hw-watchpoints 0' gdb makes single steps instead"
            )
        state, physical = self.registers(cpu).cpu, None
        if self._guest.is_pvm:
            self._refuse_user_code(state)
        if point.kind == SOFTWARE and not state.is_real:
            physical = state.walk(point.address).physical
        self._points.add(point, physical)

    def _refuse_user_code(self, cpu: Cpu) -> None:
        """PVM executes code at CPL 3 natively, and nothing stops it there. Raises RefusedError."""
        if cpu.cpl == 3:
            raise RefusedError("this host's KVM (PVM) stops no code at CPL 3")
        if cpu.long_mode and not self._user_code_reported:
            self._user_code_reported = True
            self._say(
                "--gdb: this host's KVM (PVM) stops no code at CPL 3: "
                "a breakpoint there is missed, or ends in the guest's own #BP"
            )

    def remove_point(self, point: Point) -> None:
        """See Target."""
        self._points.remove(point)

    def resume(self, running: Iterable[int], step: int | None) -> None:
        """See Target."""
        assert self._guest is not None
        numbers = list(running) if step is None else [step]
        self._refuse_waiting(numbers)
        self._but = (None, None)
        if step is not None:
            cpu = self.registers(step).cpu
            if not self._can_debug:
                raise RefusedError("this host's KVM cannot debug guests")
            if self._guest.is_pvm and cpu.cpl == 3:
                raise RefusedError("this host's KVM (PVM) cannot step at CPL 3")
            self._but, self._present = (cpu.walk(cpu.pc).physical, cpu.pc), step
        try:
            self._go(numbers)
        except KvmError as error:
            self._asked = SIGTRAP
            raise RefusedError(str(error)) from error

    def _refuse_waiting(self, numbers: Sequence[int]) -> None:
        """Raises RefusedError if none of these CPUs can execute an instruction before another CPU does."""
        waits = [_WAITS.get(self._mp_state(number)) for number in numbers]
        if numbers and all(waits):
            what = f"CPU {numbers[0]} {waits[0]}, and executes nothing before another CPU sends that"
            raise RefusedError(f"{what}: let all CPUs go on, or step another one")

    def interrupt(self) -> None:
        """See Target."""
        if not self._time.stands:
            self._asked = SIGINT
            self._standstill.call()

    def detach(self) -> None:
        """See Target. It happens when the answer has been sent."""

    def kill(self) -> None:
        """See Target."""
        self._decision.decide(Outcome(INTERRUPTED, "killed by the client of --gdb"))

    def reset(self) -> None:
        """See Target."""
        self._reset()

    def monitor(self, cpu: int, words: list[str]) -> str:
        """See Target."""
        self._monitor.cpu = cpu
        self._seen.clear()
        try:
            return self._monitor.answer(words)
        except MonitorError as error:
            return f"{error}\nthe words are\n{usage(WORDS.values(), 'monitor ')}"

    def notify(self, text: str) -> None:
        """See Target."""
        self._say(text)
