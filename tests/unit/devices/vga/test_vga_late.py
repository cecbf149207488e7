"""That a guest cannot tell whether its writes to the index and data of the CRT controller were late."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kvmbox.base import layout
from kvmbox.contract.catalog import build_model
from kvmbox.contract.device_spec import DeviceSpec
from kvmbox.contract.model import DeviceModel
from kvmbox.devices.pc_board import BoardOptions, pc_board

BOARD = pc_board(BoardOptions((), 0, layout.MIB))
(SPEC,) = (device for device in BOARD if device.name == "VGA")
LATE = tuple(port - layout.VGA_FIRST_PORT for port in SPEC.coalesced)
INDEX, DATA = LATE

OFFSETS = st.one_of(
    st.sampled_from((INDEX, DATA)),
    st.sampled_from((0x04, 0x05, 0x0A, 0x2A, 0x10, 0x11, 0x12, 0x1C)),  # the other CRTC, the flip-flop, …
    st.integers(0, 0x2F),
)
MOVE = st.tuples(st.just("move"), st.sampled_from((0x0A, 0x0C, 0x0E, 0x11)), st.integers(0, 0xFFFF))
ACCESS = st.tuples(st.sampled_from(("read", "write")), OFFSETS, st.integers(0, 0xFF))
STEPS = st.lists(st.one_of(MOVE, MOVE, ACCESS, st.just(("flush", 0, 0))), max_size=40)


class Machine:
    """Runs a program on a VGA. With `delays`, writes wait for the next access of another kind, as in KVM's
    ring, and pairs of index and data come as words.
    """

    def __init__(self, *, delays: bool) -> None:
        self.vga: DeviceModel = build_model(SPEC.model, SPEC.parameters)
        self.delays = delays
        self.waiting: list[tuple[int, int]] = []
        self.reads: list[int] = []
        self.now = 0

    def step(self, kind: str, offset: int, value: int) -> None:
        self.now += 40_000
        if kind == "move":  # two registers, index and data each
            for number in (0, 1):
                self.write(INDEX, offset + number)
                self.write(DATA, value >> 8 * number & 0xFF)
        elif kind == "write":
            self.write(offset, value)
        else:
            self.deliver()
            if kind == "read":
                self.reads.append(self.vga.read(self.now, offset, 1))

    def write(self, offset: int, value: int) -> None:
        if self.delays and offset in LATE:
            self.waiting.append((offset, value))
            return
        self.deliver()
        self.vga.write(self.now, offset, 1, value)

    def deliver(self) -> None:
        while self.waiting:
            (offset, value), *rest = self.waiting
            if offset == INDEX and rest and rest[0][0] == DATA:
                self.vga.write(self.now, offset, 2, value | rest[0][1] << 8)
                rest = rest[1:]
            else:
                self.vga.write(self.now, offset, 1, value)
            self.waiting = rest


@given(STEPS)
def test_guest_cannot_tell_whether_its_writes_to_the_crt_controller_were_late(
    steps: list[tuple[str, int, int]],
) -> None:
    prompt, tardy = Machine(delays=False), Machine(delays=True)
    for step in steps:
        prompt.step(*step)
        tardy.step(*step)
    tardy.deliver()

    assert tardy.reads == prompt.reads
    assert tardy.vga.snapshot() == prompt.vga.snapshot()
    assert tardy.vga.take_effects() == prompt.vga.take_effects() == []
    assert tardy.vga.next_deadline() is prompt.vga.next_deadline() is None


def test_only_the_vga_has_adjacent_ports_whose_writes_come_as_words() -> None:
    """Or this file needs to look at another model, too."""

    def adjacent(device: DeviceSpec) -> bool:
        return any(port + 1 in device.coalesced for port in device.coalesced)

    assert [device.name for device in BOARD if adjacent(device)] == ["VGA"]
