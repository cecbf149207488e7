"""What the state of all vCPUs tells, when a guest has come to a bad end and its threads have ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from kvmbox.base.errors import KvmError
from kvmbox.base.memory import GuestMemory
from kvmbox.base.outcome import GUEST_CRASHED, INTERRUPTED, TIMED_OUT, UNKNOWN_EXIT, Outcome
from kvmbox.base.symbol_file import SymbolFile
from kvmbox.base.value_classes import Value
from kvmbox.kvm import uapi
from kvmbox.kvm.registers import format_registers, is_reset
from kvmbox.parts.crash_report.hang_profile import HangProfile
from kvmbox.run.vcpu.handle import VcpuThread, ended_it
from kvmbox.run.vcpu.stop_report import diagnose

if TYPE_CHECKING:
    from kvmbox.explain.debug_info import DebugInfo

EXPLAINED: Final = (GUEST_CRASHED, UNKNOWN_EXIT, TIMED_OUT)
"""The ends after which the report tells all that is known of every CPU."""

LOST: Final = (
    "KVM on AMD-V resets a CPU before it reports the triple fault, so RIP and CR2 are lost:"
    " look at the last accesses below"
)
LOST_REGISTERS: Final = "The registers of the triple fault are lost: KVM on AMD-V has reset the CPU."
LAST_LOOK: Final = "Registers at kvmbox's last look, perhaps long before, with the page tables of now:"
"""What is told of a CPU whose state KVM has thrown away."""

MOST_OF_LINE: Final = 160
"""The characters of the console's last line that are shown."""

SourceText: TypeAlias = Callable[[str, int], str | None]
"""Gives the text of a line of a source file, as `explain.debug_info` wants it."""

_NOT_STARTED: Final = (uapi.KVM_MP_STATE_UNINITIALIZED, uapi.KVM_MP_STATE_INIT_RECEIVED)


def no_source(_path: str, _number: int) -> str | None:
    """A SourceText where there are no source files."""
    return None


class Examination(Value):
    """`diagnosis` is a hint about the cause, if there is one. `report` explains every CPU, in lines of text,
    `summary` says the most important of it, and `cpus` is the whole as data.
    """

    diagnosis: str | None = None
    report: str = ""
    summary: str = ""
    cpus: tuple[dict[str, Any], ...] = ()


def examine(
    threads: Sequence[VcpuThread],
    memory: GuestMemory,
    outcome: Outcome,
    symbols: Sequence[SymbolFile] = (),
    profile: HangProfile | None = None,
    source_text: SourceText = no_source,
) -> Examination:
    """Examine the vCPUs of a guest that has ended with `outcome`. `profile` tells where a hang was, and
    `source_text` what the source files say.
    """
    if outcome.status not in (*EXPLAINED, INTERRUPTED):
        return Examination()
    diagnoses = (diagnose(thread.vcpu, memory.byte_at) for thread in threads)
    diagnosis = next((text for text in diagnoses if text is not None), None)
    if outcome.status not in EXPLAINED:
        return Examination(diagnosis)
    # The vCPU that ended the guest is told of first.
    ordered = sorted(threads, key=lambda thread: not ended_it(thread, outcome))
    return _explain(ordered, memory, outcome, symbols, profile, source_text, diagnosis)


def last_lines_of(printed: Mapping[str, bytes]) -> tuple[tuple[str, str], ...]:
    """The ends of lines as text, by port. What two ports have printed alike is there once."""
    from kvmbox.explain.demangled_names import printable

    found: dict[str, str] = {}
    for port, line in printed.items():
        text = printable(line.decode("utf-8", "replace").strip())
        text = text if len(text) <= MOST_OF_LINE else f"…{text[-MOST_OF_LINE:]}"
        if text not in found.values():
            found[port] = text
    return tuple(found.items())


