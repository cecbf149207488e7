"""Hostile guest images, format by format.

Each image is a right one of its format with some fields of its headers set to numbers that go wrong, or cut,
or with bits flipped. It must be refused in one line, or be planned so that nothing overlaps and all is in
RAM.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from itertools import pairwise
from typing import Final

from kvmbox.base import layout
from kvmbox.base.errors import ImageError, UsageError
from kvmbox.base.memory import GuestMemory
from kvmbox.boot import BootOptions, BootPlan, GuestImage, Module, load_image
from kvmbox.boot.cpu_state import CR0_PE
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
from tests.support.dice import Dice

SIZE: Final = 4 * layout.MIB
MAX_COST: Final = 2 * layout.MIB
"""Bytes that a plan for one of these small images may hold besides its segments: page tables and modules."""

Field = tuple[int, int]
"""Offset and size of a number in an image."""

_NUMBERS: Final = (
    *(0, 1, 2, 3, 7, 8, 15, 16, 0x7F, 0x80, 0xFF, 0x1FF, 0x200, 0x7FFF, 0x8000, 0xFFFE, 0xFFFF, 0x10000),
    *(0x1000, 0x9000, 0x9FC00, 0xA0000, 0xF0000, 0x100000, 0x100020, 0x200000, SIZE - 1, SIZE, SIZE + 1),
    *(0x7FFF_FFFF, 0x8000_0000, 0xBFFF_FFFF, 0xC000_0000, 0xFFFF_F000, 0xFFFF_FFFF, 1 << 32, (1 << 32) + 1),
    *((1 << 63) - 1, 1 << 63, (1 << 64) - SIZE, (1 << 64) - 0x1000, (1 << 64) - 1),
)


def _elf_fields(data: bytes) -> list[Field]:
    """All numbers of an ELF file's file header, program headers and notes, and a section header table."""
    wide = data[4] == 2
    fields = [(4, 1), (5, 1), (6, 1), (16, 2), (18, 2)]
    word = 8 if wide else 4
    fields += [(24 + word * i, word) for i in range(3)]
    tail = 24 + 3 * word + 4
    fields += [(tail + 2 * i, 2) for i in range(6)]
    start, size = (64, 56) if wide else (52, 32)
    count = int.from_bytes(data[tail + 4 : tail + 6], "little")
    for number in range(count):
        at = start + size * number
        fields += [(at, 4), *((at + 8 + 8 * i, 8) for i in range(5))] if wide else []
        fields += [(at + 4 * i, 4) for i in range(6)] if not wide else []
    body = start + size * count
    return fields + [(at, 4) for at in range(body, min(len(data), body + 400), 4)]


def _multiboot2_fields(data: bytes) -> list[Field]:
    start = data.find(b"\xd6\x50\x52\xe8")
    return [(start + at, 4) for at in range(0, 160, 4)] + [(start + 16 + 2 * at, 2) for at in range(16)]


_LINUX_FIELDS: Final[list[Field]] = [
    *((0x1F1, 1), (0x1F2, 2), (0x1F4, 4), (0x1F8, 2), (0x1FE, 2), (0x200, 1), (0x201, 1), (0x202, 4)),
    *((0x206, 2), (0x208, 4), (0x20E, 2), (0x210, 1), (0x211, 1), (0x214, 4), (0x218, 8), (0x224, 2)),
    *((0x228, 4), (0x22C, 4), (0x230, 4), (0x234, 1), (0x235, 1), (0x236, 2), (0x238, 4), (0x250, 8)),
    *((0x258, 8), (0x260, 4), (0x264, 4)),
]


def _multiboot_fields(data: bytes) -> list[Field]:
    start = data.find(b"\x02\xb0\xad\x1b")
    return [(start + at, 4) for at in range(0, 32, 4)]


def _multiboot2(*tags: bytes, bits: int = 32) -> bytes:
    header = multiboot2_header(*tags)
    return elf([Piece(data=bytes(4 if bits == 32 else 0) + header + CODE)], bits=bits)


def _with_symbols(data: bytes) -> bytes:
    """A 32-bit ELF file with two more sections: symbols and their strings."""
    made = bytearray(data)
    table = len(made) + 16
    made += b"symbols!strings!" + bytes(40)
    made += struct.pack("<10I", 0, 2, 0, 0, table - 16, 8, 2, 0, 4, 16)
    made += struct.pack("<10I", 0, 3, 0, 0, table - 8, 8, 0, 0, 1, 0)
    made[32:36] = table.to_bytes(4, "little")
    made[46:52] = struct.pack("<HHH", 40, 3, 2)
    return bytes(made)


