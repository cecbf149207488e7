"""The run loop on buses whose mappings move between two exits."""

from __future__ import annotations

import pytest

from kvmbox.remote.bus.movable import MovingBus
from kvmbox.remote.bus.routing import Mapping
from tests.support.halves import Half
from tests.support.loop_rig import Device, Rig
from tests.support.scripted_vcpu import IN, OUT

OLD, NEW = 0x1000, 0x2000


class MovingRig(Rig):
    """A rig with a device at OLD that may move to NEW."""

    def __init__(self, half: Half) -> None:
        super().__init__(half, buses=(MovingBus(16), MovingBus(52)))
        self.device = Device()
        self.home = [Mapping(OLD, 4, self.device, direct=self.device)]
        self.away = [Mapping(NEW, 4, self.device, direct=self.device)]
        assert isinstance(self.ports, MovingBus)
        self.bus = self.ports
        self.bus.move([], self.home)

    def go(self, old: list[Mapping], new: list[Mapping]) -> None:
        assert self.bus.move(old, new)


@pytest.fixture
def rig(half: Half) -> MovingRig:
    return MovingRig(half)


def test_route_of_a_device_that_has_moved_is_taken_no_more(rig: MovingRig) -> None:
    for _ in range(3):
        rig.port(OUT, OLD, data=b"\x01")
        rig.port(IN, NEW)
    rig.peek(lambda: rig.go(rig.home, rig.away))
    for _ in range(3):
        rig.port(OUT, OLD, data=b"\x02")
        rig.port(OUT, NEW, data=b"\x03")
    rig.play()
    assert rig.device.accesses == [("write", 0, 1, 1)] * 3 + [("write", 0, 1, 3)] * 3
    assert (rig.bus.unclaimed_reads, rig.bus.unclaimed_writes) == (3, 3)


def test_route_is_gone_for_the_exit_during_which_the_device_moves(rig: MovingRig) -> None:
    for _ in range(3):
        rig.port(OUT, OLD, data=b"\x01")
    last = rig.vcpu.script.pop()

    def moves_first() -> int:
        rig.bus.move(rig.home, rig.away)
        return last()

    rig.step(moves_first)
    rig.play()
    assert len(rig.device.accesses) == 2
    assert rig.bus.unclaimed_writes == 1


def test_memory_that_moves_answers_at_its_new_place(rig: MovingRig) -> None:
    assert isinstance(rig.mmio, MovingBus)
    home = [Mapping(0xE000_0000, 16, rig.device, direct=rig.device)]
    away = [Mapping(0xE100_0000, 16, rig.device, direct=rig.device)]
    rig.mmio.move([], home)
    for _ in range(3):
        rig.memory(0xE000_0004, 1, b"\x01")
    rig.peek(lambda: None if rig.mmio.move(home, away) else pytest.fail("no room"))  # type: ignore[attr-defined]  # asserted above
    for _ in range(3):
        rig.memory(0xE000_0004, 1, b"\x02")
        rig.memory(0xE100_0008, 1, b"\x03")
    rig.play()
    assert rig.device.accesses == [("write", 4, 1, 1)] * 3 + [("write", 8, 1, 3)] * 3
    assert rig.loop.routes.mmio_exits == 9


def test_exits_and_accesses_are_counted_whatever_moved(rig: MovingRig) -> None:
    for turn in range(4):
        for _ in range(3):
            rig.port(OUT, OLD, data=b"\x01")
            rig.port(OUT, 0x3FF, data=b"\x01")
        old, new = (rig.away, rig.home) if turn % 2 else (rig.home, rig.away)
        rig.peek(lambda old=old, new=new: rig.go(old, new))  # type: ignore[misc]  # defaults
    rig.play()
    routes = rig.loop.routes
    assert routes.guest_exits == 24
    assert sum(count for word, count in routes.port_exits.items() if word >> 16 & 0xFFFF == 0x3FF) == 12
    # The first access of each turn goes by the bus, whose device counts it.
    assert (rig.uart.counted[False], rig.uart.fast_paths) == (8, 8)
    assert rig.bus.unclaimed_writes == 6
    assert len(rig.loop.recent) == 24
