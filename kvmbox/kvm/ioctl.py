"""ioctl: the numbers of the KVM API, computed as <asm-generic/ioctl.h> does, and the one binding.

A number has the size of the structure that the request takes; `tests/unit/kvm/test_uapi_layout.py` compares.

`ioctl` raises OSError naming the request; `kvm_call` is for the set-up calls that a user may see fail and
translates once, to KvmError. Both may be called from any thread.
"""

from __future__ import annotations

import ctypes
import os
from typing import Any, Final

from kvmbox.base.errors import KvmError

KVMIO: Final = 0xAE

_IOC_WRITE: Final = 1  # the caller writes: the kernel reads the argument
_IOC_READ: Final = 2


def _ioc(direction: int, number: int, size: int) -> int:
    return direction << 30 | size << 16 | KVMIO << 8 | number


def _IO(number: int) -> int:
    return _ioc(0, number, 0)


def _IOR(number: int, size: int) -> int:
    return _ioc(_IOC_READ, number, size)


def IOW(number: int, size: int) -> int:
    """The number of an ioctl that reads an argument of `size` bytes; for modules beside this one, too."""
    return _ioc(_IOC_WRITE, number, size)


def _IOWR(number: int, size: int) -> int:
    return _ioc(_IOC_READ | _IOC_WRITE, number, size)


# On the /dev/kvm descriptor.
KVM_GET_API_VERSION: Final = _IO(0x00)
KVM_CREATE_VM: Final = _IO(0x01)
KVM_GET_MSR_INDEX_LIST: Final = _IOWR(0x02, 4)
KVM_CHECK_EXTENSION: Final = _IO(0x03)
KVM_GET_VCPU_MMAP_SIZE: Final = _IO(0x04)
KVM_GET_SUPPORTED_CPUID: Final = _IOWR(0x05, 8)

# On a VM descriptor.
KVM_CREATE_VCPU: Final = _IO(0x41)
KVM_SET_USER_MEMORY_REGION: Final = IOW(0x46, 32)
KVM_SET_TSS_ADDR: Final = _IO(0x47)
KVM_SET_IDENTITY_MAP_ADDR: Final = IOW(0x48, 8)
KVM_CREATE_IRQCHIP: Final = _IO(0x60)
KVM_IRQ_LINE: Final = IOW(0x61, 8)
KVM_GET_IRQCHIP: Final = _IOWR(0x62, 520)
KVM_SET_IRQCHIP: Final = _IOR(0x63, 520)  # sic: the header says _IOR
KVM_REGISTER_COALESCED_MMIO: Final = IOW(0x67, 16)
KVM_UNREGISTER_COALESCED_MMIO: Final = IOW(0x68, 16)
KVM_SET_GSI_ROUTING: Final = IOW(0x6A, 8)
KVM_SET_CLOCK: Final = IOW(0x7B, 48)
KVM_GET_CLOCK: Final = _IOR(0x7C, 48)

# On a vCPU descriptor.
KVM_RUN: Final = _IO(0x80)
KVM_NMI: Final = _IO(0x9A)
KVM_GET_REGS: Final = _IOR(0x81, 144)
KVM_SET_REGS: Final = IOW(0x82, 144)
KVM_GET_SREGS: Final = _IOR(0x83, 312)
KVM_SET_SREGS: Final = IOW(0x84, 312)
KVM_TRANSLATE: Final = _IOWR(0x85, 24)
KVM_GET_MSRS: Final = _IOWR(0x88, 8)
KVM_SET_MSRS: Final = IOW(0x89, 8)
KVM_SET_SIGNAL_MASK: Final = IOW(0x8B, 4)
KVM_GET_FPU: Final = _IOR(0x8C, 416)
KVM_SET_FPU: Final = IOW(0x8D, 416)
KVM_GET_LAPIC: Final = _IOR(0x8E, 1024)
KVM_SET_LAPIC: Final = IOW(0x8F, 1024)
KVM_SET_CPUID2: Final = IOW(0x90, 8)
KVM_GET_CPUID2: Final = _IOWR(0x91, 8)
KVM_GET_MP_STATE: Final = _IOR(0x98, 4)
KVM_SET_MP_STATE: Final = IOW(0x99, 4)
KVM_GET_VCPU_EVENTS: Final = _IOR(0x9F, 64)
KVM_SET_VCPU_EVENTS: Final = IOW(0xA0, 64)
KVM_GET_DEBUGREGS: Final = _IOR(0xA1, 128)
KVM_SET_DEBUGREGS: Final = IOW(0xA2, 128)
KVM_GET_TSC_KHZ: Final = _IO(0xA3)
KVM_GET_XSAVE: Final = _IOR(0xA4, 4096)
KVM_SET_XSAVE: Final = IOW(0xA5, 4096)
KVM_GET_XCRS: Final = _IOR(0xA6, 392)
KVM_SET_XCRS: Final = IOW(0xA7, 392)
KVM_GET_SREGS2: Final = _IOR(0xCC, 320)
KVM_SET_SREGS2: Final = IOW(0xCD, 320)
KVM_GET_XSAVE2: Final = _IOR(0xCF, 4096)

REQUEST_NAMES: Final[dict[int, str]] = {
    value: name
    for name, value in globals().items()
    if name.startswith("KVM_") and isinstance(value, int)  # KVMIO itself has no underscore
}

# CDLL, never PyDLL: the GIL must be released while a vCPU runs. `CDLL(None)` is the libc that is already
# loaded. The function object is ours alone (indexing makes a new one), so nobody else's argtypes interfere.
libc: Final = ctypes.CDLL(None, use_errno=True)
raw_ioctl: Final = libc["ioctl"]
"""int ioctl(int, unsigned long, void *) for hot paths: returns -1 and leaves errno in ctypes.get_errno()."""
# SAFETY: ioctl is variadic in C; on x86-64 integer and pointer arguments travel in the same registers with
# or without a prototype, and libffi sets AL, the count of vector registers, on every call.
raw_ioctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p)
raw_ioctl.restype = ctypes.c_int


def request_name(request: int) -> str:
    """The C name of an ioctl request, or its number."""
    return REQUEST_NAMES.get(request, f"{request:#x}")


def ioctl(descriptor: int, request: int, argument: Any = None) -> int:
    """Call ioctl; returns its result, >= 0. OSError with `filename` = "ioctl KVM_..." if it is refused.

    `argument` is an int, None, or what `ctypes.byref` gives. Nothing is retried, EINTR neither.
    """
    # SAFETY: every request in this module comes with the structure that its number was computed from; the
    # caller's reference keeps the structure alive for the call, and KVM keeps no pointer to it.
    result: int = raw_ioctl(descriptor, request, argument)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), f"ioctl {request_name(request)}")
    return result


def kvm_call(
    doing: str, descriptor: int, request: int, argument: Any = None, *, hint: str | None = None
) -> int:
    """`ioctl`, but KvmError "cannot {doing}: ioctl KVM_...: reason" (its cause is the OSError)."""
    try:
        return ioctl(descriptor, request, argument)
    except OSError as error:
        raise KvmError(f"cannot {doing}: {error.filename}: {error.strerror}", hint=hint) from error
