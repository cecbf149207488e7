"""When only lines that kvmbox raises can wake a halted guest."""

from __future__ import annotations

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import pytest

from kvmbox.host.interrupt_lines import InterruptRouter
from kvmbox.kvm import uapi
from kvmbox.run.vcpu.idle_slices import LVT_TIMER, IdleSlices

TIMER_LINE, CLOCK_LINE = 0, 8
MASKED = 1 << 16


class Machine:
    """The clock's line is masked. `entries` are those of the local vector tables for the timer."""

    def __init__(self, *entries: int, pci: object = None) -> None:
        self.router = InterruptRouter()
        self.lines = {gsi: self.router.source(gsi) for gsi in (TIMER_LINE, CLOCK_LINE)}
        vcpus = [SimpleNamespace(vcpu=SimpleNamespace(get_lapic=self._lapic(entry))) for entry in entries]
        guest = SimpleNamespace(vm=SimpleNamespace(are_masked=self._are_masked))
        devices: Any = SimpleNamespace(router=self.router, pci=pci)
        boot: Any = SimpleNamespace(guest=guest, vcpus=vcpus)
        self.sleep = IdleSlices(devices, boot)

    @staticmethod
    def _lapic(entry: int) -> Any:
        def get_lapic() -> uapi.kvm_lapic_state:
            page = bytes(LVT_TIMER) + entry.to_bytes(4, "little")
            return uapi.kvm_lapic_state.from_buffer_copy(page.ljust(1024, b"\0"))

        return get_lapic

    @staticmethod
    def _are_masked(lines: Iterable[int]) -> bool:
        return set(lines) <= {CLOCK_LINE}


def test_sleep_lasts_while_nothing_rises_that_the_guest_may_hear() -> None:
    machine = Machine(MASKED, MASKED | 0x20)
    assert machine.sleep.lasts()
    machine.lines[CLOCK_LINE](1, 0)
    assert machine.sleep.lasts()
    machine.lines[TIMER_LINE](1, 0)
    assert not machine.sleep.lasts()
    machine.lines[TIMER_LINE](0, 0)
    assert not machine.sleep.lasts()


@pytest.mark.parametrize("entries", [(0x20,), (MASKED, 0x40020)])
def test_timer_of_a_local_apic_may_end_it_at_any_time(entries: tuple[int, ...]) -> None:
    assert not Machine(*entries).sleep.lasts()


def test_functions_on_a_pci_bus_may_end_it_by_messages() -> None:
    assert not Machine(MASKED, pci=object()).sleep.lasts()
