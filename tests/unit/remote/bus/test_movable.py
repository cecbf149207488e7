"""Mappings that move while the guest runs."""

from __future__ import annotations

import pytest

from kvmbox.remote.bus.movable import MovingBus
from kvmbox.remote.bus.routing import Bus, Mapping
from tests.support.loop_rig import Device


@pytest.fixture
def bus() -> MovingBus:
    return MovingBus(16)


def test_mapping_that_is_moved_answers_at_its_new_place_only(bus: MovingBus) -> None:
    device = Device()
    device.values = [0x12]
    old, new = Mapping(0x100, 4, device), Mapping(0x200, 4, device)
    assert bus.move([], [old])
    assert bus.move([old], [new])
    assert bus.read(0x100, 1) == 0xFF
    assert bus.read(0x203, 1) == 0x12
    assert device.accesses == [("read", 3, 1)]


def test_mapping_that_has_no_room_leaves_the_bus_as_it_was(bus: MovingBus) -> None:
    there, wanted = Device(), Device()
    bus.attach(Mapping(0x100, 4, there))
    pieces = [Mapping(0x80, 4, wanted), Mapping(0x102, 4, wanted)]
    assert not bus.move([], pieces)
    assert bus.find(0x80) is None
    assert bus.find(0x102) == Mapping(0x100, 4, there)


def test_watchers_hear_of_each_change(bus: MovingBus) -> None:
    heard: list[int] = []
    assert bus.watch(lambda: heard.append(1))
    mapping = Mapping(0x100, 4, Device())
    bus.move([], [mapping])
    bus.move([mapping], [])
    assert heard == [1, 1]
    bus.forget_watchers()
    bus.move([], [mapping])
    assert heard == [1, 1]


def test_bus_that_does_not_move_has_no_watchers() -> None:
    assert not Bus(16).watch(lambda: None)
