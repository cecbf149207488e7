"""What is asked of KVM for the vCPUs of a machine, and what KVM is told."""

from __future__ import annotations

from typing import Any, cast

import pytest

from kvmbox.base.errors import KvmError
from kvmbox.kvm import uapi
from kvmbox.kvm.cpuid.leaves import Leaf, find
from kvmbox.run.vcpu.processors import Processors, claimed_leaves, entry_of, leaves_of, shown_leaves

CX16 = 1 << 13
DEADLINE = 1 << 24
HYPERVISOR = 1 << 31
LEAVES = [
    Leaf(0, 0, False, 0xB, 0, 0, 0),
    Leaf(1, 0, False, 0xA0671, 0x0800, CX16, 0),
    Leaf(0xD, 1, True, 1, 2, 3, 4),
]


class FakeKvm:
    """A KVM that claims LEAVES."""

    def __init__(self, **capabilities: int) -> None:
        self.leaves = LEAVES
        self.capabilities = {getattr(uapi, f"KVM_CAP_{name}"): value for name, value in capabilities.items()}

    def check_extension(self, capability: int) -> int:
        return self.capabilities.get(capability, 0)

    def supported_cpuid(self) -> list[uapi.kvm_cpuid_entry2]:
        return [entry_of(leaf) for leaf in self.leaves]


class FakeVm:
    def __init__(self) -> None:
        self.made: list[Any] = []

    def create_vcpu(self, index: int) -> Any:
        self.made.append(FakeVcpu(index))
        return self.made[-1]


class FakeVcpu:
    """Shows cx16 whatever it is told, as PVM shows some features."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.leaves: list[Leaf] = []
        self.shows_rip = False

    def show_rip(self) -> None:
        self.shows_rip = True

    def get_msrs(self, _indices: object) -> dict[int, int]:
        return {}

    def set_cpuid(self, entries: list[uapi.kvm_cpuid_entry2]) -> None:
        self.leaves = leaves_of(entries)

    def get_cpuid(self) -> list[uapi.kvm_cpuid_entry2]:
        return [
            entry_of(leaf.with_registers({"ecx": leaf.ecx | CX16}) if leaf.function == 1 else leaf)
            for leaf in self.leaves
        ]


AMD = Leaf(0, 0, False, 0xD, 0x6874_7541, 0x444D_4163, 0x6974_6E65)
INTEL = Leaf(0, 0, False, 0xD, 0x756E_6547, 0x6C65_746E, 0x4965_6E69)


@pytest.mark.parametrize(("leaf", "known", "shown"), [(AMD, 1, True), (AMD, 0, False), (INTEL, 1, False)])
def test_rip_is_shown_where_a_triple_fault_resets_the_cpu(leaf: Leaf, known: int, shown: bool) -> None:
    kvm, vm = FakeKvm(SYNC_REGS=known), FakeVm()
    kvm.leaves = [leaf, *LEAVES[1:]]
    Processors(cast(Any, kvm), cast(Any, vm), cpus=2, cpu="host")
    assert [vcpu.shows_rip for vcpu in vm.made] == [shown, shown]


def processors(cpus: int, cpu: str, **capabilities: int) -> tuple[Processors, FakeVm]:
    vm = FakeVm()
    return Processors(cast(Any, FakeKvm(**capabilities)), cast(Any, vm), cpus=cpus, cpu=cpu), vm


def test_leaves_and_entries_are_the_same_both_ways() -> None:
    assert leaves_of([entry_of(leaf) for leaf in LEAVES]) == LEAVES
    assert [entry_of(leaf).flags for leaf in LEAVES] == [0, 0, uapi.KVM_CPUID_FLAG_SIGNIFCANT_INDEX]


@pytest.mark.parametrize("has", [0, 1])
def test_hypervisor_is_always_claimed_and_the_deadline_timer_where_kvm_has_one(has: int) -> None:
    basic = find(claimed_leaves(cast(Any, FakeKvm(TSC_DEADLINE_TIMER=has))), 1)
    assert basic is not None
    assert basic.ecx == HYPERVISOR | (CX16 | DEADLINE if has else CX16)


def test_each_vcpu_is_told_its_own_place() -> None:
    _, vm = processors(3, "max")
    for number, vcpu in enumerate(vm.made):
        basic, cores = find(vcpu.leaves, 1), find(vcpu.leaves, 0xB, 1)
        assert basic is not None
        assert cores is not None
        assert (basic.ebx, cores.edx) == (number << 24 | 3 << 16 | 0x0800, number)


@pytest.mark.parametrize(
    ("cpu", "not_hidden"), [("host", []), ("max", []), ("max,-cx16", ["cx16"]), ("none", ["cx16"])]
)
def test_feature_that_kvm_does_not_hide_is_known(cpu: str, not_hidden: list[str]) -> None:
    made, _ = processors(1, cpu)
    assert made.not_hidden == not_hidden


def test_limits_of_pvm_hide_features_for_it_alone_and_for_the_default_alone() -> None:
    shown = {
        (cpu, pvm): find(shown_leaves(cpu, LEAVES, on_pvm=pvm), 1)
        for cpu in ("host", "max")
        for pvm in (False, True)
    }
    has = {key: leaf is not None and bool(leaf.ecx & CX16) for key, leaf in shown.items()}
    assert has == {("host", False): True, ("host", True): False, ("max", False): True, ("max", True): True}


def test_more_vcpus_than_kvm_has_are_refused() -> None:
    processors(4, "host", MAX_VCPUS=4)
    with pytest.raises(KvmError, match="--cpus 5: a machine of this host's KVM has 4 vCPUs at most"):
        processors(5, "host", MAX_VCPUS=4)
