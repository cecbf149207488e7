"""KVM_SET_GUEST_DEBUG: single steps and breakpoints of user space in a guest. Only --gdb loads this.

<linux/kvm.h>, and <asm/kvm.h> for x86. Breakpoints that user space asks for hide those of the guest, and
KVM_RUN ends with KVM_EXIT_DEBUG where one is met.
"""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import Structure, byref, c_uint32, c_uint64, sizeof
from typing import Final

from kvmbox.kvm import ioctl as io
from kvmbox.kvm.vcpu import Vcpu

KVM_CAP_SET_GUEST_DEBUG: Final = 23
KVM_CAP_SET_GUEST_DEBUG2: Final = 195
"""What it gives is the mask of the flags that KVM knows."""

KVM_GUESTDBG_ENABLE: Final = 0x0000_0001
KVM_GUESTDBG_SINGLESTEP: Final = 0x0000_0002
KVM_GUESTDBG_USE_SW_BP: Final = 0x0001_0000
KVM_GUESTDBG_USE_HW_BP: Final = 0x0002_0000
KVM_GUESTDBG_INJECT_BP: Final = 0x0008_0000
KVM_GUESTDBG_BLOCKIRQ: Final = 0x0010_0000

DB_VECTOR: Final = 1
BP_VECTOR: Final = 3
"""Exceptions of a DebugExit: #DB and #BP."""

DR6_SINGLE_STEP: Final = 1 << 14
_DR7: Final = 7


class kvm_guest_debug(Structure):
    """What is to end KVM_RUN. `debugreg` is struct kvm_guest_debug_arch: DR0 to DR3, and DR7 at its place."""

    _fields_ = [("control", c_uint32), ("pad", c_uint32), ("debugreg", c_uint64 * 8)]


KVM_SET_GUEST_DEBUG: Final = io.IOW(0x9B, sizeof(kvm_guest_debug))


def set_guest_debug(vcpu: Vcpu, control: int, addresses: Sequence[int] = (), dr7: int = 0) -> None:
    """Set it: flags KVM_GUESTDBG_*, and the debug registers of KVM_GUESTDBG_USE_HW_BP. Raises KvmError.

    The vCPU stands still, or the caller is its thread.
    """
    wanted = kvm_guest_debug(control)
    wanted.debugreg[: len(addresses)] = addresses
    wanted.debugreg[_DR7] = dr7
    io.kvm_call(f"debug the guest's vCPU {vcpu.index}", vcpu.fileno(), KVM_SET_GUEST_DEBUG, byref(wanted))


def inject_nmi(vcpu: Vcpu) -> None:
    """Let a vCPU that stands still take an NMI next. Raises KvmError."""
    io.kvm_call(f"inject an NMI into the guest's vCPU {vcpu.index}", vcpu.fileno(), io.KVM_NMI)
