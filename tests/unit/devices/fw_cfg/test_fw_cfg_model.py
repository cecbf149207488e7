"""fw_cfg: selecting, reading by port and by DMA, and what a guest does wrong (QEMU, docs/specs/fw_cfg)."""

from __future__ import annotations

import struct
from itertools import pairwise
from typing import Final

import pytest

from kvmbox.contract.model import (
    BAD_ADDRESS,
    DONE,
    ContentRead,
    Effect,
    MemoryRead,
    MemoryWrite,
    SnapshotError,
    Transfer,
)
from kvmbox.devices.fw_cfg.model import (
    BLOCK,
    DIRECTORY,
    MOST_AT_ONCE,
    MOST_BY_DMA,
    READ,
    SELECT,
    SKIP,
    WINDOW,
    WRITE,
    FwCfg,
)

LARGE: Final = bytes(number * 11 & 0xFF for number in range(3 * WINDOW + 5))
ITEMS: Final = {0x00: b"QEMU", 0x05: b"\x04\x00", 0x8002: b"\x01\x00\x00\x00", 0x20: LARGE}
SMALL: Final = b"QEMU\x04\x00\x01\x00\x00\x00"
CONTENT: Final = SMALL + LARGE
MEMORY_SIZE: Final = 0x8000
OPEN: Final = 0xFFFF_FFFF_FFFF_FFF8
"""No RAM, and wraps."""


def build() -> FwCfg:
    directory, place = b"", 0
    for key, data in ITEMS.items():
        directory += DIRECTORY.pack(key, len(data), place)
        place += len(data)
    return FwCfg(directory=directory, small=SMALL)


class Guest:
    """A guest and the VMM: what the model asks for comes before the access is done."""

    def __init__(self) -> None:
        self.model = build()
        self.memory = bytearray(b"\xaa" * MEMORY_SIZE)
        self.asked: list[Effect] = []

    def settle(self) -> None:
        while effects := self.model.take_effects():
            for effect in effects:
                self.asked.append(effect)
                match effect:
                    case MemoryRead(tag, [(address, size)]):
                        good = address + size <= MEMORY_SIZE
                        self.model.memory(
                            0, tag, bytes(self.memory[address : address + size]) if good else None
                        )
                    case MemoryWrite(address, data, 0):
                        if address + len(data) <= MEMORY_SIZE:
                            self.memory[address : address + len(data)] = data
                    case ContentRead(tag, 0, offset, size):
                        self.model.memory(0, tag, self.content(offset, size))
                    case Transfer(tag, 0, offset, [(address, size)], 1):
                        good = address + size <= MEMORY_SIZE
                        if good:
                            self.memory[address : address + size] = self.content(offset, size)
                        self.model.complete(0, tag, DONE if good else BAD_ADDRESS)
                    case _:
                        raise AssertionError(effect)

    @staticmethod
    def content(offset: int, size: int) -> bytes:
        return CONTENT[offset : offset + size].ljust(size, b"\0")

    def outw(self, value: int) -> None:
        self.model.write(0, 0, 2, value)
        self.settle()

    def inb(self, count: int) -> bytes:
        found = []
        for _ in range(count):
            found.append(self.model.read(0, 1, 1))
            self.settle()
        return bytes(found)

    def dma(self, control: int, length: int, address: int, *, at: int = 0x100) -> int:
        """A request at `at`; the control word afterwards."""
        if at < MEMORY_SIZE:
            self.memory[at : at + 16] = struct.pack(">IIQ", control, length, address)
        self.model.write(0, 4, 4, int.from_bytes((at >> 32).to_bytes(4, "big"), "little"))
        self.model.write(0, 8, 4, int.from_bytes((at & 0xFFFF_FFFF).to_bytes(4, "big"), "little"))
        self.settle()
        return int.from_bytes(self.memory[at : at + 4], "big") if at < MEMORY_SIZE else -1


@pytest.fixture
def guest() -> Guest:
    return Guest()


def test_signature_is_selected_at_power_on_and_zeros_follow(guest: Guest) -> None:
    assert guest.inb(7) == b"QEMU\0\0\0"


@pytest.mark.parametrize(("key", "data"), ITEMS.items())
def test_selected_item_is_read_from_its_beginning_and_ends_in_zeros(
    guest: Guest, key: int, data: bytes
) -> None:
    guest.outw(key)
    assert guest.inb(len(data) + 3) == data + bytes(3)
    guest.outw(key)
    assert guest.inb(2) == data[:2]


@pytest.mark.parametrize("key", [0x06, 0x21, 0x3FFF, 0x8005, 0xBFFF, 0xFFFF])
def test_item_that_there_is_not_reads_as_zeros(guest: Guest, key: int) -> None:
    guest.outw(key)
    assert guest.inb(3) == bytes(3)


