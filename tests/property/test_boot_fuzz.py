"""Damaged and hostile images: either they load, or there is an ImageError of one line. Nothing else."""

from __future__ import annotations

import struct
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from kvmbox.base import layout
from kvmbox.base.errors import ImageError
from kvmbox.base.memory import GuestMemory
from kvmbox.boot import BootOptions, BootPlan, GuestImage, load_image
from kvmbox.boot.plan import Refusal
from kvmbox.boot.ways import ways
from tests.support.boot_images import (
    CODE,
    PT_NOTE,
    Piece,
    bzimage,
    elf,
    elf_note,
    multiboot2_header,
    multiboot2_tag,
    multiboot_header,
    pvh_note,
)

SIZE = 4 * layout.MIB
MEMORY = GuestMemory(SIZE)

_NOTE = Piece(data=elf_note(b"GNU\0", 1, bytes(16)) + elf_note(b"Xen\0", 18, bytes(4)), type=PT_NOTE)
_BSS = Piece(data=b"data" * 8, virtual=0x200000, memory_size=0x3000)
_RELOCATABLE = multiboot2_tag(10, struct.pack("<IIII", 0x100000, 0x3FFFFF, 0x1000, 2))
SEEDS = [
    elf([Piece(), _BSS]),
    elf([Piece(), _BSS], bits=64),
    elf([Piece(), _NOTE], bits=64),
    elf([Piece(data=multiboot_header() + CODE), _BSS]),
    elf([Piece(data=multiboot_header() + CODE)], bits=64),
    multiboot_header(3, (0x200000, 0x200000, 0, 0x201000, 0x200020)) + CODE * 4,
    bytes(32) + multiboot_header(3, (0x200020, 0x200000, 0x200060, 0, 0x200040)) + CODE * 4,
    multiboot2_header(),
    elf([Piece(data=bytes(4) + multiboot2_header(_RELOCATABLE) + CODE), _BSS]),
    elf([Piece(), _BSS, pvh_note(0x100000)]),
    elf([Piece(), pvh_note(0x100000, 8)], bits=64),
    elf([Piece(), Piece(data=elf_note(b"Linux\0", 0x101, bytes(4)), type=PT_NOTE)], bits=64),
    bzimage(),
    bzimage(version=0x206),
]
# Numbers at which size arithmetic goes wrong.
_ABSURD = [
    0,
    1,
    2,
    0x7F,
    0xFF,
    0x7FFF,
    0xFFFE,
    0xFFFF,
    0x1000,
    0x9000,
    SIZE - 1,
    SIZE,
    0x7FFF_FFFF,
    0xFFFF_FFFF,
]
_ABSURD += [0x1BADB002, 0xC000_0000, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, (1 << 64) - SIZE]


@st.composite
def damaged_images(draw: st.DrawFn) -> bytes:
    data = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(1, 4))):
        position = draw(st.integers(0, max(len(data) - 1, 0)))
        match draw(st.sampled_from(["bit", "field", "cut", "extend", "bytes"])):
            case "bit" if data:
                data[position] ^= 1 << draw(st.integers(0, 7))
            case "field":
                size = draw(st.sampled_from([1, 2, 4, 8]))
                position &= ~(min(size, 4) - 1)
                value = draw(st.sampled_from(_ABSURD)) & (1 << 8 * size) - 1
                data[position : position + size] = value.to_bytes(size, "little")
            case "cut":
                del data[position:]
            case "extend":
                data += draw(st.binary(max_size=64))
            case _:
                patch = draw(st.binary(max_size=16))
                data[position : position + len(patch)] = patch
    return bytes(data)


def load_or_refuse(data: bytes) -> None:
    image = GuestImage("fuzzed", data)
    asked = {way.name for way in ways(image)}
    for found in [way.examine(image) for way in ways() if way.name not in asked]:
        assert isinstance(found, Refusal)
        assert not found.kind
    MEMORY.clear()
    result: BootPlan | None = None
    message = ""
    try:
        result = load_image(image, MEMORY, BootOptions())
    except ImageError as error:
        message = str(error)
    if result is None:
        assert message.isprintable()
        assert len(message) < 400
        assert MEMORY.read(0, SIZE) == bytes(SIZE)
        return
    spans = sorted((s.address, s.end) for s in result.segments)
    assert spans
    assert all(end <= SIZE for _, end in spans)
    assert all(upper[0] >= lower[1] for lower, upper in pairwise(spans))
    assert any(start <= result.entry < end for start, end in spans)
    assert result.state.rip == result.entry
    for segment in result.segments:
        stored = MEMORY.read(segment.address, segment.memory_size)
        taken = data[segment.offset : segment.offset + segment.file_size]
        assert len(taken) == segment.file_size
        assert stored == taken.ljust(segment.memory_size, b"\0")


@given(damaged_images())
def test_boot_damaged_image_loads_or_is_refused(data: bytes) -> None:
    load_or_refuse(data)


@given(st.binary(max_size=2000))
def test_boot_random_bytes_load_or_are_refused(data: bytes) -> None:
    load_or_refuse(data)


@given(st.sampled_from([32, 64]), st.data())
def test_boot_absurd_program_header_loads_or_is_refused(bits: int, data: st.DataObject) -> None:
    top = (1 << bits) - 1
    number = st.one_of(
        st.sampled_from(_ABSURD).map(lambda v: v & top), st.integers(0, top), st.integers(0x100000, SIZE)
    )
    piece = Piece(
        virtual=data.draw(number),
        physical=data.draw(number),
        memory_size=data.draw(number),
        file_size=data.draw(st.one_of(number, st.integers(0, 64))),
        offset=data.draw(st.one_of(number, st.integers(0, 200))),
    )
    load_or_refuse(elf([Piece(), piece], bits=bits, entry=data.draw(st.one_of(number, st.just(0x100000)))))


@given(
    st.lists(
        st.one_of(st.sampled_from([v & 0xFFFF_FFFF for v in _ABSURD]), st.integers(0x1FFFF0, 0x200080)),
        min_size=5,
        max_size=5,
    )
)
def test_boot_absurd_multiboot_addresses_load_or_are_refused(addresses: list[int]) -> None:
    header_address, load, load_end, bss_end, entry = addresses
    load_or_refuse(multiboot_header(3, (header_address, load, load_end, bss_end, entry)) + CODE)


@given(st.binary(min_size=12, max_size=64))
def test_boot_hostile_notes_load_or_are_refused(notes: bytes) -> None:
    load_or_refuse(elf([Piece(), Piece(data=notes, type=PT_NOTE)]))
    load_or_refuse(elf([Piece(), Piece(data=struct.pack("<III", 4, 0xFFFF_FFFF, 18) + notes, type=PT_NOTE)]))
