"""The memory of a VGA: planes, latches, write modes (IBM PS/2 Hardware Interface Technical Reference)."""

from __future__ import annotations

import random
import struct
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmbox.base import layout
from kvmbox.contract.bulk_data import Aperture
from kvmbox.contract.model import DONE, SnapshotError
from kvmbox.devices.vga.model import VgaText

FIRST, SIZE = layout.VGA_MEMORY, layout.VGA_MEMORY_SIZE
PLANAR: Final = ((0x3C4, 2, 0x0F), (0x3C4, 4, 0x06), (0x3CE, 5, 0x00), (0x3CE, 6, 0x05))
CHAINED: Final = ((0x3C4, 2, 0x0F), (0x3C4, 4, 0x0E), (0x3CE, 5, 0x40), (0x3CE, 6, 0x05))
TEXT: Final = ((0x3C4, 2, 0x03), (0x3C4, 4, 0x02), (0x3CE, 5, 0x10), (0x3CE, 6, 0x0E))
MODE_6: Final = ((0x3C4, 2, 0x01), (0x3C4, 4, 0x06), (0x3CE, 5, 0x00), (0x3CE, 6, 0x0D))


MASKS: Final = ((0x3C4, 2, 0), (0x3CE, 8, 0), (0x3CE, 1, 0), (0x3CE, 3, 0))


class Pc:
    """A VGA, memory of the guest, and what the VMM does with the window. `moves` counts changes of it."""

    def __init__(self, *, always_out: bool = False) -> None:
        self.vga = VgaText()
        self.memory = bytearray(SIZE)
        self.is_plain = True
        self.always_out = always_out
        self.moves = 0

    def set(self, *registers: tuple[int, int, int]) -> None:
        for port, index, value in registers:
            self.vga.write(0, port - layout.VGA_FIRST_PORT, 2, value << 8 | index)
            self.follow()

    def write(self, address: int, value: int, size: int = 1) -> None:
        if self.is_plain:
            self.memory[address - FIRST : address - FIRST + size] = value.to_bytes(size, "little")
        else:
            self.vga.write(0, address, size, value)
            self.follow()

    def read(self, address: int, size: int = 1) -> int:
        if self.is_plain:
            return int.from_bytes(self.memory[address - FIRST : address - FIRST + size], "little")
        value = self.vga.read(0, address, size)
        self.follow()
        return value

    def follow(self) -> None:
        for effect in self.vga.take_effects():
            assert isinstance(effect, Aperture)
            self.moves += 1
            start = effect.address - FIRST
            if not effect.is_plain:
                assert self.is_plain
                self.is_plain = False
                for at in range(0, effect.size, 4064):
                    piece = self.memory[start : start + effect.size][at : at + 4064]
                    self.vga.memory(0, at, bytes(piece))
            elif not self.always_out and (found := self.vga.window.offered) is not None:
                address, data = found
                self.memory[address - FIRST : address - FIRST + len(data)] = data
                self.is_plain = True
                self.vga.complete(0, 0, DONE)


def planar(**registers: int) -> Pc:
    """In a planar mode with these registers of the graphics controller, and planes 0x11, 0x22, 0x44, 0x88."""
    pc = Pc(always_out=True)
    pc.set(*PLANAR)
    for plane in range(4):
        pc.set((0x3C4, 2, 1 << plane))
        pc.write(FIRST + 5, 0x11 << plane)
    pc.set((0x3C4, 2, 0x0F))
    pc.read(FIRST + 5)  # the latches
    names = ("set", "enable", "compare", "rotate", "map", "mode", "misc", "care", "bits")
    pc.set(*((0x3CE, names.index(name), value) for name, value in registers.items()))
    return pc


def planes(pc: Pc, offset: int) -> list[int]:
    pc.set((0x3CE, 5, 0))
    found = []
    for plane in range(4):
        pc.set((0x3CE, 4, plane))
        found.append(pc.read(FIRST + offset))
    return found


def test_second_half_of_a_window_of_128_kib_is_the_first_one_again() -> None:
    pc = planar()
    pc.set((0x3CE, 6, 0x01))
    pc.write(FIRST + 0x1_0007, 0x5A)
    assert planes(pc, 7) == planes(pc, 0x1_0007) == [0x5A] * 4