class _Report:
    """What was told so far: the whole text, its summary, and the data of each CPU."""

    def __init__(self, lines: Sequence[str], diagnosis: str | None) -> None:
        self.lines, self.summary = list(lines), list(lines)
        self.cpus: list[dict[str, Any]] = []
        self.diagnosis = diagnosis

    def add(self, *lines: str) -> None:
        """Lines of both texts."""
        self.lines += lines
        self.summary += lines

    def finished(self) -> Examination:
        """What was told in all."""
        return Examination(self.diagnosis, "\n".join(self.lines), "\n".join(self.summary), tuple(self.cpus))


def _explain(
    threads: Sequence[VcpuThread],
    memory: GuestMemory,
    outcome: Outcome,
    symbols: Sequence[SymbolFile],
    profile: HangProfile | None,
    source_text: SourceText,
    diagnosis: str | None,
) -> Examination:
    # Not before there is something to explain: docs/adr/start.md.
    from kvmbox.explain.debug_info import SEARCH_SECONDS, DebugInfo

    end = time.monotonic() + SEARCH_SECONDS
    debug_info = DebugInfo(symbols, lambda: time.monotonic() < end, source_text)
    report = _Report([] if profile is None else profile.lines(debug_info.named), diagnosis)
    for thread in threads:
        if len(threads) > 1:
            report.add(f"CPU {thread.vcpu.index}{_condition(thread)}")
        _explain_cpu(thread, memory, outcome, debug_info, report)
    return report.finished()


def _explain_cpu(
    thread: VcpuThread, memory: GuestMemory, outcome: Outcome, debug_info: DebugInfo, report: _Report
) -> None:
    from kvmbox.explain.stopped_cpu import Cpu
    from kvmbox.parts.crash_report import last_accesses
    from kvmbox.parts.crash_report.explanation import explain
    from kvmbox.parts.crash_report.report_text import brief_lines_of, lines_of, summary_of

    vcpu = thread.vcpu
    crashed = outcome.status == GUEST_CRASHED and ended_it(thread, outcome)
    try:
        if vcpu.get_mp_state() in _NOT_STARTED and not crashed:
            return
        regs, sregs = vcpu.get_regs(), vcpu.get_sregs()
    except KvmError as error:
        report.add(f"(registers cannot be read: {error})")
        return
    is_lost = crashed and is_reset(regs, sregs)
    if is_lost:
        report.diagnosis, crashed = report.diagnosis or LOST, False
        report.add(LOST_REGISTERS)
        if rip := thread.loop.last_rip:
            report.add(f"Last access to a device: by RIP {rip:#x} {debug_info.named(rip)}".rstrip())
        if vcpu.last_regs is not None and vcpu.last_sregs is not None:
            regs, sregs = vcpu.last_regs, vcpu.last_sregs
            report.add(LAST_LOOK)
    registers = format_registers(regs, sregs)
    try:
        explanation = explain(Cpu(regs, sregs, memory.available, vcpu.index), debug_info, crashed=crashed)
    except Exception as error:  # noqa: BLE001 - guest and image are anybody's; the guest's end counts
        report.lines.append(registers)
        report.add(f"(the state cannot be explained: {type(error).__name__}: {error})")
        return
    if report.diagnosis is None and explanation.arrival is not None:
        report.diagnosis = str(explanation.arrival)
    recent = thread.loop.recent
    if outcome.brief:
        report.add(*brief_lines_of(explanation))
    else:
        accesses = last_accesses.lines_of(recent)
        report.lines += [*lines_of(explanation, registers), *accesses]
        report.summary += summary_of(explanation, registers.split("\n", 1)[0])
        report.summary += accesses if is_lost else []  # then they are all that tells of the crash
    report.cpus.append(
        explanation.as_json() | {"is_lost": is_lost, "accesses": last_accesses.as_json(recent)}
    )


def _condition(thread: VcpuThread) -> str:
    try:
        state = thread.vcpu.get_mp_state()
    except KvmError:
        return ""
    if state in _NOT_STARTED:
        return " waits for a start-up IPI"
    return " is halted" if state == uapi.KVM_MP_STATE_HALTED else ""
