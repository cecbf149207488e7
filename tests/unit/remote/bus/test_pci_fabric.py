"""Where base address registers really decode, and where interrupts really go."""

from __future__ import annotations

import pytest

from kvmbox.base import layout
from kvmbox.base.memory import GuestMemory
from kvmbox.contract.model import Effect, IrqLine
from kvmbox.contract.pci_effects import INTX_OFF, MSIX_MASKED, MSIX_ON, Control, Decode, Message, Route
from kvmbox.contract.pci_function import Bar, Piece, PlacedFunction
from kvmbox.contract.pci_grants import PciBus
from kvmbox.remote.bus.movable import MovingBus
from kvmbox.remote.bus.pci_fabric import PciFabric
from kvmbox.remote.bus.routing import Mapping
from tests.support.loop_rig import Device

ONE, OTHER, BRIDGE, DISPLAY = 3 << 3, 4 << 3, 1 << 3, 2 << 3
PORTS = Bar(
    32,
    (Piece(0, 20, 0x600), Piece(20, 12, 0x100)),
    is_io=True,
    with_msix=(Piece(0, 24, 0x600), Piece(24, 8, 0x100)),
)
MEMORY = Bar(0x1000, (Piece(0, 0x100, 0x400), Piece(0x800, 8, 0xC00)))
HOME, ELSEWHERE = 0xE200_0000, 0xE800_0000


class Rig:
    """Two functions: one with ports and memory on interrupt C, the other with memory on D. And a display."""

    def __init__(self) -> None:
        self.ports, self.mmio = MovingBus(16), MovingBus(52)
        self.ram = GuestMemory(2 << 20)
        self.levels: dict[int, int] = {}
        self.notes: list[str] = []
        self.sent: list[tuple[int, int]] = []
        self.uart = Device()
        self.ports.attach(Mapping(0x3F8, 8, self.uart, direct=self.uart))
        self.mmio.attach(Mapping(0xD000_0000, 8, self.uart, direct=self.uart))
        grant = PciBus(
            (
                PlacedFunction(BRIDGE, ""),
                PlacedFunction(ONE, "one", ((0, PORTS, 0xC000), (1, MEMORY, HOME)), 2),
                PlacedFunction(OTHER, "other", ((0, MEMORY, HOME + 0x1000),), 3, has_msi=True),
                PlacedFunction(DISPLAY, "", ((0, Bar(0x1000, ()), layout.FRAME_BUFFER),)),
            )
        )
        self.fabric = PciFabric(
            grant,
            self.ports,
            self.mmio,
            self.ram,
            lambda gsi: lambda level, _: self.set(gsi, level),
            self.notes.append,
        )
        self.one, self.other = Device(frozenset({2, 4})), Device(frozenset({2, 4}))
        self.pin, self.other_pin = self.fabric.function("one"), self.fabric.function("other")
        self.vectors = self.pin.messages(2, 1)
        self.fabric.connect("one", self.one, self.one)
        self.fabric.connect("other", self.other, self.other)
        self.fabric.attach(lambda address, data: self.sent.append((address, data)))
        self.fabric.power_on()

    def set(self, gsi: int, level: int) -> None:
        self.levels[gsi] = level

    def apply(self, effect: Effect) -> bool:
        """Do what an effect of the configuration spaces asks for, if it may."""
        found = self.fabric.check(0, effect)
        if found is not None:
            call, arguments, _ = found
            call(*arguments)
        return found is not None

    def message(self, pin: int, address: int, data: int, enabled: int) -> bool:
        found = self.pin.check(0, Message(pin, address, data, enabled))
        if found is not None:
            found[0](*found[1])
        return found is not None

    def place(self, address: int, bar: int = 1) -> None:
        assert self.apply(Decode(ONE, bar, address, 1))


@pytest.fixture
def rig() -> Rig:
    return Rig()


# --- Places ----------------------------------------------------------------------------------------------


