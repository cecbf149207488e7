"""The monitor on the terminal. Ctrl-A C gives it what is typed, and takes that from it again.

The guest goes on meanwhile. A word of `run.api.monitor_commands` is done while all CPUs stand still for a
moment, as for any visitor (`standstill`). Three words are the terminal's own: `pause` lets the CPUs stand,
and guest time with them, until `continue`; `step` lets the present CPU execute one instruction, and all
others stand. With
--gdb these are gdb's business, and are refused here.

The run loads this part at the first Ctrl-A C. So it has no more rights than the confined VMM has.
"""

from __future__ import annotations

import os
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from kvmbox.base.errors import KvmError
from kvmbox.kvm import exits
from kvmbox.kvm.guest_debug import (
    KVM_CAP_SET_GUEST_DEBUG,
    KVM_CAP_SET_GUEST_DEBUG2,
    KVM_GUESTDBG_BLOCKIRQ,
    KVM_GUESTDBG_ENABLE,
    KVM_GUESTDBG_SINGLESTEP,
    set_guest_debug,
)
from kvmbox.parts.monitor.line_editor import PROMPT, LineEditor
from kvmbox.run.api.monitor_commands import WORDS, Monitor, MonitorError, Word, number_of, usage
from kvmbox.run.loop.paused_time import PausedTime
from kvmbox.run.loop.vcpu_pause import Visitor
from kvmbox.run.part import Part, Standing
from kvmbox.run.vcpu.run_loop import ExitAction

if TYPE_CHECKING:
    from kvmbox.base.outcome import Outcome
    from kvmbox.host.time.guest_clock import GuestClock
    from kvmbox.run.machine.one_boot import Boot
    from kvmbox.run.vcpu.run_state import VcpuControl

HELLO: Final = "\nThe monitor: 'help' lists its words, Ctrl-A C goes back to the guest.\n"
MOST_LINES: Final = 100
"""How many lines may wait for the CPUs to stand still; those behind them are dropped."""
MOST_STEPS: Final = 1_000_000