def test_write_channel_selects_the_same_item(guest: Guest) -> None:
    guest.outw(0x4000 | 0x05)
    assert guest.inb(2) == b"\x04\0"
    guest.outw(0xC002)
    assert guest.inb(2) == b"\x01\0"


def test_selector_port_reads_data_by_bytes_and_nothing_by_words(guest: Guest) -> None:
    assert guest.model.read(0, 0, 2) == 0  # QEMU 10 says so, and does not go on
    assert guest.model.read(0, 0, 1) == ord("Q")
    assert guest.model.read(0, 1, 1) == ord("E")


def test_bytes_written_change_nothing(guest: Guest) -> None:
    for offset in (0, 1):
        guest.model.write(0, offset, 1, 0x05)
    assert guest.inb(4) == b"QEMU"
    assert guest.asked == []


def test_small_items_are_read_without_asking_anybody(guest: Guest) -> None:
    for key in (0x00, 0x05, 0x8002):
        guest.outw(key)
        guest.inb(4)
    assert guest.asked == []


def test_large_item_is_asked_for_piece_by_piece_before_it_is_read(guest: Guest) -> None:
    guest.outw(0x20)
    first = len(SMALL)
    assert guest.asked == [ContentRead(3, 0, first, WINDOW)]
    guest.inb(WINDOW - 1)
    assert len(guest.asked) == 1
    guest.inb(1)
    assert guest.asked[1:] == [ContentRead(3, 0, first + WINDOW, WINDOW)]
    guest.inb(len(LARGE) - WINDOW)
    assert guest.asked[-1] == ContentRead(3, 0, first + 3 * WINDOW, 5)  # no further than the item


def test_dma_address_reads_as_the_signature_whatever_the_width(guest: Guest) -> None:
    text = b"QEMU CFG"
    for size in (1, 2, 4, 8):
        for offset in range(9 - size):
            value = guest.model.read(0, 4 + offset, size)
            assert value.to_bytes(size, "little") == text[offset : offset + size]
    assert guest.model.read(0, 10, 4) == 0xFFFF_FFFF


def test_dma_read_copies_the_item_and_clears_the_control_word(guest: Guest) -> None:
    assert guest.dma(0x20 << 16 | SELECT | READ, len(LARGE), 0x1000) == 0
    assert guest.memory[0x1000 : 0x1000 + len(LARGE) + 1] == LARGE + b"\xaa"
    assert guest.memory[0x104:0x110] == struct.pack(">IQ", len(LARGE), 0x1000)  # the rest of the block stays


def test_dma_reads_go_on_where_the_last_one_ended_and_end_in_zeros(guest: Guest) -> None:
    guest.dma(0x20 << 16 | SELECT, 0, 0)
    assert guest.dma(READ, 10, 0x1000) == 0
    assert guest.dma(SKIP, 20, 0) == 0
    assert guest.dma(READ, len(LARGE), 0x2000) == 0
    assert guest.memory[0x1000:0x100A] == LARGE[:10]
    assert guest.memory[0x2000 : 0x2000 + len(LARGE)] == LARGE[30:] + bytes(30)
    assert guest.dma(READ, 4, 0x1000) == 0
    assert guest.memory[0x1000:0x1004] == bytes(4)


def test_dma_and_data_port_share_the_place(guest: Guest) -> None:
    guest.dma(0x20 << 16 | SELECT | SKIP, 2 * WINDOW, 0)
    assert guest.inb(3) == LARGE[2 * WINDOW : 2 * WINDOW + 3]
    assert guest.dma(READ, 2, 0x1000) == 0
    assert guest.memory[0x1000:0x1002] == LARGE[2 * WINDOW + 3 : 2 * WINDOW + 5]


def test_dma_of_an_item_that_there_is_not_gives_zeros(guest: Guest) -> None:
    assert guest.dma(0x60 << 16 | SELECT | READ, 3, 0x1000) == 0
    assert guest.memory[0x1000:0x1004] == b"\0\0\0\xaa"


def test_dma_write_is_refused_and_of_nothing_is_no_error(guest: Guest) -> None:
    assert guest.dma(SELECT | WRITE, 1, 0x1000) == 1
    assert guest.dma(SELECT | WRITE, 0, 0x1000) == 0
    assert guest.inb(4) == b"QEMU"


def test_dma_read_wins_over_write_and_skip(guest: Guest) -> None:
    assert guest.dma(SELECT | READ | WRITE | SKIP, 4, 0x1000) == 0
    assert guest.memory[0x1000:0x1004] == b"QEMU"


def test_dma_to_what_is_no_memory_is_an_error(guest: Guest) -> None:
    assert guest.dma(SELECT | READ, 4, MEMORY_SIZE - 2) == 1
    assert guest.dma(SELECT | READ, 4, OPEN) == 1


def test_request_block_outside_of_memory_is_dropped(guest: Guest) -> None:
    before = bytes(guest.memory)
    for at in (MEMORY_SIZE, 1 << 32, OPEN):
        guest.dma(0, 0, 0, at=at)
    assert guest.memory == before
    assert guest.dma(SELECT | READ, 4, 0x1000) == 0  # and the next one works