def test_registers_are_where_the_firmware_put_them(rig: Rig) -> None:
    rig.mmio.write(HOME + 4, 4, 7)
    rig.mmio.write(HOME + 0x804, 4, 8)
    rig.ports.write(0xC014, 4, 9)
    assert rig.one.accesses == [("write", 0x404, 4, 7), ("write", 0xC04, 4, 8), ("write", 0x100, 4, 9)]
    assert rig.mmio.read(HOME + 0x100, 4) == 0xFFFF_FFFF
    assert rig.other.accesses == []


def test_frame_buffer_does_not_move(rig: Rig) -> None:
    for address in (layout.FRAME_BUFFER, ELSEWHERE, ELSEWHERE):
        assert rig.apply(Decode(DISPLAY, 0, address, 1))
    what = "VGA, base address 0 decodes nowhere: the frame buffer does not move to address"
    assert rig.notes == [f"{what} {ELSEWHERE:#x}"]


def test_register_is_moved_and_removed(rig: Rig) -> None:
    rig.place(ELSEWHERE)
    rig.mmio.write(ELSEWHERE, 4, 7)
    assert rig.one.accesses == [("write", 0x400, 4, 7)]
    assert rig.mmio.find(HOME) is None
    assert rig.apply(Decode(ONE, 1, 0, 0))
    assert rig.mmio.find(ELSEWHERE) is None
    assert rig.notes == []


@pytest.mark.parametrize(
    "address",
    [
        pytest.param(0x10_0000, id="RAM"),
        pytest.param(0, id="the first page"),
        pytest.param(0xF_F000, id="the end of the first MiB"),
        pytest.param(layout.IO_APIC_BASE, id="I/O APIC"),
        pytest.param(layout.LOCAL_APIC_BASE, id="local APIC"),
        pytest.param(layout.HPET_BASE, id="HPET"),
        pytest.param(layout.KVM_TSS_ADDRESS, id="what KVM wants"),
        pytest.param(0xFFFF_0000, id="the end of 4 GiB"),
        pytest.param(layout.FRAME_BUFFER, id="frame buffer"),
        pytest.param(0xD000_0000, id="another device"),
        pytest.param(HOME + 0x1000, id="another register"),
        pytest.param(1 << 52, id="no address"),
    ],
)
def test_register_that_is_put_over_something_decodes_nowhere(rig: Rig, address: int) -> None:
    before = rig.mmio.find(address)
    rig.place(address)
    assert rig.mmio.find(address) is before
    assert rig.mmio.find(HOME) is None
    assert rig.notes == [f"one, base address 1 decodes nowhere: something else is at address {address:#x}"]
    rig.place(HOME)
    assert rig.mmio.find(HOME) is not None
    rig.place(address)
    assert len(rig.notes) == 1


def test_register_is_not_put_over_a_rom(rig: Rig) -> None:
    rig.ram.add_rom(0xF000_0000, bytes(0x1000))
    rig.place(0xF000_0000)
    assert rig.mmio.find(0xF000_0000) is None


@pytest.mark.parametrize("port", [0x3E0, 0x20, 0xA0, 0x4C0])
def test_ports_are_not_put_over_others(rig: Rig, port: int) -> None:
    rig.place(port, bar=0)
    assert rig.ports.find(port) is None
    assert len(rig.notes) == 1


def test_register_comes_to_its_place_when_it_is_free(rig: Rig) -> None:
    rig.place(HOME + 0x1000)
    assert rig.apply(Decode(OTHER, 0, ELSEWHERE, 1))
    rig.mmio.write(HOME + 0x1000, 4, 7)
    assert rig.one.accesses == [("write", 0x400, 4, 7)]


@pytest.mark.parametrize(
    "effect",
    [
        Decode(ONE, 2, ELSEWHERE, 1),
        Decode(5 << 3, 0, ELSEWHERE, 1),
        Decode(BRIDGE, 0, ELSEWHERE, 1),
        Decode(ONE, 1, ELSEWHERE + 4, 1),
        Route(4, 10, 1),
        Route(0, 8, 1),
        Route(0, 24, 1),
        Control(5 << 3, 0),
        Control(ONE, 8),
        IrqLine(0, 1),
        Message(1, layout.LOCAL_APIC_BASE, 0, 1),
        Message(ONE, layout.LOCAL_APIC_BASE, 0, 1),
    ],
)
def test_effect_that_was_not_granted_is_none(rig: Rig, effect: Effect) -> None:
    assert not rig.apply(effect)


