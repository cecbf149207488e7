"""Suspension to memory: what wakes the machine, what is told, and where the guest goes on."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Final, cast

import pytest

from kvmbox.base import layout
from kvmbox.base.judge import Judge
from kvmbox.base.memory import GuestMemory
from kvmbox.base.outcome import GUEST_CRASHED, Outcome
from kvmbox.boot.plan import BootPlan
from kvmbox.boot.real_mode.entry_registers import waking_state
from kvmbox.contract.model import WAKE_BY_RTC
from kvmbox.contract.names import SERIAL_PORTS
from kvmbox.devices.pc_board import BoardOptions, pc_board
from kvmbox.host.interrupt_lines import InterruptRouter
from kvmbox.run.machine.device_set import Devices
from kvmbox.run.machine.suspend import (
    Suspension,
    report_wake_up,
    sleep_until_woken,
    waking_plan,
    waking_vector,
)
from kvmbox.wire import protocol

BOARD: Final = [
    one for one in pc_board(BoardOptions(SERIAL_PORTS, 0, layout.MIB)) if one.device_type != "debug"
]
BEFORE: Final = BootPlan("elf64", waking_state(0x1000), 0x1000)


class Rig:
    """A machine's lines and channels; `sleep` polls as often as it is told, with what happens in between."""

    def __init__(self) -> None:
        self.router = InterruptRouter()
        self.rtc = self.router.source(layout.RTC_IRQ)
        self.hpet, self.take = self.router.replacing_source(layout.RTC_IRQ)
        self.asked: list[tuple[str, int, dict[str, Any]]] = []
        self.deadline = 1000
        self.decision = Judge()
        pool = SimpleNamespace(places=self.places, channel=self.channel)
        self.devices = cast(Devices, SimpleNamespace(pool=pool, router=self.router))

    def places(self) -> list[tuple[str, int, Any]]:
        seen: dict[str, int] = {}
        found = []
        for device in BOARD:
            index = seen[device.device_type] = seen.get(device.device_type, -1) + 1
            found.append((device.device_type, index, device))
        return found

    def channel(self, device_type: str) -> Any:
        def request(kind: int, **what: Any) -> None:
            self.asked.append((device_type, kind, what))

        return SimpleNamespace(deadline=self.deadline if device_type == "rtc" else 1, request=request)

    def sleep(self, wakes: int, *events: Callable[[], object]) -> bool | None:
        """Whether the machine was woken; None if it slept through all events."""
        waiting = list(events)
        slept_through = []

        def poll(woken: Callable[[], bool]) -> bool:
            while not woken():
                if self.decision.outcome is not None:
                    return False
                if not waiting:
                    slept_through.append(True)
                    return False
                waiting.pop(0)()
            return True

        woken = sleep_until_woken(Suspension("PM", wakes), self.devices, self.decision, poll)
        return None if slept_through else woken


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_line_of_the_clock_wakes_the_machine_and_no_other_one(rig: Rig) -> None:
    pit = rig.router.source(layout.PIT_IRQ)
    assert rig.sleep(WAKE_BY_RTC, lambda: pit(1, 0), lambda: rig.rtc(0, 0)) is None
    assert rig.sleep(WAKE_BY_RTC, lambda: rig.rtc(1, 0)) is True
    assert rig.decision.outcome is None


def test_line_that_is_high_already_wakes_the_machine_at_once(rig: Rig) -> None:
    rig.rtc(1, 0)
    assert rig.sleep(WAKE_BY_RTC) is True


def test_clock_whose_line_the_hpet_has_taken_wakes_the_machine_and_the_hpet_does_not(rig: Rig) -> None:
    rig.take(1)
    assert rig.sleep(WAKE_BY_RTC, lambda: rig.hpet(1, 0)) is None
    assert rig.sleep(WAKE_BY_RTC, lambda: rig.rtc(1, 0)) is True


@pytest.mark.parametrize("wakes", [0, 0xFFFF_FFFF & ~WAKE_BY_RTC])
def test_nothing_enabled_is_an_end_although_the_line_rises(rig: Rig, wakes: int) -> None:
    rig.rtc(1, 0)
    assert rig.sleep(wakes) is False
    assert rig.decision.outcome is not None
    assert rig.decision.outcome.status == GUEST_CRASHED
    assert rig.decision.outcome.hint is not None


def test_clock_that_has_nothing_left_to_do_is_an_end(rig: Rig) -> None:
    rig.deadline = protocol.NO_DEADLINE
    assert rig.sleep(WAKE_BY_RTC) is False
    assert rig.decision.outcome is not None
    assert "halted for ever" in rig.decision.outcome.reason


def test_device_that_asked_is_told_the_reason(rig: Rig) -> None:
    report_wake_up(Suspension("PM", WAKE_BY_RTC), rig.devices)
    assert rig.asked == [("pm", protocol.RECEIVE, {"device": 0, "payload": b"\x01", "limit": 1})]


def memory_with_facs(place: int, vector: int) -> GuestMemory:
    memory = GuestMemory(layout.MIB)
    memory.write(place, b"FACS" + bytes(8) + vector.to_bytes(4, "little") + bytes(48))
    return memory


@pytest.mark.parametrize("place", [layout.FIRMWARE_TABLES, 0xF0040, layout.FIRMWARE_TABLES_END - 64])
def test_waking_vector_is_that_of_the_facs_among_the_tables(place: int) -> None:
    assert waking_vector(memory_with_facs(place, 0x1234_5678)) == 0x1234_5678


@pytest.mark.parametrize("place", [layout.FIRMWARE_TABLES + 16, layout.FIRMWARE_TABLES_END, 0x1000])
def test_facs_elsewhere_is_none(place: int) -> None:
    assert waking_vector(memory_with_facs(place, 0x1000)) is None


@pytest.mark.parametrize(
    ("vector", "selector", "offset"), [(0x1000, 0x100, 0), (0x9_FC0F, 0x9FC0, 0xF), (0xF_FFFF, 0xFFFF, 0xF)]
)
def test_woken_cpu_is_in_real_mode_at_the_vector(vector: int, selector: int, offset: int) -> None:
    plan = waking_plan(memory_with_facs(0xF0000, vector), BEFORE)
    assert isinstance(plan, BootPlan)
    state = plan.state
    assert (state.cs.selector, state.cs.base, state.rip) == (selector, selector << 4, offset)
    assert state.cr0 & 1 == state.efer == state.cr4 == 0
    assert {one.selector for one in (state.data, state.ss)} == {0}
    assert plan.format == "elf64"
    assert plan.segments == plan.writes == ()


@pytest.mark.parametrize("vector", [0, 0x10_0000, 0xFFFF_FFFF])
def test_vector_that_real_mode_cannot_reach_is_an_end(vector: int) -> None:
    end = waking_plan(memory_with_facs(0xF0000, vector), BEFORE)
    assert isinstance(end, Outcome)
    assert (end.status, end.error) == (GUEST_CRASHED, True)
    assert f"{vector:#x}" in end.reason
