"""The thread that raises announced lines, against real interrupt controllers."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from kvmbox import layout
from kvmbox.kvm import uapi
from kvmbox.kvm.system import Kvm
from tests.support.halves import half_of

pytestmark = pytest.mark.kvm


@pytest.mark.parametrize("is_high", [False, True])
def test_line_that_the_thread_raises_is_an_edge_for_the_8259(is_high: bool) -> None:
    half = half_of("compiled")
    if half is None:
        pytest.skip("the thread is compiled code")
    from kvmbox.accel.vmm import Lock

    with ExitStack() as stack:
        vm = stack.enter_context(stack.enter_context(Kvm.open()).create_vm())
        vm.set_identity_map_address(layout.KVM_IDENTITY_MAP_ADDRESS)
        vm.set_tss_address(layout.KVM_TSS_ADDRESS)
        vm.create_irqchip()
        clock = half.clock()
        router = half.router(clock)
        stack.callback(router.close)
        timer = router.rise_of(router.source(4))
        assert timer is not None
        timer.guarded_by(Lock())
        router.attach(vm.irq_line, vm.fileno())
        timer(int(is_high), 0)
        state = vm.get_irqchip(uapi.KVM_IRQCHIP_PIC_MASTER)
        state.pic.irr = 0  # what the level has done so far
        vm.set_irqchip(state)
        clock.release()
        router.start(cpu=None, confine=lambda: None)
        timer.announce(clock.now())
        router.close()  # ends with a last look at what is due
        assert vm.get_irqchip(uapi.KVM_IRQCHIP_PIC_MASTER).pic.irr == 1 << 4
        assert router.lines[4].raised == 1 + is_high
