"""Lets a small guest try one instruction of each CPU feature, to see what really runs: `kvmbox doctor --cpu`.

The guest is in 64-bit mode at privilege level 0, which is where a kernel uses these instructions, and where a
KVM backend without hardware virtualization emulates each of them. Without interrupt descriptors any exception
is a triple fault.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from kvmbox import layout
from kvmbox.kvm import uapi
from kvmbox.kvm.cpuid.dependencies import missing
from kvmbox.kvm.cpuid.features import FEATURES, shown_in
from kvmbox.kvm.cpuid.leaves import Leaf, find
from kvmbox.kvm.cpuid.probes import PROBES, RBX, Probe
from kvmbox.kvm.cpuid.topology import place
from kvmbox.kvm.system import Kvm, is_pvm
from kvmbox.kvm.vcpu import Vcpu
from kvmbox.lean import Value
from kvmbox.memory import GuestMemory
from kvmbox.run.processors import claimed_leaves, entry_of, leaves_of, shown_leaves

_MEMORY: Final = 1 << 20
_TABLES: Final = 0x1000  # three pages: PML4, PDPT, PD
_CODE: Final = 0x8000
_DATA: Final = 0x10000
_PAGE: Final = 0x1000
_DONE_PORT: Final = 0x10
_MOST_EXITS: Final = 64
"""More exits than a probe can have: one, but for those that a signal causes."""

_PRESENT_WRITABLE_USER: Final = 0x7
_LARGE_PAGE: Final = 0x80
_CR0: Final = 1 << 31 | 1 << 5 | 1 << 4 | 1 << 1 | 1  # PG, NE, ET, MP, PE
_CR4: Final = 1 << 5 | 1 << 9 | 1 << 10  # PAE, OSFXSR, OSXMMEXCPT
_CR4_OF: Final = {"fsgsbase": 1 << 16, "xsave": 1 << 18}
_VECTOR_STATE: Final = 0xE7  # XCR0: x87, SSE, AVX, AVX-512
_EFER: Final = 1 << 8 | 1 << 10  # LME, LMA
_EFER_NX: Final = 1 << 11


class Trial(Enum):
    """What came of the instructions of a feature."""

    RUNS = "runs"
    DIFFERS = "runs, with another result"
    FAULTS = "an exception"
    REFUSED = "refused by KVM's emulator"


class FeatureState(Value):
    """What is known of one feature. `trial` is None where the feature brings no instructions to try."""

    name: str
    claimed: bool
    trial: Trial | None
    shown: bool


def examine_features(kvm: Kvm, cpu: str) -> list[FeatureState]:
    """All features that KVM claims or that a guest with `--cpu` `cpu` sees, and what comes of their use.

    Raises KvmError.
    """
    memory = GuestMemory(_MEMORY)
    try:
        return _examine(kvm, memory, cpu)
    finally:
        memory.close()


def _examine(kvm: Kvm, memory: GuestMemory, cpu: str) -> list[FeatureState]:
    claimed = claimed_leaves(kvm)
    _write_tables(memory)
    with kvm.create_vm() as vm:
        vm.set_identity_map_address(layout.KVM_IDENTITY_MAP_ADDRESS)
        vm.set_tss_address(layout.KVM_TSS_ADDRESS)
        vm.map_memory(memory.regions)
        vm.create_irqchip()
        first = vm.create_vcpu(0)
        shown = place(shown_leaves(cpu, claimed, on_pvm=is_pvm(first)), 0, 1)
        first.set_cpuid([entry_of(leaf) for leaf in shown])
        seen = set(shown_in(leaves_of(first.get_cpuid())))
        names = set(shown_in(claimed))
        trials: dict[str, Trial] = {}
        for number, probe in enumerate(PROBES, 1):
            if probe.feature in names | seen:
                # A vCPU of its own: an exception shuts one down.
                with vm.create_vcpu(number) as vcpu:
                    trials[probe.feature] = _try(vcpu, memory, probe, claimed)
    return [
        FeatureState(name, name in names, trials.get(name), name in seen)
        for name in FEATURES
        if name in names or name in seen
    ]


def _write_tables(memory: GuestMemory) -> None:
    """Page tables that map the first 2 MiB to themselves."""
    entries = (
        (_TABLES, _TABLES + _PAGE | _PRESENT_WRITABLE_USER),
        (_TABLES + _PAGE, _TABLES + 2 * _PAGE | _PRESENT_WRITABLE_USER),
        (_TABLES + 2 * _PAGE, _LARGE_PAGE | _PRESENT_WRITABLE_USER),
    )
    for address, entry in entries:
        memory.write(address, entry.to_bytes(8, "little"))


def _try(vcpu: Vcpu, memory: GuestMemory, probe: Probe, claimed: list[Leaf]) -> Trial:
    memory.write(_DATA, bytes(2 * _PAGE))
    enable = _enable_state(claimed) if missing(probe.feature, {"xsave"}) else b""
    memory.write(
        _CODE, enable + bytes.fromhex(probe.code) + bytes((0xE6, _DONE_PORT))
    )  # out %al, $_DONE_PORT
    vcpu.set_cpuid([entry_of(leaf) for leaf in claimed])
    vcpu.set_mp_state(uapi.KVM_MP_STATE_RUNNABLE)
    seen = leaves_of(vcpu.get_cpuid())
    _enter_long_mode(vcpu, seen)
    vcpu.set_regs(uapi.kvm_regs(rip=_CODE, rsp=_CODE, rflags=2, rbx=RBX, rsi=_DATA, rdi=_DATA + _PAGE))
    for _ in range(_MOST_EXITS):
        if vcpu.run() == 0:
            break
    reason = vcpu.words32[2]
    if reason == uapi.KVM_EXIT_IO:
        differs = probe.result is not None and vcpu.get_regs().rax != probe.result
        return Trial.DIFFERS if differs else Trial.RUNS
    return Trial.FAULTS if reason == uapi.KVM_EXIT_SHUTDOWN else Trial.REFUSED


def _enable_state(claimed: list[Leaf]) -> bytes:
    """mov $XCR0, %eax; xor %edx, %edx; xor %ecx, %ecx; xsetbv; xor %eax, %eax: lets AVX and its kind run."""
    area = find(claimed, 0xD)
    state = 0 if area is None else area.eax & _VECTOR_STATE
    return b"\xb8" + state.to_bytes(4, "little") + bytes.fromhex("31d2 31c9 0f01d1 31c0")


def _enter_long_mode(vcpu: Vcpu, seen: list[Leaf]) -> None:
    sregs = vcpu.get_sregs()
    for name in ("cs", "ds", "es", "fs", "gs", "ss"):
        segment = getattr(sregs, name)
        segment.base, segment.limit, segment.selector = 0, 0xFFFF_FFFF, 0x10
        segment.type, segment.s, segment.present, segment.g, segment.dpl = 3, 1, 1, 1, 0
        segment.l, segment.db = 0, 1
    sregs.cs.selector, sregs.cs.type, sregs.cs.l, sregs.cs.db = 0x8, 0xB, 1, 0
    sregs.cr0, sregs.cr3, sregs.cr4 = _CR0, _TABLES, _CR4
    names = shown_in(seen)
    for name, bit in _CR4_OF.items():
        if name in names:
            sregs.cr4 |= bit
    extended = find(seen, 0x8000_0001)
    sregs.efer = _EFER | (_EFER_NX if extended is not None and "nx" in names else 0)
    vcpu.set_sregs(sregs)
