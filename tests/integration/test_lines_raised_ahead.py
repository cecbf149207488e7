"""The thread that raises announced lines, against real interrupt controllers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from kvmbox.base import layout
from kvmbox.contract.model import NO_RISE
from kvmbox.kvm import uapi
from kvmbox.kvm.system import Kvm
from tests.support.halves import half_of

pytestmark = pytest.mark.kvm


class Rig:
    """A virtual machine's interrupt controllers, and a timer on line 4 that the thread may raise."""

    def __init__(self, stack: ExitStack) -> None:
        half = half_of("compiled")
        if half is None:
            pytest.skip("the thread is compiled code")
        from kvmbox.fast.vmm import Lock

        self.vm = stack.enter_context(stack.enter_context(Kvm.open()).create_vm())
        self.vm.set_identity_map_address(layout.KVM_IDENTITY_MAP_ADDRESS)
        self.vm.set_tss_address(layout.KVM_TSS_ADDRESS)
        self.vm.create_irqchip()
        self.clock = half.clock()
        self.clock.release()
        self.router = half.router(self.clock)
        stack.callback(self.router.close)
        timer = self.router.rise_of(self.router.source(4))
        assert timer is not None
        self.timer = timer
        self.lock: Any = Lock()
        self.timer.guarded_by(self.lock)
        self.router.attach(self.vm.irq_line, self.vm.fileno())

    def start(self) -> None:
        self.router.start(cpu=None, confine=lambda: None)

    @property
    def requests(self) -> int:
        """The requests that the first 8259 has seen: an edge each."""
        irr: int = self.vm.get_irqchip(uapi.KVM_IRQCHIP_PIC_MASTER).pic.irr
        return irr

    def forget_requests(self) -> None:
        state = self.vm.get_irqchip(uapi.KVM_IRQCHIP_PIC_MASTER)
        state.pic.irr = 0
        self.vm.set_irqchip(state)


@pytest.fixture
def rig() -> Iterator[Rig]:
    with ExitStack() as stack:
        yield Rig(stack)


@pytest.mark.parametrize("is_high", [False, True])
def test_line_that_the_thread_raises_is_an_edge_for_the_8259(rig: Rig, is_high: bool) -> None:
    rig.timer(int(is_high), 0)
    rig.forget_requests()
    rig.start()
    rig.timer.announce(rig.clock.now())
    rig.router.close()  # ends with a last look at what is due
    assert rig.requests == 1 << 4
    assert rig.router.lines[4].raised == 1 + is_high


def test_guest_that_sets_its_timer_anew_at_the_last_moment_gets_no_interrupt(rig: Rig) -> None:
    rig.start()
    for _ in range(500):
        with (
            rig.lock
        ):  # a write of the guest is on its way: the thread comes, sees that it is time, and waits
            rig.timer.announce(rig.clock.now())
            for _ in range(50):
                rig.clock.now()
            rig.timer.announce(NO_RISE)
    rig.router.close()
    assert rig.requests == 0
