"""Whatever a process of PCI says: registers are where nothing else is, messages go to local APICs alone."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from kvmbox.base import layout
from kvmbox.base.memory import GuestMemory
from kvmbox.contract.model import Effect
from kvmbox.contract.pci_effects import Control, Decode, Message, Route
from kvmbox.contract.pci_function import Bar, Piece, PlacedFunction
from kvmbox.contract.pci_grants import PciBus
from kvmbox.remote.bus.movable import MovingBus
from kvmbox.remote.bus.pci_fabric import PciFabric
from kvmbox.remote.bus.routing import Bus, Mapping
from tests.support.loop_rig import Device

SIZES = (0x20, 0x1000, 0x4000)
RAM = GuestMemory(1 << 20)
RAM.add_rom(0xF000_0000, bytes(0x1000))
PLACES = (
    *(0, 0x1000, 0xF_0000, 0x10_0000, 0xE200_0000, 0xE200_1000, 0xE200_4000, 0xD000_0000, 0xF000_0000),
    *(
        layout.IO_APIC_BASE,
        layout.LOCAL_APIC_BASE,
        0xFFFF_C000,
        1 << 32,
        1 << 51,
        1 << 52,
        (1 << 64) - 0x4000,
    ),
)
PORTS = (0, 0x20, 0xA0, 0x3E0, 0x4C0, 0xC000, 0xC020, 0xFFE0, 0x1_0000)

numbers = st.one_of(st.sampled_from((0, 8, 0x18, 0x20)), st.integers(0, 255))
effects = st.one_of(
    st.builds(
        Decode,
        numbers,
        st.integers(0, 6),
        st.one_of(st.sampled_from((*PLACES, *PORTS)), st.integers(0, (1 << 64) - 1)),
        st.integers(0, 1),
    ),
    st.builds(Route, st.integers(0, 5), st.integers(0, 255), st.integers(0, 1)),
    st.builds(Control, numbers, st.integers(0, 255)),
    st.builds(
        Message,
        st.integers(0, 255),
        st.one_of(st.sampled_from((0, layout.LOCAL_APIC_BASE, 0xFEEF_FFFC)), st.integers(0, (1 << 64) - 1)),
        st.integers(0, (1 << 32) - 1),
        st.integers(0, 1),
    ),
)
rises = st.sampled_from((0, 1, 2, 3))


class Rig:
    """Two functions beside a device at ports and one in memory."""

    def __init__(self) -> None:
        self.ports, self.mmio = MovingBus(16), MovingBus(52)
        self.fixed = Mapping(0x3F8, 8, Device()), Mapping(0xD000_1000, 0x200, Device())
        for bus, mapping in zip((self.ports, self.mmio), self.fixed, strict=True):
            bus.attach(mapping)
        bars = (
            (0, Bar(0x20, (Piece(0, 0x20, 0),), is_io=True, with_msix=(Piece(4, 0x10, 0),)), 0xC000),
            (1, Bar(0x1000, (Piece(0, 0x1000, 0),)), 0xE200_0000),
            (4, Bar(0x4000, (Piece(0, 8, 0), Piece(0x3000, 8, 8)), is_wide=True), 0xE200_4000),
        )
        bus_ = PciBus((PlacedFunction(0, ""), *(PlacedFunction(n << 3, str(n), bars, n % 4) for n in (3, 4))))
        self.levels: dict[int, int] = {}
        self.sent: list[int] = []
        self.fabric = PciFabric(bus_, self.ports, self.mmio, RAM, self.line)
        self.functions = [self.fabric.function(name) for name in ("3", "4")]
        self.pins = [pin for function in self.functions for pin in function.messages(2, 1)]
        for name in ("3", "4"):
            self.fabric.connect(name, Device(), None)
        self.fabric.power_on()
        self.fabric.attach(lambda address, _data: self.sent.append(address))

    def line(self, gsi: int) -> Callable[[int, int], None]:
        return lambda level, _coalesced: self.levels.update({gsi: level})

    def say(self, effect: Effect) -> None:
        checks = [self.fabric.check, *(function.check for function in self.functions)]
        for check in checks:
            found = check(0, effect)
            if found is not None:
                found[0](*found[1])


def overlaps(mapping: Mapping, first: int, end: int) -> bool:
    return mapping.first < end and first < mapping.end


def mappings(bus: Bus, places: tuple[int, ...]) -> set[Mapping]:
    found = (bus.find(place + step) for place in places for step in (0, 4, 0x3000))
    return {mapping for mapping in found if mapping is not None}


def check_fabric(rig: Rig) -> None:
    """Nothing is displaced, and nothing was sent elsewhere."""
    assert rig.ports.find(0x3F8) is rig.fixed[0]
    assert rig.mmio.find(0xD000_1000) is rig.fixed[1]
    for region in (*RAM.regions, *RAM.roms):
        for place in range(region.start, region.end, 0x1000):
            assert rig.mmio.find(place) is None
    for place in range(layout.CHIP_SET_START, layout.MMIO_HOLE_END, 0x4_0000):
        assert rig.mmio.find(place) is None
    assert not any(overlaps(one, 0x20, 0x22) for one in mappings(rig.ports, PORTS))
    assert set(rig.levels) <= set(layout.PIRQ_CHOICES)
    assert all(0 <= place - layout.LOCAL_APIC_BASE < layout.LOCAL_APIC_MESSAGES for place in rig.sent)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(effects, rises), max_size=40))
def test_nothing_is_displaced_and_nothing_sent_elsewhere(steps: list[Effect | int]) -> None:
    rig = Rig()
    for step in steps:
        if isinstance(step, int):
            rig.pins[step](1, 0)
            rig.functions[step % 2](step & 1, 0)
        else:
            rig.say(step)
        check_fabric(rig)
    other = Rig()
    other.fabric.restore(rig.fabric.state())
    assert other.fabric.state() == rig.fabric.state()
