"""Lets a small guest try one instruction of each CPU feature, to see what really runs: `kvmbox doctor --cpu`.

The guest is in 64-bit mode at privilege level 0, which is where a kernel uses these instructions, and where a
KVM backend without hardware virtualization emulates each of them. Without interrupt descriptors any exception
is a triple fault.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from kvmbox.base import layout
from kvmbox.base.memory import GuestMemory
from kvmbox.base.value_classes import Value
from kvmbox.boot.boot_area import BootArea
from kvmbox.boot.cpu_state import CpuState
from kvmbox.boot.entry_state import gdt, long_mode_state, page_tables
from kvmbox.kvm import uapi
from kvmbox.kvm.cpuid.dependencies import missing
from kvmbox.kvm.cpuid.feature_probes import PROBES, RBX, Probe
from kvmbox.kvm.cpuid.features import FEATURES, shown_in
from kvmbox.kvm.cpuid.leaves import Leaf, find
from kvmbox.kvm.cpuid.topology import place
from kvmbox.kvm.system import Kvm, is_pvm
from kvmbox.kvm.vcpu import Vcpu
from kvmbox.run.vcpu.processors import apply_state, claimed_leaves, entry_of, leaves_of, shown_leaves

_MEMORY: Final = 1 << 20
_AREA: Final = BootArea()
_CODE: Final = _AREA.info
_DATA: Final = _CODE + layout.PAGE_SIZE
_DONE_PORT: Final = 0x10
_MOST_EXITS: Final = 64
"""More exits than a probe can have: one, but for those that a signal causes."""

_CR4_OF: Final = {"fsgsbase": 1 << 16, "xsave": 1 << 18}
_VECTOR_STATE: Final = 0xE7  # XCR0: x87, SSE, AVX, AVX-512
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
    for address, table in (gdt(_AREA), *page_tables(_AREA)):
        memory.write(address, table)
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


def _try(vcpu: Vcpu, memory: GuestMemory, probe: Probe, claimed: list[Leaf]) -> Trial:
    memory.write(_DATA, bytes(2 * layout.PAGE_SIZE))
    enable = _enable_state(claimed) if missing(probe.feature, {"xsave"}) else b""
    memory.write(
        _CODE, enable + bytes.fromhex(probe.code) + bytes((0xE6, _DONE_PORT))
    )  # out %al, $_DONE_PORT
    vcpu.set_cpuid([entry_of(leaf) for leaf in claimed])
    vcpu.set_mp_state(uapi.KVM_MP_STATE_RUNNABLE)
    apply_state(vcpu, _entry(leaves_of(vcpu.get_cpuid())))
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


def _entry(seen: list[Leaf]) -> CpuState:
    """64-bit mode, with what the features that the guest sees have to be enabled for."""
    state = long_mode_state(_AREA, _CODE, rbx=RBX, rsi=_DATA, rdi=_DATA + layout.PAGE_SIZE)
    names = shown_in(seen)
    return state.replaced(
        cr4=state.cr4 | sum(bit for name, bit in _CR4_OF.items() if name in names),
        efer=state.efer | (_EFER_NX if "nx" in names else 0),
    )
