"""The choice between the pure and the compiled hot path, for what belongs to a machine: see `fast`."""

from __future__ import annotations

from kvmbox.choice import is_compiled
from kvmbox.host.clock import GuestClock
from kvmbox.host.interrupts import InterruptRouter
from kvmbox.run.coalescing import CoalescedRing
from kvmbox.run.vcpu_loop import VcpuLoop


def loop_kind() -> type[VcpuLoop]:
    """The class of run loops."""
    if not is_compiled():
        return VcpuLoop
    from kvmbox.fast.loop import CompiledLoop

    return CompiledLoop


def ring_kind() -> type[CoalescedRing]:
    """The class of rings of coalesced writes."""
    if not is_compiled():
        return CoalescedRing
    from kvmbox.fast.loop import CompiledRing

    return CompiledRing


def guest_clock() -> GuestClock:
    """A clock that the chosen loop and channels can read at once."""
    if not is_compiled():
        return GuestClock()
    from kvmbox.fast.loop import CompiledClock

    return CompiledClock()


def interrupt_router(clock: GuestClock) -> InterruptRouter:
    """The interrupt lines of a machine whose time is `clock`, which is `guest_clock`'s."""
    if not is_compiled():
        return InterruptRouter()
    from kvmbox.fast.loop import CompiledClock, CompiledRouter

    assert isinstance(clock, CompiledClock)
    return CompiledRouter(clock)
