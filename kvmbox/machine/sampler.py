"""Where a vCPU is: one sample of a vCPU that stands still, for the profile of a run and that of a hang."""

from __future__ import annotations

from typing import Final

from kvmbox.errors import KvmError
from kvmbox.explain.chain import return_addresses
from kvmbox.explain.paging import ReadPhysical
from kvmbox.explain.state import RFLAGS_IF, Cpu
from kvmbox.kvm import uapi
from kvmbox.lean import Value
from kvmbox.machine.vcpu_thread import VcpuThread
from kvmbox.profiling.samples import ACCESSING, HALTED, MOST_FRAMES, RUNNING

IN_WORDS: Final = {RUNNING: "running", HALTED: "halted", ACCESSING: "waiting for a device"}


class Sample(Value):
    """`doing` is RUNNING, HALTED or ACCESSING (`profiling.samples`). `pc` is a linear address, and so are the
    return addresses, innermost first.
    """

    doing: int
    is_user: bool
    interrupts_on: bool
    pc: int
    callers: tuple[int, ...] = ()


def sample(thread: VcpuThread, read: ReadPhysical | None = None) -> Sample | None:
    """A sample of a vCPU that stands still, with its callers if `read` gives guest-physical memory.

    None if KVM does not tell the registers, or if the vCPU waits for its start.
    """
    vcpu = thread.vcpu
    try:
        regs, sregs, state = vcpu.get_regs(), vcpu.get_sregs(), vcpu.get_mp_state()
    except KvmError:  # a sample is lost
        return None
    if state in (uapi.KVM_MP_STATE_UNINITIALIZED, uapi.KVM_MP_STATE_INIT_RECEIVED):
        return None
    cpu = Cpu(regs, sregs, read or _nothing, vcpu.index)
    callers: list[int] = []
    if read is not None and not cpu.is_real:
        word = 8 if cpu.bits == 64 else 4
        pointer = regs.rbp & (1 << 8 * word) - 1
        callers = return_addresses(pointer, cpu.sp, word, vcpu.translate, read, MOST_FRAMES - 1)
    if state == uapi.KVM_MP_STATE_HALTED:
        doing = HALTED
    else:
        doing = ACCESSING if thread.loop.paused_in_access else RUNNING
    return Sample(doing, cpu.cpl == 3, bool(regs.rflags & RFLAGS_IF), cpu.pc, tuple(callers))


def _nothing(_address: int, _size: int) -> bytes:
    return b""