_RELOCATABLE: Final = multiboot2_tag(10, struct.pack("<IIII", 0x100000, 0xFFFF_FFFF, 0x1000, 2))
_ADDRESSES: Final = multiboot2_header(
    multiboot2_tag(2, struct.pack("<IIII", 0x200020, 0x200000, 0, 0x202000)),
    multiboot2_tag(3, struct.pack("<I", 0x200060)),
)
_BSS: Final = Piece(data=b"data" * 8, virtual=0x200000, memory_size=0x3000)
_LINUX_NOTE: Final = Piece(data=elf_note(b"Linux\0", 0x101, bytes(4)), type=PT_NOTE)

_MB1: Final = _with_symbols(elf([Piece(data=multiboot_header() + CODE), _BSS]))
_MB1_FLAT: Final = multiboot_header(3, (0x200000, 0x200000, 0, 0x201000, 0x200020)) + CODE * 4
_MB2: Final = _with_symbols(_multiboot2(_RELOCATABLE))
_MB2_TAGS: Final = _multiboot2(multiboot2_tag(1, bytes(16)), multiboot2_tag(4, b"\2\0\0\0"), bits=64)
_MB2_FLAT: Final = bytes(32) + _ADDRESSES + CODE * 4

_MB1_ODD: Final = tuple(
    elf([Piece(data=b"\0\x02\xb0\xad\x1b\0\0\0" + multiboot_header(video=(kind, 1024, 768, 16)) + CODE)])
    for kind in (0, 1)
)
_MB2_ODD: Final = elf(
    [
        Piece(
            data=bytes(5)
            + b"\xd6\x50\x52\xe8\0\0\0"
            + multiboot2_header(*[multiboot2_tag(20, optional=True)] * 2)
            + CODE
        )
    ]
)
_MB2_MOVED: Final = (
    bytes(32)
    + multiboot2_header(
        multiboot2_tag(2, struct.pack("<IIII", 0x200020, 0x200000, 0, 0x202000)),
        multiboot2_tag(3, struct.pack("<I", 0x200078)),
        _RELOCATABLE,
    )
    + CODE * 4
)

Seed = tuple[bytes, list[Field]]
"""A right image, and its fields."""


def _elf_seeds(*images: bytes) -> list[Seed]:
    return [(data, _elf_fields(data)) for data in images]


SEEDS: Final[dict[str, list[Seed]]] = {
    "elf": _elf_seeds(elf([Piece(), _BSS]), elf([Piece(), _BSS], bits=64)),
    "multiboot": [
        (_MB1, _multiboot_fields(_MB1) + _elf_fields(_MB1)),
        (_MB1_FLAT, _multiboot_fields(_MB1_FLAT)),
        *((one, _multiboot_fields(one)) for one in _MB1_ODD),
    ],
    "multiboot2": [
        (_MB2, _multiboot2_fields(_MB2) + _elf_fields(_MB2)),
        (_MB2_TAGS, _multiboot2_fields(_MB2_TAGS)),
        *((one, _multiboot2_fields(one)) for one in (_MB2_FLAT, _MB2_MOVED, _MB2_ODD)),
    ],
    "pvh": _elf_seeds(
        elf([Piece(), _BSS, pvh_note(0x100000)]), elf([Piece(), pvh_note(0x100000, 8)], bits=64)
    ),
    "linux": [
        (bzimage(), _LINUX_FIELDS),
        (bzimage(version=0x206), _LINUX_FIELDS),
        (bzimage(version=0x207, fields={0x214: (0, 4)}), _LINUX_FIELDS),
        *_elf_seeds(elf([Piece(), _LINUX_NOTE], bits=64)),
    ],
}
_CHECKSUMS: Final = {b"\x02\xb0\xad\x1b": 3, b"\xd6\x50\x52\xe8": 4}  # words of a header that add up to 0


class Fault(Exception):
    """An image that was not refused as it should have been, or planned as it should not have been."""