@pytest.mark.parametrize(
    ("registers", "value", "expected"),
    [
        ({}, 0x5A, [0x5A] * 4),
        ({"rotate": 4}, 0x5A, [0xA5] * 4),
        ({"set": 0x05, "enable": 0x0F}, 0x5A, [0xFF, 0x00, 0xFF, 0x00]),
        ({"set": 0x01, "enable": 0x03}, 0x5A, [0xFF, 0x00, 0x5A, 0x5A]),
        ({"bits": 0xF0}, 0x5A, [0x51, 0x52, 0x54, 0x58]),
        ({"rotate": 1 << 3}, 0x0F, [0x01, 0x02, 0x04, 0x08]),
        ({"rotate": 2 << 3}, 0x0F, [0x1F, 0x2F, 0x4F, 0x8F]),
        ({"rotate": 3 << 3}, 0xFF, [0xEE, 0xDD, 0xBB, 0x77]),
        ({"mode": 1}, 0x5A, [0x11, 0x22, 0x44, 0x88]),
        ({"mode": 2}, 0x06, [0x00, 0xFF, 0xFF, 0x00]),
        ({"mode": 2, "bits": 0x0F}, 0x01, [0x1F, 0x20, 0x40, 0x80]),
        ({"mode": 3, "set": 0x09}, 0x0F, [0x1F, 0x20, 0x40, 0x8F]),
        ({"mode": 3, "set": 0x0F, "rotate": 4, "bits": 0x3C}, 0xF0, [0x1D, 0x2E, 0x4C, 0x8C]),
    ],
)
def test_planar_write_is_rotated_fixed_combined_and_masked(
    registers: dict[str, int], value: int, expected: list[int]
) -> None:
    pc = planar(**registers)
    pc.write(FIRST + 9, value)
    assert planes(pc, 9) == expected


def test_map_mask_keeps_planes_as_they_are() -> None:
    pc = planar()
    pc.set((0x3C4, 2, 0x0A))
    pc.write(FIRST + 5, 0xFF)
    assert planes(pc, 5) == [0x11, 0xFF, 0x44, 0xFF]


def test_read_mode_1_compares_colours_in_the_planes_that_count() -> None:
    pc = planar(mode=8, compare=0x01, care=0x0F)
    assert pc.read(FIRST + 5) == 0x11  # there, plane 0 alone has a 1
    pc.set((0x3CE, 7, 0x08))
    assert pc.read(FIRST + 5) == 0x77  # where plane 3 has a 0


def test_chained_bytes_are_in_the_planes_at_every_fourth_address() -> None:
    pc = Pc(always_out=True)
    pc.set(*CHAINED)
    pc.write(FIRST + 4, 0x04030201, size=4)
    assert pc.read(FIRST + 4, size=4) == 0x04030201
    pc.set(*PLANAR)
    assert planes(pc, 4) == [1, 2, 3, 4]
    assert planes(pc, 1) == [0] * 4


def test_text_is_in_planes_0_and_1_at_every_second_address_and_fonts_are_not_touched() -> None:
    pc = Pc()
    pc.write(layout.TEXT_SCREEN + 2, 0x1F41, size=2)
    pc.set(*PLANAR)
    assert planes(pc, 2) == [0x41, 0x1F, 0, 0]
    assert pc.vga.window.text[:4] == b"\0\0A\x1f"


def test_addresses_outside_of_the_window_read_as_ones_and_drop_writes() -> None:
    pc = planar()
    for address in (layout.TEXT_SCREEN, FIRST + 0x10000, FIRST + SIZE - 1):
        pc.write(address, 0x55)
        assert pc.read(address) == 0xFF


def test_text_and_mode_13h_are_plain_memory_and_planes_are_not() -> None:
    pc = Pc()
    assert pc.vga.window.plain == (layout.TEXT_SCREEN, 0x8000)
    pc.set(*CHAINED)
    for at in range(100):
        pc.write(FIRST + at, at)
    assert (pc.is_plain, pc.vga.window.plain, pc.moves) == (True, (FIRST, 0x10000), 2)
    assert [pc.read(FIRST + at) for at in range(100)] == list(range(100))
    pc.write(FIRST + 6, 0x77)
    pc.set(*PLANAR)
    assert planes(pc, 4) == [4, 5, 0x77, 7]
    for at in range(10_000):
        pc.write(FIRST + at, 1)
    assert (pc.is_plain, pc.moves) == (False, 3)


def test_guest_that_changes_the_window_at_each_frame_keeps_it_from_being_plain() -> None:
    pc = Pc()
    for _frame in range(64):
        pc.set(*PLANAR)
        pc.set(*CHAINED)
        for at in range(64):
            pc.write(FIRST + at, at)
    assert pc.moves < 8


REGISTERS = st.one_of(
    st.sampled_from((*PLANAR, *CHAINED, *TEXT, *MODE_6)),
    st.tuples(st.just(0x3C4), st.sampled_from((2, 4)), st.integers(0, 0xFF)),
    st.tuples(st.just(0x3CE), st.integers(0, 8), st.integers(0, 0xFF)),
)
MODE = st.sampled_from((PLANAR, CHAINED, TEXT, MODE_6))
PLACE = st.one_of(st.integers(FIRST, FIRST + 40), st.integers(layout.TEXT_SCREEN, layout.TEXT_SCREEN + 40))
STEP = st.one_of(
    st.tuples(st.just("set"), REGISTERS),
    st.tuples(st.just("mode"), MODE),
    st.tuples(st.just("read"), PLACE),
    st.tuples(st.just("write"), PLACE, st.integers(0, 0xFF)),
    st.tuples(st.just("fill"), PLACE, st.integers(0, 0xFF)),
)


