"""Structures of <linux/kvm.h> and <asm/kvm.h> (x86) for the state of a vCPU that a plain run never asks for.

They are apart from `uapi` because each takes 50 µs to make. `uapi` finds them here.
"""

from __future__ import annotations

from ctypes import Structure, c_char, c_uint8, c_uint16, c_uint32, c_uint64
from functools import lru_cache
from typing import Any, Final

KVM_APIC_REG_SIZE: Final = 0x400
KVM_MAX_XCRS: Final = 16


class kvm_xcr(Structure):
    """One extended control register."""

    _fields_ = [("xcr", c_uint32), ("reserved", c_uint32), ("value", c_uint64)]


class kvm_xcrs(Structure):
    """The extended control registers: XCR0."""

    _fields_ = [
        ("nr_xcrs", c_uint32),
        ("flags", c_uint32),
        ("xcrs", kvm_xcr * KVM_MAX_XCRS),
        ("padding", c_uint64 * 16),
    ]


class kvm_xsave(Structure):
    """The area of XSAVE; in C more may follow (`kvm_xsave_area`)."""

    _fields_ = [("region", c_uint32 * 1024)]


class kvm_fpu(Structure):
    """x87 and SSE state."""

    _fields_ = [
        ("fpr", (c_uint8 * 16) * 8),
        ("fcw", c_uint16),
        ("fsw", c_uint16),
        ("ftwx", c_uint8),
        ("pad1", c_uint8),
        ("last_opcode", c_uint16),
        ("last_ip", c_uint64),
        ("last_dp", c_uint64),
        ("xmm", (c_uint8 * 16) * 16),
        ("mxcsr", c_uint32),
        ("pad2", c_uint32),
    ]


class kvm_lapic_state(Structure):
    """The local APIC's register page."""

    _fields_ = [("regs", c_char * KVM_APIC_REG_SIZE)]


class kvm_debugregs(Structure):
    """DR0-DR3, DR6 and DR7."""

    _fields_ = [
        ("db", c_uint64 * 4),
        ("dr6", c_uint64),
        ("dr7", c_uint64),
        ("flags", c_uint64),
        ("reserved", c_uint64 * 9),
    ]


class kvm_mp_state(Structure):
    """Whether a vCPU runs, is halted or waits for SIPI (KVM_MP_STATE_*)."""

    _fields_ = [("mp_state", c_uint32)]


class kvm_vcpu_events_exception(Structure):
    """The `exception` member of kvm_vcpu_events."""

    _fields_ = [
        *[(name, c_uint8) for name in ("injected", "nr", "has_error_code", "pending")],
        ("error_code", c_uint32),
    ]


class kvm_vcpu_events_interrupt(Structure):
    """The `interrupt` member of kvm_vcpu_events."""

    _fields_ = [(name, c_uint8) for name in ("injected", "nr", "soft", "shadow")]


class kvm_vcpu_events_nmi(Structure):
    """The `nmi` member of kvm_vcpu_events."""

    _fields_ = [(name, c_uint8) for name in ("injected", "pending", "masked", "pad")]


class kvm_vcpu_events_smi(Structure):
    """The `smi` member of kvm_vcpu_events."""

    _fields_ = [(name, c_uint8) for name in ("smm", "pending", "smm_inside_nmi", "latched_init")]


class kvm_vcpu_events_triple_fault(Structure):
    """The `triple_fault` member of kvm_vcpu_events."""

    _fields_ = [("pending", c_uint8)]


class kvm_vcpu_events(Structure):
    """Exceptions, interrupts, NMI and SMI that are pending or being delivered."""

    _fields_ = [
        ("exception", kvm_vcpu_events_exception),
        ("interrupt", kvm_vcpu_events_interrupt),
        ("nmi", kvm_vcpu_events_nmi),
        ("sipi_vector", c_uint32),
        ("flags", c_uint32),
        ("smi", kvm_vcpu_events_smi),
        ("triple_fault", kvm_vcpu_events_triple_fault),
        ("reserved", c_uint8 * 26),
        ("exception_has_payload", c_uint8),
        ("exception_payload", c_uint64),
    ]


class kvm_translation(Structure):
    """A guest-linear address and what the page tables make of it (KVM_TRANSLATE)."""

    _fields_ = [
        ("linear_address", c_uint64),
        ("physical_address", c_uint64),
        ("valid", c_uint8),
        ("writeable", c_uint8),
        ("usermode", c_uint8),
        ("pad", c_uint8 * 5),
    ]


@lru_cache(maxsize=8)
def kvm_xsave_area(size: int) -> type[Any]:
    """The type `struct kvm_xsave` with an area of `size` bytes, which KVM_CAP_XSAVE2 tells."""
    return type("kvm_xsave", (Structure,), {"_fields_": [("region", c_uint32 * (size // 4))]})