def hostile(kind: str, dice: Dice) -> bytes:
    """An image of the format `kind`, made wrong."""
    source, fields = dice.some(SEEDS[kind])
    data = bytearray(source)
    for _ in range(dice.some((0, 1, 1, 2, 3, 5))):
        offset, size = dice.some(fields)
        number = dice.some(_NUMBERS)
        way = dice.byte() % 8
        if way < 2:
            number = int.from_bytes(data[offset : offset + size], "little") + dice.randint(-17, 17)
        elif way == 2:
            number = len(data) + dice.randint(-64, 64)
        elif way == 3:
            number = dice.number(size)
        if offset + size <= len(data):
            data[offset : offset + size] = (number & (1 << 8 * size) - 1).to_bytes(size, "little")
    way = dice.byte() % 16
    if way == 0:
        del data[dice.randrange(len(data)) :]
    elif way == 1 and data:
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    elif way == 3:  # so much that numbers of sectors can be large
        data += bytes(0x10000)
    if way != 2:
        _mend_checksums(data)
    return bytes(data)


def _mend_checksums(data: bytearray) -> None:
    for magic, words in _CHECKSUMS.items():
        at = data.find(magic)
        if 0 <= at <= len(data) - 4 * words:
            *others, _ = struct.unpack_from(f"<{words}I", data, at)
            struct.pack_into("<I", data, at + 4 * (words - 1), -sum(others) & 0xFFFF_FFFF)


_MEMORY: Final = GuestMemory(SIZE)
OPTIONS: Final = (
    BootOptions(),
    BootOptions(command_line="a b=c"),
    *(BootOptions(command_line=f"x vga={mode}") for mode in ("0x317", "ask", "normal", "x", "-5", "70000")),
    BootOptions(command_line="x" * 3000),
    BootOptions(modules=(Module("m", b"m" * 5000, "x"),)),
    BootOptions(initrd=Module("i", b"i" * 5000)),
    BootOptions(command_line="x vga=0x3ff"),
    BootOptions(command_line="x" * 70_000),
    BootOptions(bios="none"),
    BootOptions(firmware_tables=False),
)


def check(kind: str, dice: Dice) -> bool:
    """Load one image; whether it was accepted. Raises Fault."""
    memory = _MEMORY
    asked, is_told = dice.some(OPTIONS), dice.byte() & 1
    data = hostile(kind, dice)
    for way in ways():
        way.examine(GuestImage("hostile", data))
    memory.clear()
    # Half of the images are what they are; half go to the way whose format they have.
    options = BootOptions(asked.command_line, asked.modules, asked.initrd, boot=kind) if is_told else asked
    try:
        plan = load_image(GuestImage("hostile", data), memory, options)
    except (ImageError, UsageError) as error:
        told = str(error)
        if not told.isprintable() or len(told) > 400:
            raise Fault(f"{kind}: refused as {told!r}") from error
        if memory.read(0, 0x10000) != bytes(0x10000) or memory.read(0x100000, 64) != bytes(64):
            raise Fault(f"{kind}: refused with memory changed") from error
        return False
    why = wrong_in(plan, memory, len(data))
    if why:
        raise Fault(f"{kind}: {why}")
    return True


def wrong_in(plan: BootPlan, memory: GuestMemory, size: int) -> str:
    """What is wrong in a plan for an image of `size` bytes; empty if nothing is."""
    spans = [(one.address, one.end, "segment") for one in plan.segments]
    from_reset = plan.state.cr0 & CR0_PE == 0  # a BIOS starts first, and goes to the entry then
    if not from_reset and not any(start <= plan.entry < end for start, end, _ in spans):
        return f"entry {plan.entry:#x} in no segment"
    if not from_reset and plan.state.rip != plan.entry:
        return f"RIP {plan.state.rip:#x} for entry {plan.entry:#x}"
    if any(
        one.file_size > (one.memory_size if one.offset + one.file_size <= size else 0)
        for one in plan.segments
    ):
        return f"a segment from outside of the file: {plan.segments}"
    spans += [(address, address + len(data), "write") for address, data in plan.writes if data]
    if not all(memory.contains(start, end - start) for start, end, _ in spans):
        return f"not all in RAM: {spans}"
    if sum(len(data) for _, data in plan.writes) > MAX_COST:
        return f"writes of {sum(len(data) for _, data in plan.writes)} bytes"
    for lower, upper in pairwise(sorted(spans)):
        if upper[0] < lower[1]:
            return f"overlap of {lower} and {upper}"
    return ""


def load_any(dice: Dice) -> None:
    """An image of any format."""
    check(dice.some(tuple(SEEDS)), dice)


TARGETS: Final[dict[str, Callable[[Dice], None]]] = {"boot-images": load_any}
