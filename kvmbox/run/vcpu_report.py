"""The report of a paused vCPU: registers, the code at RIP, and a hint."""

from __future__ import annotations

from collections.abc import Callable
from itertools import takewhile
from typing import Final, TypeAlias

from kvmbox.errors import KvmError, UnknownExitError
from kvmbox.kvm import exits, registers, uapi
from kvmbox.kvm.vcpu import Vcpu

CODE_BYTES: Final = 16
"""How many bytes of code a report shows."""

ReadMemory: TypeAlias = Callable[[int], int | None]
"""Gives the byte at a guest-physical address, None where there is no RAM."""


def vcpu_report(vcpu: Vcpu, read_memory: ReadMemory) -> str:
    """Registers and the code at RIP, as text."""
    try:
        regs, sregs = vcpu.get_regs(), vcpu.get_sregs()
        code = ["??" if byte is None else f"{byte:02x}" for byte in code_at_rip(vcpu, read_memory)]
    except KvmError as error:
        return f"(registers cannot be read: {error})"
    return f"{registers.format_registers(regs, sregs)}\nCode at RIP: {' '.join(code)}"


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


def internal_error(
    found: exits.InternalErrorExit, vcpu: Vcpu, read_memory: ReadMemory, *, is_pvm: bool
) -> UnknownExitError:
    """The error that an internal error of KVM is; it names the instruction where that is the cause."""
    from kvmbox.explain.diagnosis import bios_call, refused_instruction
    from kvmbox.explain.disassembly import mnemonic_of

    report = vcpu_report(vcpu, read_memory)
    try:
        regs, sregs, code = vcpu.get_regs(), vcpu.get_sregs(), code_at_rip(vcpu, read_memory)
    except KvmError:  # the report says so
        return UnknownExitError(f"{exits.describe(found)}\n{report}")
    known = bytes(takewhile(lambda byte: byte is not None, code))  # type: ignore[arg-type]
    astray = bios_call(regs, sregs, read_memory) is not None
    told = refused_instruction(found, sregs, known, pvm=is_pvm, astray=astray, disassemble=mnemonic_of)
    if told is None:
        return UnknownExitError(f"{exits.describe(found)}\n{report}")
    return UnknownExitError(f"{told.reason}\n{report}", hint=told.hint)


def diagnose(vcpu: Vcpu, read_memory: ReadMemory) -> str | None:
    """A hint from the state of the vCPU about the cause of the failure, or None."""
    from kvmbox.explain.diagnosis import bios_call

    try:
        regs, sregs = vcpu.get_regs(), vcpu.get_sregs()
    except KvmError:  # only a hint is lost
        return None
    return bios_call(regs, sregs, read_memory)
