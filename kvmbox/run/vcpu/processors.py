"""The vCPUs of a machine: how many, what CPUID shows on each, and what each of them is before its first step.

The first vCPU is the bootstrap processor. KVM lets the others wait until the guest sends INIT and a start-up
IPI through its local APIC (Documentation/virt/kvm/api.rst, KVM_SET_MP_STATE; Intel SDM volume 3, "MP
Initialization Protocol"). Their threads sleep in KVM_RUN meanwhile, so an unused vCPU costs no time.

Time-stamp counters. KVM synchronises the counter of a new vCPU with that of the last one
(arch/x86/kvm/x86.c, kvm_synchronize_tsc). Nobody writes IA32_TSC later, which could part them. The guest
`smp` measures how far apart the counters are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from kvmbox.base.errors import KvmError
from kvmbox.boot.cpu_state import INITIAL_TSS, NO_LDT, RFLAGS_ALWAYS, CpuState
from kvmbox.kvm import uapi
from kvmbox.kvm.cpuid import pvm
from kvmbox.kvm.cpuid.leaves import AMD_VENDORS, ECX, Leaf, vendor
from kvmbox.kvm.cpuid.topology import place
from kvmbox.kvm.system import Kvm, is_pvm
from kvmbox.kvm.vcpu import Vcpu
from kvmbox.kvm.vm import Vm

_TSC_DEADLINE_TIMER: Final = 1 << 24  # leaf 1, ECX
_HYPERVISOR: Final = 1 << 31


class Processors:
    """The vCPUs of one virtual machine, and what is known of them."""

    def __init__(self, kvm: Kvm, vm: Vm, *, cpus: int, cpu: str) -> None:
        """Make them. `cpu` is a model as `--cpu` spells it. Raises KvmError and UsageError.

        The interrupt controllers exist already: each vCPU gets its local APIC from them.
        """
        most = kvm.check_extension(uapi.KVM_CAP_MAX_VCPUS)
        if most and cpus > most:
            raise KvmError(f"--cpus {cpus}: a machine of this host's KVM has {most} vCPUs at most")
        self.vcpus: list[Vcpu] = [vm.create_vcpu(index) for index in range(cpus)]
        first = self.vcpus[0]
        self.is_pvm = is_pvm(first)
        claimed = claimed_leaves(kvm)
        # KVM on AMD-V resets a vCPU before it reports a triple fault: this is what is left of it.
        if not self.is_pvm and vendor(claimed) in AMD_VENDORS and kvm.check_extension(uapi.KVM_CAP_SYNC_REGS):
            for vcpu in self.vcpus:
                vcpu.show_rip()
        shown = shown_leaves(cpu, claimed, on_pvm=self.is_pvm)
        self.leaves: list[Leaf] = place(shown, 0, cpus)
        """What CPUID shows on the first vCPU."""
        for vcpu in self.vcpus:
            leaves = self.leaves if vcpu.index == 0 else place(shown, vcpu.index, cpus)
            vcpu.set_cpuid([entry_of(leaf) for leaf in leaves])
        self.not_hidden: list[str] = []
        """The features that `cpu` hides and that the guest sees all the same: KVM ignores the request."""
        if cpu not in ("host", "max"):
            from kvmbox.kvm.cpuid.cpu_models import still_shown

            self.not_hidden = still_shown(shown, leaves_of(first.get_cpuid()))


def apply_state(vcpu: Vcpu, state: CpuState) -> None:
    """Give a vCPU its first registers. Raises KvmError."""
    sregs = vcpu.get_sregs()
    segments = {"cs": state.cs, "ss": state.ss, "tr": INITIAL_TSS, "ldt": NO_LDT}
    for name, source in (segments | dict.fromkeys(("ds", "es", "fs", "gs"), state.data)).items():
        target = getattr(sregs, name)
        for field, value in source.as_dict().items():
            setattr(target, field, value)
        target.unusable = 0 if source.present else 1
    for table, wanted in ((sregs.gdt, state.gdt), (sregs.idt, state.idt)):
        table.base, table.limit = wanted.base, wanted.limit
    sregs.cr0, sregs.cr3, sregs.cr4, sregs.efer = state.cr0, state.cr3, state.cr4, state.efer
    vcpu.set_sregs(sregs)
    general = {name: getattr(state, name) for name in ("rax", "rbx", "rdx", "rsi", "rdi", "rsp", "rip")}
    vcpu.set_regs(uapi.kvm_regs(rflags=RFLAGS_ALWAYS, **general))


def claimed_leaves(kvm: Kvm) -> list[Leaf]:
    """What KVM says that it can show a guest whose interrupt controllers are in the kernel.

    KVM_GET_SUPPORTED_CPUID leaves out the timer that needs these (api.rst, KVM_CAP_TSC_DEADLINE_TIMER). That
    of Linux 6.12 also leaves out the bit that says that there is a hypervisor, which is true of every guest.
    """
    more = _HYPERVISOR
    if kvm.check_extension(uapi.KVM_CAP_TSC_DEADLINE_TIMER):
        more |= _TSC_DEADLINE_TIMER
    return [
        leaf.with_registers({ECX: leaf.ecx | more}) if leaf.function == 1 else leaf
        for leaf in leaves_of(kvm.supported_cpuid())
    ]


def shown_leaves(cpu: str, claimed: Sequence[Leaf], *, on_pvm: bool) -> list[Leaf]:
    """`claimed` as the model `cpu` shows it. Raises KvmError and UsageError."""
    if cpu == "max" or (cpu == "host" and not on_pvm):
        return list(claimed)  # names of features are not needed, and their table is not loaded
    if cpu == "host":
        return pvm.usual(claimed)
    from kvmbox.kvm.cpuid.backend_limits import PVM
    from kvmbox.kvm.cpuid.cpu_models import apply, parse_model

    return apply(parse_model(cpu), claimed, set(PVM) if on_pvm else set())


def leaves_of(entries: Sequence[uapi.kvm_cpuid_entry2]) -> list[Leaf]:
    """KVM's entries as values."""
    return [
        Leaf(
            entry.function,
            entry.index,
            bool(entry.flags & uapi.KVM_CPUID_FLAG_SIGNIFCANT_INDEX),
            entry.eax,
            entry.ebx,
            entry.ecx,
            entry.edx,
        )
        for entry in entries
    ]


def entry_of(leaf: Leaf) -> uapi.kvm_cpuid_entry2:
    """A leaf as KVM's entry."""
    flags = uapi.KVM_CPUID_FLAG_SIGNIFCANT_INDEX if leaf.indexed else 0
    return uapi.kvm_cpuid_entry2(leaf.function, leaf.index, flags, leaf.eax, leaf.ebx, leaf.ecx, leaf.edx)