def compare(one: Pc, other: Pc, address: int) -> None:
    """That both read the same, but for what is RAM where `one` has a smaller window as plain memory."""
    first, size = one.vga.window.plain or (FIRST, SIZE)
    if first <= address < first + size:
        assert one.read(address) == other.read(address)


@given(st.lists(STEP, max_size=60))
def test_guest_cannot_tell_whether_its_window_is_plain_memory(steps: list[tuple[object, ...]]) -> None:
    changes, stays = Pc(), Pc(always_out=True)
    stays.set(*PLANAR)  # out for good
    for pc in (changes, stays):
        pc.set(*CHAINED)
    for step in steps:
        match step:
            case ("set", (int(port), int(index), int(value))):
                for pc in (changes, stays):
                    pc.set((port, index, value))
            case ("mode", tuple(mode)):
                for pc in (changes, stays):
                    pc.set(*mode)
            case ("read", int(address)):
                compare(changes, stays, address)
            case ("write", int(address), int(value)):
                for pc in (changes, stays):
                    pc.write(address, value)
            case ("fill", int(address), int(value)):
                for pc in (changes, stays):
                    for at in range(72):
                        pc.write(address + at, value + at & 0xFF)
    for address in (*range(FIRST, FIRST + 112), *range(layout.TEXT_SCREEN, layout.TEXT_SCREEN + 112)):
        compare(changes, stays, address)


def test_snapshot_has_the_planes_and_what_is_plain() -> None:
    pc = planar()
    state = pc.vga.snapshot()
    assert len(state) < 6000  # blocks that are zero are left out
    other = Pc(always_out=True)
    other.vga.restore(state)
    other.is_plain = False
    assert other.vga.snapshot() == state
    assert planes(other, 5) == [0x11, 0x22, 0x44, 0x88]


@pytest.mark.parametrize("place", [-4096 - 8, -4096 - 9, -4096 - 21], ids=["blocks", "plane", "way"])
def test_snapshot_of_memory_that_cannot_be_is_refused(place: int) -> None:
    state = bytearray(planar().vga.snapshot())
    state[place] ^= 0x40
    with pytest.raises(SnapshotError):
        VgaText().restore(bytes(state))


def test_late_writes_are_the_same_as_writes() -> None:
    late, prompt = planar(), planar()
    for value, size, offset in ((0x12345678, 4, FIRST), (0x0F02, 2, 0x14), (0xAB, 1, FIRST + 9)):
        late.vga.write(0, layout.VGA_LATE_WRITES, 8, value | size << 32 | offset << 36)
    prompt.write(FIRST, 0x12345678, size=4)
    prompt.set((0x3C4, 2, 0x0F))
    prompt.write(FIRST + 9, 0xAB)
    assert late.vga.snapshot() == prompt.vga.snapshot()


@pytest.mark.parametrize("seed", range(60))
def test_writes_in_one_piece_are_the_writes_one_by_one(seed: int) -> None:
    dice = random.Random(seed)
    pieces, singles = VgaText(), VgaText()
    words = [index | value << 8 | 2 << 32 | port - 0x3B0 << 36 for port, index, value in PLANAR]
    for _ in range(dice.randrange(1, 400)):
        if dice.random() < 0.05:  # registers of the sequencer and of the graphics controller
            port, index, value = dice.choice((*MASKS, *MASKS, *PLANAR, (0x3C4, 4, 15), (0x3CE, 5, 1), *TEXT))
            words.append(index | (value or dice.randrange(256)) << 8 | 2 << 32 | port - 0x3B0 << 36)
        else:
            address = 0xA0000 + dice.choice((dice.randrange(40), 0xFFFD, 0x18000, 0x1FFFC))
            size = dice.choice((1, 2, 4))
            words.append(dice.randrange(1 << 8 * size) | size << 32 | address << 36)

    while words:
        data = struct.pack(f"<{len(words)}Q", *words)
        made = pieces.write_string(0, layout.VGA_LATE_WRITES, 8, data)
        assert 0 < made <= len(words)
        effects = pieces.take_effects()
        for number, word in enumerate(words[:made], 1):
            singles.write(0, layout.VGA_LATE_WRITES, 8, word)
            found = singles.take_effects()
            assert found == (effects if number == made else [])
        for effect in effects:  # what the VMM does then
            assert isinstance(effect, Aperture)
            is_given = effect.is_plain and dice.random() < 0.5
            for vga in (pieces, singles):
                if is_given:
                    vga.complete(0, 0, DONE)
                elif not effect.is_plain:
                    vga.memory(0, 0, bytes(effect.size))
        words = words[made:]
        assert pieces.snapshot() == singles.snapshot()
        if dice.random() < 0.5:
            place = 0xA0000 + dice.randrange(40)
            assert pieces.read(0, place, 1) == singles.read(0, place, 1)
