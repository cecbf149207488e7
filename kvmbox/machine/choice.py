"""The choice between the pure and the compiled hot path, for what belongs to a machine: see `accel`."""

from __future__ import annotations

from kvmbox.accel.choice import is_compiled
from kvmbox.host.clock import GuestClock
from kvmbox.host.interrupts import InterruptRouter
from kvmbox.machine.coalescing import CoalescedRing
from kvmbox.machine.run_loop import VcpuLoop


def loop_kind() -> type[VcpuLoop]:
    """The class of run loops."""
    if not is_compiled():
        return VcpuLoop
    from kvmbox.machine.compiled import CompiledLoop

    return CompiledLoop


def ring_kind() -> type[CoalescedRing]:
    """The class of rings of coalesced writes."""
    if not is_compiled():
        return CoalescedRing
    from kvmbox.machine.compiled import CompiledRing

    return CompiledRing


def guest_clock() -> GuestClock:
    """A clock that the chosen loop and channels can read at once."""
    if not is_compiled():
        return GuestClock()
    from kvmbox.machine.compiled import CompiledClock

    return CompiledClock()


def interrupt_router(clock: GuestClock) -> InterruptRouter:
    """The interrupt lines of a machine whose time is `clock`, which is `guest_clock`'s."""
    if not is_compiled():
        return InterruptRouter()
    from kvmbox.machine.compiled import CompiledClock, CompiledRouter

    assert isinstance(clock, CompiledClock)
    return CompiledRouter(clock)