def test_header_of_the_legacy_interface_grows_with_msix(rig: Rig) -> None:
    assert rig.apply(Control(ONE, MSIX_ON))
    rig.ports.write(0xC014, 2, 1)
    rig.ports.write(0xC018, 4, 2)
    assert rig.one.accesses == [("write", 0x614, 2, 1), ("write", 0x100, 4, 2)]
    assert rig.apply(Control(ONE, 0))
    rig.ports.write(0xC014, 4, 3)
    assert rig.one.accesses[2:] == [("write", 0x100, 4, 3)]


# --- Pins ------------------------------------------------------------------------------------------------


def test_pins_that_share_an_interrupt_are_ored(rig: Rig) -> None:
    rig.pin(1, 0)
    rig.other_pin(1, 0)
    assert rig.levels == {11: 1}
    rig.pin(0, 0)
    assert rig.levels == {11: 1}
    rig.other_pin(0, 0)
    assert rig.levels == {11: 0}


def test_interrupt_that_is_routed_elsewhere_takes_its_level_along(rig: Rig) -> None:
    rig.pin(1, 0)
    assert rig.apply(Route(2, 5, 1))
    assert rig.levels == {11: 0, 5: 1}
    assert rig.apply(Route(2, 0, 0))
    assert rig.levels == {11: 0, 5: 0}


def test_pin_is_silent_while_it_is_off(rig: Rig) -> None:
    rig.pin(1, 0)
    for flags in (INTX_OFF, MSIX_ON):
        assert rig.apply(Control(ONE, flags))
        assert rig.levels == {11: 0}
        assert rig.apply(Control(ONE, 0))
        assert rig.levels == {11: 1}


# --- Messages --------------------------------------------------------------------------------------------


def test_rise_of_a_vector_is_its_message(rig: Rig) -> None:
    assert rig.apply(Control(ONE, MSIX_ON))
    assert rig.message(2, layout.LOCAL_APIC_BASE + 0x1000, 0x41, 1)
    rig.vectors[1](1, 0)
    rig.vectors[1](0, 0)
    rig.vectors[1](1, 0)
    assert rig.sent == [(layout.LOCAL_APIC_BASE + 0x1000, 0x41)] * 2
    assert rig.levels == {}


def test_vector_that_is_masked_waits(rig: Rig) -> None:
    assert rig.apply(Control(ONE, MSIX_ON))
    rig.vectors[0](1, 0)
    rig.vectors[0](1, 0)
    assert rig.sent == []
    assert rig.message(1, layout.LOCAL_APIC_BASE, 0x41, 1)
    assert rig.sent == [(layout.LOCAL_APIC_BASE, 0x41)]
    assert rig.message(1, 0, 0, 0)
    rig.vectors[0](1, 0)
    assert len(rig.sent) == 1


def test_function_that_is_masked_waits(rig: Rig) -> None:
    assert rig.apply(Control(ONE, MSIX_ON | MSIX_MASKED))
    assert rig.message(1, layout.LOCAL_APIC_BASE, 0x41, 1)
    rig.vectors[0](1, 0)
    assert rig.sent == []
    assert rig.apply(Control(ONE, MSIX_ON))
    assert rig.sent == [(layout.LOCAL_APIC_BASE, 0x41)]


@pytest.mark.parametrize("address", [0, 0x1000, 0xFEDF_FFFC, 0xFEF0_0000, 1 << 32 | 0xFEE0_0000])
def test_message_that_goes_to_no_local_apic_goes_nowhere(rig: Rig, address: int) -> None:
    assert rig.apply(Control(ONE, MSIX_ON))
    assert rig.message(1, address, 0x41, 1)
    rig.vectors[0](1, 0)
    assert rig.sent == []


@pytest.mark.parametrize(("mode", "sent"), [(0, 1), (1, 1), (2, 0), (4, 0), (5, 0), (7, 0)])
def test_message_is_an_interrupt_and_no_nmi_smi_or_init(rig: Rig, mode: int, sent: int) -> None:
    assert rig.apply(Control(ONE, MSIX_ON))
    assert rig.message(1, layout.LOCAL_APIC_BASE, mode << 8 | 0x41, 1)
    rig.vectors[0](1, 0)
    assert len(rig.sent) == sent


