"""What can wake a vCPU that sleeps, entry by entry of its interrupt controllers."""

from __future__ import annotations

from typing import Final

import pytest

from kvmbox.kvm import uapi
from kvmbox.kvm.wakeups import LVT_LINT0, is_masked, may_start, may_wake_halted

MASKED: Final = 1 << 16
FIXED, LOWEST, SMI, NMI, INIT, STARTUP, EXTINT = (mode << 8 for mode in (0, 1, 2, 4, 5, 6, 7))
PINS: Final = range(uapi.KVM_IOAPIC_NUM_PINS)


def ioapic(pin: int = 0, entry: int = MASKED) -> uapi.kvm_ioapic_state:
    """An I/O APIC with one entry of its own, and others masked as after reset."""
    state = uapi.kvm_ioapic_state()
    state.redirtbl[:] = [MASKED] * len(PINS)
    state.redirtbl[pin] = entry
    return state


def lapic(lint0: int, register: int = LVT_LINT0) -> uapi.kvm_lapic_state:
    """A local APIC with one register set; the others are 0."""
    state = uapi.kvm_lapic_state()
    view = memoryview(state).cast("B")
    view[LVT_LINT0 : LVT_LINT0 + 4] = MASKED.to_bytes(4, "little")
    view[register : register + 4] = lint0.to_bytes(4, "little")
    return state


@pytest.mark.parametrize("pin", PINS)
@pytest.mark.parametrize("mode", [NMI, SMI, INIT])
def test_line_that_is_no_maskable_interrupt_may_wake(mode: int, pin: int) -> None:
    vector_and_destination = 0xFF << 56 | 0x42
    assert may_wake_halted(ioapic(pin, mode | vector_and_destination), lapic(MASKED))
    assert not may_wake_halted(ioapic(pin, mode | vector_and_destination | MASKED), lapic(MASKED))


@pytest.mark.parametrize("mode", [FIXED, LOWEST, EXTINT])
def test_maskable_interrupt_does_not_wake_with_interrupts_off(mode: int) -> None:
    assert not may_wake_halted(ioapic(8, mode | 0x42), lapic(mode | 0x42))


@pytest.mark.parametrize(("mode", "wakes"), [(NMI, True), (SMI, True), (INIT, True), (EXTINT, False)])
def test_lint0_counts_as_the_line_of_the_pics(mode: int, wakes: bool) -> None:
    assert may_wake_halted(ioapic(), lapic(mode)) is wakes
    assert not may_wake_halted(ioapic(), lapic(mode | MASKED))


@pytest.mark.parametrize("register", [0x320, 0x330, 0x340, 0x360, 0x370])
def test_entries_that_no_device_drives_do_not_count(register: int) -> None:
    # Timer, thermal sensor, performance counters, LINT1 (where every system routes NMIs), error.
    assert not may_wake_halted(ioapic(), lapic(NMI, register))


def test_nmi_does_not_wake_who_is_handling_one() -> None:
    assert not may_wake_halted(ioapic(8, NMI), lapic(NMI), nmi_blocked=True)
    assert may_wake_halted(ioapic(8, SMI), lapic(MASKED), nmi_blocked=True)
    assert may_wake_halted(ioapic(8, INIT), lapic(MASKED), nmi_blocked=True)


@pytest.mark.parametrize("mode", [FIXED, LOWEST, SMI, NMI, INIT, EXTINT])
def test_only_a_start_up_ipi_ends_the_wait_for_one(mode: int) -> None:
    assert not may_start(ioapic(3, mode))
    assert not may_start(ioapic(3, STARTUP | MASKED))
    assert may_start(ioapic(3, STARTUP))


def pics(master: int, slave: int) -> tuple[uapi.kvm_pic_state, uapi.kvm_pic_state]:
    """Two PICs with these interrupt mask registers."""
    return uapi.kvm_pic_state(imr=master), uapi.kvm_pic_state(imr=slave)


@pytest.mark.parametrize("gsi", [gsi for gsi in PINS if gsi != 2])
def test_line_is_masked_if_every_controller_masks_it(gsi: int) -> None:
    all_masked = pics(0xFF, 0xFF)
    assert is_masked(gsi, all_masked, ioapic())
    pin = 2 if gsi == 0 else gsi
    assert [is_masked(gsi, all_masked, ioapic(other, FIXED)) for other in PINS] == [p != pin for p in PINS]
    others = 0xFFFF & ~(1 << gsi)
    assert is_masked(gsi, pics(others & 0xFF, others >> 8), ioapic()) == (gsi >= 16)
    assert is_masked(gsi, pics(1 << gsi & 0xFF, 1 << gsi >> 8 & 0xFF), ioapic())


def test_line_2_reaches_no_controller() -> None:
    assert is_masked(2, pics(0, 0), ioapic(2, FIXED))
