"""Where a vCPU is: one sample of a vCPU that stands still, for the profile of a run and that of a hang."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Protocol

from kvmbox.base.errors import KvmError
from kvmbox.base.value_classes import Value
from kvmbox.explain.frame_chain import return_addresses, words_at
from kvmbox.explain.paging import ReadPhysical
from kvmbox.explain.stopped_cpu import RFLAGS_IF, Cpu
from kvmbox.kvm import uapi

if TYPE_CHECKING:
    from kvmbox.kvm.vcpu import Vcpu

MOST_FRAMES: Final = 32

MOST_TOP: Final = 64
"""How many words of the stack a sample has."""

RUNNING: Final = 0
HALTED: Final = 1
ACCESSING: Final = 2
"""What a CPU does: it runs, it is in HLT, or it waits for a device. The program counter of the last two is
behind the instruction that does so."""

IN_WORDS: Final = {RUNNING: "running", HALTED: "halted", ACCESSING: "waiting for a device"}


class Standing(Protocol):
    """A vCPU that stands still."""

    @property
    def vcpu(self) -> Vcpu:
        """Its state in KVM."""
        ...

    @property
    def in_access(self) -> bool:
        """Whether it had an exit to handle when it was asked to pause."""
        ...


class Sample(Value):
    """`doing` is RUNNING, HALTED or ACCESSING. `pc` is a linear address, and so are the
    return addresses along the frame pointers, innermost first. `top` has the first words of the stack; those
    that cannot be a return address are 0.
    """

    doing: int
    is_user: bool
    interrupts_on: bool
    pc: int
    callers: tuple[int, ...] = ()
    is_wide: bool = False
    top: tuple[int, ...] = ()


def sample(thread: Standing, read: ReadPhysical | None = None, code: Sequence[range] = ()) -> Sample | None:
    """A sample of a vCPU that stands still, with its callers if `read` gives guest-physical memory. Return
    addresses are in `code`.

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
    top: tuple[int, ...] = ()
    if read is not None and not cpu.is_real:
        word = 8 if cpu.bits == 64 else 4
        pointer = regs.rbp & (1 << 8 * word) - 1
        callers = return_addresses(pointer, cpu.sp, word, vcpu.translate, read, MOST_FRAMES - 1)
        if code:
            words = words_at(cpu.sp, MOST_TOP, word, vcpu.translate, read)
            top = tuple(one if any(one in part for part in code) else 0 for one in words)
    doing = ACCESSING if thread.in_access else RUNNING
    if state == uapi.KVM_MP_STATE_HALTED:
        doing = HALTED
    is_user, interrupts_on = cpu.cpl == 3, bool(regs.rflags & RFLAGS_IF)
    return Sample(doing, is_user, interrupts_on, cpu.pc, tuple(callers), cpu.bits == 64, top)


def _nothing(_address: int, _size: int) -> bytes:
    return b""