def test_pin_of_a_function_with_msi_is_a_message_while_that_is_enabled(rig: Rig) -> None:
    rig.other_pin(1, 0)
    assert rig.levels == {11: 1}

    assert rig.apply(Message(OTHER, layout.LOCAL_APIC_BASE, 0x41, 1))
    assert (rig.levels, rig.sent) == ({11: 0}, [])
    for level in (1, 0, 1, 1):
        rig.other_pin(level, 0)
    assert rig.sent == [(layout.LOCAL_APIC_BASE, 0x41)]
    assert rig.apply(Message(OTHER, layout.LOCAL_APIC_BASE, 0x41, 0))
    assert rig.levels == {11: 1}


def test_message_of_the_pin_is_the_configuration_spaces_alone(rig: Rig) -> None:
    assert rig.other_pin.check(0, Message(0, layout.LOCAL_APIC_BASE, 0x41, 1)) is None
    assert rig.other_pin.check(0, Message(OTHER, layout.LOCAL_APIC_BASE, 0x41, 1)) is None


def test_vector_without_msix_is_the_pin(rig: Rig) -> None:
    rig.vectors[0](1, 0)
    assert (rig.levels, rig.sent) == ({11: 1}, [])


def test_message_of_a_pin_that_is_no_vector_is_refused(rig: Rig) -> None:
    assert not rig.message(0, layout.LOCAL_APIC_BASE, 0, 1)
    assert not rig.message(3, layout.LOCAL_APIC_BASE, 0, 1)


# --- State -----------------------------------------------------------------------------------------------


def changed() -> Rig:
    rig = Rig()
    rig.place(ELSEWHERE)
    assert rig.apply(Decode(OTHER, 0, 0, 0))
    assert rig.apply(Route(3, 5, 1))
    assert rig.apply(Control(ONE, MSIX_ON | MSIX_MASKED))
    assert rig.message(1, layout.LOCAL_APIC_BASE, 0x41, 1)
    rig.vectors[0](1, 0)
    rig.other_pin(1, 0)
    return rig


def test_power_on_is_as_the_firmware_left_it() -> None:
    rig, fresh = changed(), Rig()
    rig.fabric.power_on()
    assert rig.fabric.state() == fresh.fabric.state()
    assert rig.mmio.find(HOME) is not None
    assert rig.mmio.find(ELSEWHERE) is None
    assert rig.levels == {5: 0}


def test_state_brings_everything_back() -> None:
    state = changed().fabric.state()
    rig = Rig()
    rig.fabric.restore(state)
    assert rig.fabric.state() == state
    assert rig.mmio.find(ELSEWHERE) is not None
    assert rig.mmio.find(HOME) is None
    assert rig.levels == {}  # the router has it from its own
    rig.other_pin(0, 0)
    assert rig.levels == {5: 0}
    assert rig.apply(Control(ONE, MSIX_ON))
    assert rig.sent == [(layout.LOCAL_APIC_BASE, 0x41)]


def test_register_that_was_there_has_the_place_that_another_one_wants() -> None:
    saved, rig = Rig(), Rig()
    saved.place(HOME + 0x1000)  # where the other function is, which comes later in a state
    assert saved.mmio.find(HOME + 0x1000) == Mapping(HOME + 0x1000, 0x100, saved.other, 0x400, saved.other)
    rig.fabric.restore(saved.fabric.state())
    assert rig.mmio.find(HOME + 0x1000) == Mapping(HOME + 0x1000, 0x100, rig.other, 0x400, rig.other)
    assert rig.fabric.state() == saved.fabric.state()
    assert rig.notes == saved.notes


def test_state_that_is_none_is_refused(rig: Rig) -> None:
    state = rig.fabric.state()
    for bad in (b"", state[:-1], state + b"\0", b"XXXX" + state[4:], state[:4] + b"\x08" + state[5:]):
        with pytest.raises(ValueError, match="PCI"):
            rig.fabric.restore(bad)
