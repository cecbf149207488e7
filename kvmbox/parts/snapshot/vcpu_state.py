"""The state of one vCPU as bytes: read from KVM, checked, and set again.

The order of setting matters (Documentation/virt/kvm/api.rst; the same in other VMMs):

1. the MP state, and the general and special registers: the base of the local APIC is one of these, and KVM
   must know whether the APIC is on before it gets the APIC's registers;
2. XCR0, then the extended state: XCR0 says which parts of it there may be;
3. debug registers and the local APIC;
4. model-specific registers: the deadline of the APIC's timer has a meaning only in the mode that the APIC is
   in;
5. events last: setting other registers may clear what is pending.

Model-specific registers. The host's KVM says which ones belong to a vCPU's state, and leaves out some that a
guest can write (memory types, machine checks): `MORE_MSRS`. Only those are set that a fresh vCPU does not
have already, because some cannot be set at all, and hold a constant of the backend. One that should change
and cannot is an error.

The time-stamp counter. KVM takes a value that is within a second of what the counter would show for an
attempt to make counters equal, and makes them equal (kvm_synchronize_tsc). That is what is wanted for all
vCPUs but the first. So the counter of the first one is set to a value far away before. Otherwise, on
kernels before 6.7, a guest that has not run for a second yet would get a counter that starts at zero. The
backend PVM shows the host's counter, and does as if it could be set.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from struct import Struct
from typing import Any, Final

from kvmbox.base.errors import KvmError, SnapshotFileError
from kvmbox.base.value_classes import Value
from kvmbox.kvm import uapi
from kvmbox.kvm.vcpu import Vcpu
from kvmbox.parts.snapshot.file_layout import damaged

MSR_TSC: Final = 0x10
_MSR_BIOS_SIGNATURE: Final = 0x8B  # what microcode the host has

MORE_MSRS: Final = (
    *range(0x200, 0x210),  # IA32_MTRR_PHYSBASEn, PHYSMASKn
    0x250,
    0x258,
    0x259,
    *range(0x268, 0x270),  # IA32_MTRR_FIX*
    0x2FF,  # IA32_MTRR_DEF_TYPE
    *range(0x400, 0x480),  # IA32_MCi_CTL, STATUS, ADDR, MISC of 32 banks
)

_FAR: Final = 1 << 42
"""More cycles than any counter makes in a second."""

_COUNTS: Final = Struct("<III")  # MP state, how many MSRs, bytes of extended state
_MSR: Final = Struct("<IQ")
MAX_MSRS: Final = 4096


class CpuSnapshot(Value):
    """All state of a vCPU. `sregs` are of one of two kinds (`HostFacts.sregs2`)."""

    regs: uapi.kvm_regs
    sregs: uapi.kvm_sregs | uapi.kvm_sregs2
    debugregs: uapi.kvm_debugregs
    events: uapi.kvm_vcpu_events
    lapic: uapi.kvm_lapic_state
    xcrs: uapi.kvm_xcrs
    xsave: bytes
    mp_state: int
    msrs: Mapping[int, int]


def capture(vcpu: Vcpu, indices: Sequence[int], *, xsave_size: int, sregs2: bool) -> CpuSnapshot:
    """The state of a vCPU that does not run and has completed its last exit. Raises KvmError."""
    # First of all: the time-stamp counter goes on meanwhile.
    msrs = vcpu.get_readable_msrs([MSR_TSC, *(index for index in indices if index != MSR_TSC), *MORE_MSRS])
    mp_state, events = vcpu.get_mp_state(), vcpu.get_vcpu_events()
    # KVM gives these and does not say so; it takes them only if it is told to.
    events.flags |= uapi.KVM_VCPUEVENT_VALID_NMI_PENDING
    if mp_state == uapi.KVM_MP_STATE_SIPI_RECEIVED:
        events.flags |= uapi.KVM_VCPUEVENT_VALID_SIPI_VECTOR
    return CpuSnapshot(
        vcpu.get_regs(),
        vcpu.get_sregs2() if sregs2 else vcpu.get_sregs(),
        vcpu.get_debugregs(),
        events,
        vcpu.get_lapic(),
        vcpu.get_xcrs(),
        vcpu.get_xsave(xsave_size),
        mp_state,
        msrs,
    )


def encode(state: CpuSnapshot) -> bytes:
    """The state as bytes: the C structures, the extended state, the MSRs."""
    structures = (state.regs, state.sregs, state.debugregs, state.events, state.lapic, state.xcrs)
    return b"".join(
        [
            _COUNTS.pack(state.mp_state, len(state.msrs), len(state.xsave)),
            *map(bytes, structures),
            state.xsave,
            *(_MSR.pack(index, value) for index, value in state.msrs.items()),
        ]
    )


def decode(data: bytes, *, xsave_size: int, sregs2: bool) -> CpuSnapshot:
    """What `encode` was given. Raises SnapshotFileError if it cannot have been given that."""
    fixed = _COUNTS.size + sum(map(ctypes.sizeof, kinds := _kinds(sregs2=sregs2)))
    if len(data) < fixed:
        raise damaged(f"the state of a CPU has {len(data)} bytes")
    mp_state, msr_count, xsave = _COUNTS.unpack_from(data)
    if xsave != xsave_size or msr_count > MAX_MSRS or len(data) != fixed + xsave + msr_count * _MSR.size:
        raise damaged(f"the state of a CPU has {len(data)} bytes")
    position = _COUNTS.size
    structures: list[Any] = []
    for kind in kinds:
        structures.append(kind.from_buffer_copy(data, position))
        position += ctypes.sizeof(kind)
    msrs = dict(_MSR.iter_unpack(data[position + xsave :]))
    if len(msrs) != msr_count:
        raise damaged("the state of a CPU has a register twice")
    regs, sregs, debugregs, events, lapic, xcrs = structures
    extended = data[position : position + xsave]
    return CpuSnapshot(regs, sregs, debugregs, events, lapic, xcrs, extended, mp_state, msrs)


def _kinds(*, sregs2: bool) -> tuple[type[ctypes.Structure], ...]:
    """The structures of a state, in their order."""
    return (
        uapi.kvm_regs,
        uapi.kvm_sregs2 if sregs2 else uapi.kvm_sregs,
        uapi.kvm_debugregs,
        uapi.kvm_vcpu_events,
        uapi.kvm_lapic_state,
        uapi.kvm_xcrs,
    )


def apply(vcpu: Vcpu, state: CpuSnapshot) -> None:
    """Give a fresh vCPU, whose CPUID is set, this state. Raises SnapshotFileError if KVM refuses."""
    try:
        vcpu.set_mp_state(state.mp_state)
        vcpu.set_regs(state.regs)
        if isinstance(state.sregs, uapi.kvm_sregs2):
            vcpu.set_sregs2(state.sregs)
        else:
            vcpu.set_sregs(state.sregs)
        vcpu.set_xcrs(state.xcrs)
        vcpu.set_xsave(state.xsave)
        vcpu.set_debugregs(state.debugregs)
        vcpu.set_lapic(state.lapic)
        _set_msrs(vcpu, state.msrs)
        vcpu.set_vcpu_events(state.events)
    except KvmError as error:
        raise SnapshotFileError(
            f"this host's KVM does not take the state of CPU {vcpu.index}: {error}",
            hint="start the snapshot on the same kind of CPU and kernel, or take a new one",
        ) from error


def _set_msrs(vcpu: Vcpu, wanted: Mapping[int, int]) -> None:
    fresh = vcpu.get_readable_msrs(list(wanted))
    changed = {
        index: value
        for index, value in wanted.items()
        if fresh.get(index) != value and index != _MSR_BIOS_SIGNATURE
    }
    if MSR_TSC in changed and vcpu.index == 0:
        vcpu.set_msrs({MSR_TSC: (changed[MSR_TSC] + _FAR) % (1 << 64)})
    if changed:
        vcpu.set_msrs(changed)
