"""The choice between the pure and the compiled hot path, for what belongs to a machine: `base.compiled`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvmbox.base.compiled import compiled, is_compiled, kind
from kvmbox.host.interrupt_lines import InterruptRouter
from kvmbox.host.time.guest_clock import GuestClock
from kvmbox.run.vcpu.coalesced_ring import CoalescedRing
from kvmbox.run.vcpu.run_loop import VcpuLoop

if TYPE_CHECKING:
    from kvmbox.remote.published.data_window import DataWindow


def loop_kind() -> type[VcpuLoop]:
    """The class of run loops."""
    return kind(VcpuLoop, "loop", "CompiledLoop")


def ring_kind() -> type[CoalescedRing]:
    """The class of rings of coalesced writes."""
    return kind(CoalescedRing, "loop", "CompiledRing")


def guest_clock() -> GuestClock:
    """A clock that the chosen loop and channels can read at once."""
    return kind(GuestClock, "loop", "CompiledClock")()


def interrupt_router(clock: GuestClock) -> InterruptRouter:
    """The interrupt lines of a machine whose time is `clock`, which is `clock`'s."""
    if not is_compiled():
        return InterruptRouter()
    found: InterruptRouter = compiled("loop", "CompiledRouter")(clock)
    return found


def window_kind() -> type[DataWindow]:
    """The class of windows of devices."""
    from kvmbox.remote.published.data_window import DataWindow

    return kind(DataWindow, "window", "CompiledWindow")