def test_first_half_of_the_address_counts_for_one_request_only(guest: Guest) -> None:
    guest.model.write(0, 4, 4, 0x0100_0000)
    guest.model.write(0, 8, 4, 0x0001_0000)
    assert guest.model.take_effects() == [MemoryRead(BLOCK, [(0x1_0000_0100, 16)])]
    guest.model.write(0, 8, 4, 0x0001_0000)
    assert guest.model.take_effects() == [MemoryRead(BLOCK, [(0x100, 16)])]


@pytest.mark.parametrize(("offset", "size"), [(4, 1), (4, 2), (8, 1), (8, 2), (6, 4), (5, 4), (8, 8), (0, 4)])
def test_other_widths_of_the_address_register_start_nothing(guest: Guest, offset: int, size: int) -> None:
    guest.model.write(0, offset, size, 0)
    assert guest.model.take_effects() == []


def test_whole_address_register_starts_a_request(guest: Guest) -> None:
    guest.model.write(0, 4, 8, int.from_bytes((0x1234).to_bytes(8, "big"), "little"))
    assert guest.model.take_effects() == [MemoryRead(BLOCK, [(0x1234, 16)])]


def block(model: FwCfg, control: int, length: int, address: int) -> list[Effect]:
    """The request block comes."""
    model.write(0, 8, 4, 0x0001_0000)
    model.take_effects()
    model.memory(0, BLOCK, struct.pack(">IIQ", control, length, address))
    return model.take_effects()


def test_long_read_is_several_transfers_within_the_follow_ups_of_one_access() -> None:
    model = build()
    effects = block(model, 0x20 << 16 | SELECT | READ, MOST_BY_DMA, 0x1000)
    moved: list[tuple[int, int]] = []
    answers = 1  # the block
    while isinstance(transfer := effects[0], Transfer):
        moved += transfer.ranges
        answers += 1
        model.complete(0, transfer.tag, DONE)
        effects = model.take_effects()
    assert effects[0] == MemoryWrite(0x100, bytes(4))
    assert sum(size for _, size in moved) == MOST_BY_DMA
    assert moved[0] == (0x1000, len(LARGE))
    assert moved[1] == (0x1000 + len(LARGE), MOST_AT_ONCE)
    assert all(start + size == after for (start, size), (after, _) in pairwise(moved))
    assert answers + 1 <= 16


def test_longer_read_is_an_error_and_moves_nothing() -> None:
    model = build()
    effects = block(model, SELECT | READ, MOST_BY_DMA + 1, 0x1000)
    assert effects == [MemoryWrite(0x100, b"\0\0\0\x01")]


def test_long_skip_and_long_refused_write_are_done_at_once() -> None:
    assert block(build(), SELECT | SKIP, 0xFFFF_FFFF, 0) == [MemoryWrite(0x100, bytes(4))]
    assert block(build(), SELECT | WRITE, 0xFFFF_FFFF, 0) == [MemoryWrite(0x100, b"\0\0\0\x01")]


def test_answers_that_nobody_waits_for_are_ignored() -> None:
    model = build()
    before = model.snapshot()
    model.memory(0, BLOCK, bytes(16))
    model.memory(0, 3, bytes(64))
    model.complete(0, 2, DONE)
    assert model.take_effects() == []
    assert model.snapshot() == before


def test_reset_selects_the_signature_and_forgets_half_an_address(guest: Guest) -> None:
    guest.outw(0x20)
    guest.inb(5)
    guest.model.write(0, 4, 4, 0xFFFF_FFFF)
    guest.model.reset(0)
    assert guest.inb(4) == b"QEMU"
    assert guest.model.snapshot() != build().snapshot()
    guest.model.reset(0)
    assert guest.model.snapshot() == build().snapshot()


def test_snapshot_in_the_middle_of_a_dma_goes_on() -> None:
    first, second = build(), build()
    (transfer,) = block(first, 0x20 << 16 | SELECT | READ, len(LARGE) + 7, 0x1000)
    assert isinstance(transfer, Transfer)
    second.restore(first.snapshot())
    for model in (first, second):
        model.complete(0, transfer.tag, DONE)
        assert model.take_effects() == [
            Transfer(2, 0, len(CONTENT), [(0x1000 + len(LARGE), 7)], 1),
        ]
    assert first.snapshot() == second.snapshot()


def test_snapshot_of_another_machine_with_less_items_is_refused() -> None:
    guest = Guest()
    guest.outw(0x20)
    guest.inb(5)
    other = FwCfg(directory=DIRECTORY.pack(0, 4, 0), small=b"QEMU")
    with pytest.raises(SnapshotError, match="byte 5 of item 0x20"):
        other.restore(guest.model.snapshot())
