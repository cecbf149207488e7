"""Interrupt lines of a machine from a snapshot, at the controllers of a real VM whose guest does not run.

And their ids, which a guest looks at.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from kvmbox import Machine
from kvmbox.host.interrupt_lines import InterruptRouter
from kvmbox.kvm import uapi
from kvmbox.kvm.system import Kvm
from kvmbox.kvm.vcpu import Vcpu
from kvmbox.parts.snapshot import vcpu_state
from kvmbox.parts.snapshot.description import HostFacts, Times
from kvmbox.parts.snapshot.file import SnapshotFile
from kvmbox.parts.snapshot.restore import SnapshotOrigin
from kvmbox.run.machine.guest_vm import GuestVm
from kvmbox.run.vcpu.processors import Processors
from tests.support.patience import patience

pytestmark = pytest.mark.kvm

PATIENCE_S = patience(60.0)
VECTOR = 0x40
TIMER, PIN = 0, 2
SPURIOUS, REQUESTS = 0xF0, 0x200 + VECTOR // 32 * 0x10  # registers of the local APIC


@contextmanager
def machine(kvm: Kvm) -> Iterator[Any]:
    """A VM with interrupt controllers and one CPU, as a `GuestVm` has them."""
    with kvm.create_vm() as vm:
        vm.create_irqchip()
        vm.route_as_pc()
        processors = Processors(kvm, vm, cpus=1, cpu="host")
        yield SimpleNamespace(
            vm=vm, vcpus=processors.vcpus, is_pvm=processors.is_pvm, leaves=processors.leaves
        )


def requested(vcpu: Vcpu) -> bool:
    """Whether the CPU's local APIC has a request of the timer's interrupt."""
    return bool(bytes(vcpu.get_lapic())[REQUESTS] & 1 << VECTOR % 32)


def set_register(vcpu: Vcpu, register: int, value: int) -> None:
    data = bytearray(bytes(vcpu.get_lapic()))
    data[register : register + 4] = value.to_bytes(4, "little")
    vcpu.set_lapic(uapi.kvm_lapic_state.from_buffer_copy(data))


def saved(kvm: Kvm, guest: Any) -> SnapshotOrigin:
    """A snapshot of the machine, without a file."""
    xsave_size, vcpu = guest.vm.xsave_size(), guest.vcpus[0]
    state = vcpu_state.capture(vcpu, kvm.msr_indices(), xsave_size=xsave_size, sregs2=True)
    description = SimpleNamespace(
        host=HostFacts(guest.is_pvm, 0, xsave_size, True, tuple(guest.leaves)),
        boot=SimpleNamespace(format="real"),
        times=Times(0, 1, 1, 0, None),
        pics=tuple(bytes(guest.vm.get_irqchip(chip)) for chip in uapi.KVM_IRQCHIPS),
    )
    file = SimpleNamespace(description=description, section=lambda _name: vcpu_state.encode(state))
    return SnapshotOrigin(cast(SnapshotFile, file))


def test_edge_that_was_delivered_is_not_seen_again_and_the_next_one_is() -> None:
    with Kvm.open() as kvm, machine(kvm) as first, machine(kvm) as second:
        vcpu = first.vcpus[0]
        set_register(vcpu, SPURIOUS, 0x1FF)
        ioapic = first.vm.get_irqchip(uapi.KVM_IRQCHIP_IOAPIC)
        ioapic.ioapic.redirtbl[PIN] = VECTOR
        first.vm.set_irqchip(ioapic)
        first.vm.irq_line(TIMER, 1)
        assert requested(vcpu)
        set_register(vcpu, REQUESTS, 0)  # the guest has handled it, and the line is still high

        saved(kvm, first).apply(kvm, cast(GuestVm, second))
        router = InterruptRouter()
        timer = router.source(TIMER)
        router.resume([(TIMER, 1, -1)])
        router.attach(second.vm.irq_line, are_set=True)
        assert not requested(second.vcpus[0])
        timer(0, 0)
        assert not requested(second.vcpus[0])
        timer(1, 0)
        assert requested(second.vcpus[0])


def test_request_that_was_not_handled_is_still_there() -> None:
    with Kvm.open() as kvm, machine(kvm) as first, machine(kvm) as second:
        set_register(first.vcpus[0], SPURIOUS, 0x1FF)
        set_register(first.vcpus[0], REQUESTS, 1 << VECTOR % 32)
        saved(kvm, first).apply(kvm, cast(GuestVm, second))
        assert requested(second.vcpus[0])


def test_io_apic_has_the_id_that_the_tables_say_when_a_machine_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "a.snap"
    with Machine("acpi", cpus=2, snapshot_when=[f"RSDP={path}"], snapshot_stop=True) as vm:
        assert vm.wait(PATIENCE_S).status == 0
    with Machine.from_snapshot(path) as vm:
        assert vm.wait(PATIENCE_S).status == 85  # it has looked at the register: "all found"
