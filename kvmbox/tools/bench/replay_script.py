"""The accesses that `bench --exit none` replays, each as the exits that it causes."""

from __future__ import annotations

from typing import Final, NamedTuple

from kvmbox.base import layout
from kvmbox.kvm import uapi

COM1: Final = layout.COM_PORTS["COM1"]
LSR: Final = COM1 + 5
DOT: Final = ord(".")
RTC_A: Final = 10
COALESCED: Final = 1 << 63


def in_(port: int, size: int = 1) -> tuple[int, int]:
    """An IN from `port`, as `ReplayCore` has it."""
    return uapi.KVM_EXIT_IO_IN | size << 8 | port << 16 | 1 << 32, 0


def out(port: int, value: int, *, coalesced: bool = False) -> tuple[int, int]:
    """An OUT of a byte; `coalesced`: KVM puts it into the ring, and it exits only if that is full."""
    return uapi.KVM_EXIT_IO_OUT | 1 << 8 | port << 16 | 1 << 32, value | (COALESCED if coalesced else 0)


class Access(NamedTuple):
    """An access that is measured: the exits that `units` of it cause, and those before the first of them."""

    title: str
    exits: tuple[tuple[int, int], ...]
    before: tuple[tuple[int, int], ...] = ()
    units: int = 1


FIFO: Final = (in_(COM1 + 2), *[out(COM1, DOT)] * 16)
"""The interrupt is acknowledged, and 16 characters follow."""

ACCESSES: Final = (
    Access("read of the line status register", (in_(LSR),)),
    Access("output, polled, per byte", (in_(LSR), out(COM1, DOT, coalesced=True))),
    Access("output, blind, per byte", (out(COM1, DOT, coalesced=True),)),
    Access("debug console, per byte", (out(layout.DEBUGCON_PORTS[0], DOT, coalesced=True),)),
    Access(
        "RTC: index and data",
        (out(layout.RTC_INDEX_PORT, RTC_A, coalesced=True), in_(layout.RTC_INDEX_PORT + 1)),
    ),
    Access("inl from a byte device", (in_(COM1 + 4, 4),)),
    Access("a write that the device has to see", (out(COM1 + 7, DOT),)),
    Access("output, interrupts on, per byte", FIFO, before=(out(COM1 + 1, 2),), units=16),
    # With those of the modem as well, no write may be late. So it is where a machine has several CPUs.
    Access("the same, each a request", FIFO, before=(out(COM1 + 1, 10),), units=16),
)
"""The last two leave the UART with its interrupts on."""
