"""The chain of frame pointers: bounded, whatever the guest's memory holds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kvmbox.explain.frame_chain import PAGE, return_addresses, words_at


class Memory:
    """Pages of the guest; linear and physical addresses differ by `shift`."""

    def __init__(self, shift: int = 0x10000) -> None:
        self.shift = shift
        self.pages: dict[int, bytearray] = {}
        self.translated: list[int] = []

    def store(self, address: int, value: int, word: int = 8) -> None:
        page = self.pages.setdefault(address // PAGE, bytearray(PAGE))
        page[address % PAGE : address % PAGE + word] = value.to_bytes(word, "little")

    def translate(self, linear: int) -> int | None:
        self.translated.append(linear)
        return linear + self.shift if linear // PAGE in self.pages else None

    def read(self, physical: int, size: int) -> bytes:
        linear = physical - self.shift
        assert linear // PAGE == (linear + size - 1) // PAGE
        return bytes(self.pages[linear // PAGE][linear % PAGE : linear % PAGE + size])


def chain(memory: Memory, pointer: int, stack: int, word: int = 8, most: int = 31) -> list[int]:
    return return_addresses(pointer, stack, word, memory.translate, memory.read, most)


def frame(memory: Memory, at: int, saved: int, target: int, word: int = 8) -> None:
    memory.store(at, saved, word)
    memory.store(at + word, target, word)


def test_chain_gives_the_return_addresses_innermost_first() -> None:
    memory = Memory()
    frame(memory, 0x8010, 0x8040, 0x100)
    frame(memory, 0x8040, 0, 0x200)
    assert chain(memory, 0x8010, 0x8000) == [0x100, 0x200]
    assert memory.translated == [0x8000]


def test_chain_of_32_bit_frames() -> None:
    memory = Memory()
    frame(memory, 0x8004, 0, 0x100, word=4)
    assert chain(memory, 0x8004, 0x8000, word=4) == [0x100]


def test_frame_across_two_pages_is_followed() -> None:
    memory = Memory()
    frame(memory, 0x8FF8, 0x9010, 0x100)
    frame(memory, 0x9010, 0, 0x200)
    assert chain(memory, 0x8FF8, 0x8FF0) == [0x100, 0x200]


def test_chain_ends_where_a_frame_is_not_above_the_one_before() -> None:
    memory = Memory()
    frame(memory, 0x8010, 0x8010, 0x100)
    assert chain(memory, 0x8010, 0x8000) == [0x100]
    assert chain(memory, 0x8010, 0x8018) == []


def test_chain_ends_at_memory_that_is_not_there_at_odd_pointers_and_at_zero() -> None:
    memory = Memory()
    frame(memory, 0x8010, 0x7000_0000, 0x100)
    frame(memory, 0x8020, 0x8031, 0x100)
    frame(memory, 0x8040, 0x8060, 0)
    memory.store(0x8FF8, 1)
    assert chain(memory, 0x8010, 0) == [0x100]
    assert chain(memory, 0x8020, 0) == [0x100]
    assert chain(memory, 0x8040, 0) == []
    assert chain(memory, 0x8FF8, 0) == []


def test_chain_is_no_longer_than_asked_for() -> None:
    memory = Memory()
    for at in range(0x8000, 0x8F00, 16):
        frame(memory, at, at + 16, 0x100)
    assert chain(memory, 0x8000, 0x8000, most=5) == [0x100] * 5


@given(st.binary(max_size=256), st.integers(0, 2**64 - 1), st.integers(0, 0x8200), st.sampled_from([4, 8]))
def test_any_memory_gives_a_bounded_chain(content: bytes, pointer: int, stack: int, word: int) -> None:
    memory = Memory()
    memory.pages[8] = bytearray(content.ljust(PAGE, b"\x80"))
    for start in (pointer, 0x8000 + pointer % 256):
        assert len(chain(memory, start, stack, word)) <= 31


def test_top_of_the_stack_is_read_across_pages_up_to_the_first_that_is_not_there() -> None:
    memory = Memory()
    for index in range(4):
        memory.store(0x8FF0 + 8 * index, index + 1)
    assert words_at(0x8FF0, 4, 8, memory.translate, memory.read) == [1, 2, 3, 4]
    assert words_at(0x8FF0, 2, 4, memory.translate, memory.read) == [1, 0]
    assert words_at(0x9FF8, 4, 8, memory.translate, memory.read) == [0]
    assert words_at(0xA000, 4, 8, memory.translate, memory.read) == []
