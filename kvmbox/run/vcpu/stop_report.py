"""The report of a paused vCPU: registers, the code at RIP, and a hint; and the ends that have one."""

from __future__ import annotations

from collections.abc import Callable
from itertools import takewhile
from typing import TYPE_CHECKING, Final, TypeAlias

from kvmbox.base.errors import KvmError, UnknownExitError
from kvmbox.base.outcome import GUEST_CRASHED, Outcome
from kvmbox.base.value_classes import Value
from kvmbox.kvm import exits, uapi
from kvmbox.kvm.vcpu import Vcpu

if TYPE_CHECKING:
    from kvmbox.explain.diagnosis import Diagnosis

CODE_BYTES: Final = 16
"""How many bytes of code a report shows."""

ReadMemory: TypeAlias = Callable[[int], int | None]
"""Gives the byte at a guest-physical address, None where there is no RAM."""


def vcpu_report(vcpu: Vcpu, read_memory: ReadMemory) -> str:
    """Registers and the code at RIP, as text."""
    from kvmbox.kvm.registers import format_registers

    try:
        regs, sregs = vcpu.get_regs(), vcpu.get_sregs()
        code = ["??" if byte is None else f"{byte:02x}" for byte in code_at_rip(vcpu, read_memory)]
    except KvmError as error:
        return f"(registers cannot be read: {error})"
    return f"{format_registers(regs, sregs)}\nCode at RIP: {' '.join(code)}"


def report_beside(vcpu: Vcpu, read_memory: ReadMemory) -> str:
    """The report of a paused vCPU that has not crashed itself, under its name."""
    try:
        state = vcpu.get_mp_state()
    except KvmError as error:
        return f"CPU {vcpu.index}\n({error})"
    if state in (uapi.KVM_MP_STATE_UNINITIALIZED, uapi.KVM_MP_STATE_INIT_RECEIVED):
        return f"CPU {vcpu.index} waits for a start-up IPI"
    halted = " is halted" if state == uapi.KVM_MP_STATE_HALTED else ""
    return f"CPU {vcpu.index}{halted}\n{vcpu_report(vcpu, read_memory)}"


def code_at_rip(vcpu: Vcpu, read_memory: ReadMemory) -> list[int | None]:
    """The bytes at RIP, None for each that is not in RAM. Raises KvmError."""
    start = vcpu.get_sregs().cs.base + vcpu.get_regs().rip
    # Linear to physical once per byte: the code may straddle two pages.
    places = [vcpu.translate(address) for address in range(start, start + CODE_BYTES)]
    return [None if place is None else read_memory(place) for place in places]


def diagnose(vcpu: Vcpu, read_memory: ReadMemory) -> str | None:
    """A hint from the state of the vCPU about the cause of the failure, or None."""
    from kvmbox.explain.diagnosis import bios_call

    try:
        regs, sregs = vcpu.get_regs(), vcpu.get_sregs()
    except KvmError:  # only a hint is lost
        return None
    return bios_call(regs, sregs, read_memory)


class Reporter(Value):
    """Reports the end of the guest that one vCPU has met. `is_pvm` tells what a refused instruction means.
    `name` is that of the CPU, if there are several.
    """

    vcpu: Vcpu
    read_memory: ReadMemory
    is_pvm: bool
    name: str | None

    def triple_fault(self) -> Outcome:
        """The outcome of a triple fault."""
        return Outcome(
            GUEST_CRASHED,
            "the guest crashed: triple fault" + ("" if self.name is None else f" of {self.name}"),
            error=True,
            hint="an exception could not be delivered: --report full shows the registers and the stack",
            report=self._report(),
        )

    def failure(self, found: exits.Exit) -> UnknownExitError:
        """The error that any other exit is with which the guest cannot go on. It names the instruction where
        that is the cause of an internal error of KVM.
        """
        report, reason, hint = self._report(), exits.describe(found), None
        if isinstance(found, exits.InternalErrorExit) and (refused := self._refused(found)) is not None:
            reason, hint = refused.reason, refused.hint
        return UnknownExitError(f"{reason}\n{report}", hint=hint)

    def _report(self) -> str:
        report = vcpu_report(self.vcpu, self.read_memory)
        return report if self.name is None else f"{self.name}\n{report}"

    def _refused(self, found: exits.InternalErrorExit) -> Diagnosis | None:
        from kvmbox.explain.diagnosis import bios_call, refused_instruction
        from kvmbox.explain.disassembly import mnemonic_of

        try:
            regs, sregs = self.vcpu.get_regs(), self.vcpu.get_sregs()
            code = code_at_rip(self.vcpu, self.read_memory)
        except KvmError:  # the report says so
            return None
        known = bytes(takewhile(lambda byte: byte is not None, code))  # type: ignore[arg-type]
        astray = bios_call(regs, sregs, self.read_memory) is not None
        return refused_instruction(
            found, sregs, known, pvm=self.is_pvm, astray=astray, disassemble=mnemonic_of
        )