class TerminalMonitor(Part, Visitor):
    """The monitor of one run. All but `filter_exit` belongs to the main loop's thread."""

    def __init__(self) -> None:
        self._editor = LineEditor()
        self._lines: deque[str] = deque()
        self._monitor: Monitor
        self._out = next((number for number in (2, 1, 0) if os.isatty(number)), 2)
        self._is_open = False
        self._pauses = False
        """Whether the CPUs stand until `continue`."""
        self._time = PausedTime()
        self._stepping: int | None = None
        """The CPU that is stepped."""
        self._stepped = False
        self._steps_left = 0

    def attach(self, machine: Standing) -> None:
        """See `Part`: the guest may run already."""
        self._monitor = Monitor(machine)
        machine.loop.standstill.admit(self)
        if not self._has_gdb:
            machine.loop.exit_filter = self.filter_exit

    @property
    def _machine(self) -> Standing:
        return self._monitor.machine

    @property
    def _has_gdb(self) -> bool:
        return self._machine.config.of_part("gdb") is not None

    # --- The terminal -------------------------------------------------------------------------------------

    def typed(self, data: bytes, *, stays: bool) -> bool:
        """What is typed while the monitor has the terminal; `stays` says whether it still has. Returns
        whether it wants to.
        """
        if not self._is_open:
            self._is_open = True
            self._show(HELLO + PROMPT)
        lines, shown, leaves = self._editor.feed(data)
        self._show(shown)
        self._lines.extend(lines[: MOST_LINES - len(self._lines)])
        if self._lines:
            self._machine.loop.standstill.call()
        if leaves or not stays:
            self._is_open = False
            self._show("\nthe guest is paused\n" if self._pauses else "\n")
            return False
        return True

    def _show(self, text: str) -> None:
        data = text.encode()
        with suppress(OSError):  # the terminal may be gone
            while data:
                data = data[os.write(self._out, data) :]

    # --- Standing still -----------------------------------------------------------------------------------

    @property
    def wants(self) -> bool:
        """See `Visitor`."""
        return bool(self._lines) or self._stepped

    @property
    def stood_ns(self) -> int:
        """See `Visitor`: the time for which the guest is paused."""
        return self._time.ns

    def wake_in(self, _clock: GuestClock) -> float | None:
        """See `Visitor`."""
        boot = self._machine.loop.watch.boot
        ready = self.wants and boot is not None and all(thread.is_paused for thread in boot.vcpus)
        return 0 if ready else None

    def holds(self, vcpu: VcpuControl) -> bool:
        """See `Visitor`."""
        if not self._pauses or self._stepping is None:
            return self._pauses
        boot = self._machine.loop.watch.boot
        return boot is not None and vcpu is not boot.vcpus[self._stepping]

    def boot_ends(self, _boot: Boot, _end: Outcome | None) -> None:
        """See `Visitor`: a new boot is not paused."""
        self._stepping, self._stepped = None, False
        self._pauses = False
        self._time.go_on()

    def visit(self) -> None:
        """All CPUs stand still: do what was typed. Raises DeviceProcessError."""
        if self._stepping is not None:
            self._end_step()
        while self._lines and self._stepping is None:
            line = self._lines.popleft().split()
            if line:
                try:
                    self._show(self._answer(line))
                except (MonitorError, KvmError) as error:
                    self._show(f"{error}\n")
            if self._is_open and self._stepping is None:
                self._show(PROMPT)

    def _answer(self, words: list[str]) -> str:
        word = OWN_WORDS.get(words[0])
        if word is not None:
            if len(words) - 1 > word.most:
                raise MonitorError(f"it is used as: {word.usage}")
            return word.do(self, *words[1:])
        if words[0] == "help":
            return usage([*OWN_WORDS.values(), *WORDS.values()])
        with self._machine.loop.standstill.hidden():
            return self._monitor.answer(words)

    def _time_stands(self) -> None:
        if not self._time.stands:
            self._time.stop(self._machine.loop.timeless())

    # --- The terminal's own words -------------------------------------------------------------------------

    def pause(self) -> str:
        """Let all CPUs stand until `go_on`."""
        if self._has_gdb:
            raise MonitorError("with --gdb, gdb stops the guest and lets it go on")
        self._time_stands()
        self._pauses = True
        return self._monitor.place()

    def go_on(self) -> str:
        """Let them go on."""
        if not self._pauses:
            raise MonitorError("the guest is not paused")
        self._pauses = False
        self._time.go_on()
        return ""

    def step(self, count: str = "1") -> str:
        """Let the present CPU execute instructions."""
        if not self._pauses:
            return self.pause()
        kvm, boot = self._machine.kvm, self._monitor.boot
        if kvm.check_extension(KVM_CAP_SET_GUEST_DEBUG) <= 0:
            raise MonitorError("this host's KVM cannot debug guests")
        if boot.guest.is_pvm and self._monitor.state().cpl == 3:
            raise MonitorError("this host's KVM (PVM) cannot step at CPL 3")
        self._steps_left = min(number_of(count), MOST_STEPS)
        if self._steps_left:
            self._begin_step()
        return ""

    def _begin_step(self) -> None:
        cpu = self._monitor.cpu
        known = max(0, self._machine.kvm.check_extension(KVM_CAP_SET_GUEST_DEBUG2))
        control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP | KVM_GUESTDBG_BLOCKIRQ & known
        set_guest_debug(self._monitor.boot.vcpus[cpu].vcpu, control)
        self._stepping, self._stepped = cpu, False
        self._steps_left -= 1
        self._time.go_on()

    def _end_step(self) -> None:
        """The CPU has executed an instruction; or it is halted, and something else has been typed."""
        assert self._stepping is not None
        thread = self._monitor.boot.vcpus[self._stepping]
        set_guest_debug(thread.vcpu, 0)
        thread.proceed()
        done, self._stepping, self._stepped = self._stepped, None, False
        self._time_stands()
        if done and self._steps_left:
            self._begin_step()
            return
        self._steps_left = 0
        if not done:
            self._show("the CPU has executed nothing: it is halted, or waits\n")
        self._show(self._monitor.place() + PROMPT)

    def filter_exit(self, number: int, found: exits.Exit) -> ExitAction:
        """Whether an exit of CPU `number` is the end of a step. On its thread."""
        if not isinstance(found, exits.DebugExit):
            return ExitAction.HANDLE
        if number != self._stepping:
            return ExitAction.IGNORE
        self._stepped = True
        self._machine.loop.standstill.call()
        return ExitAction.STOP


OWN_WORDS: Final[dict[str, Word]] = {
    word.usage.partition(" ")[0]: word
    for word in (
        Word("pause", "let all CPUs stand", TerminalMonitor.pause),
        Word("continue", "let them go on", TerminalMonitor.go_on),
        Word("step [N]", "pause, or let the present CPU execute an instruction", TerminalMonitor.step, 0, 1),
    )
}
"""By the word."""

PART = TerminalMonitor
