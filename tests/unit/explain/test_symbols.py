"""Names of addresses."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmbox.explain import names, symbols
from kvmbox.explain.symbols import LONGEST_GUESS, Place, Symbols

MAP = b"""\
0000000000100000 T start
0000000000100020 t helper
ffffffff81000000 T _text
0000000000000000 A absolute
                 U undefined
nonsense
0000000000200000 D table
"""


def test_address_within_a_symbol_is_named_with_its_offset() -> None:
    table = Symbols([(0x1000, 0x20, "one"), (0x1040, 0, "two"), (0x1050, 4, "three")])
    assert table.at(0x0FFF) is None
    assert str(table.at(0x1000)) == "one"
    assert str(table.at(0x101F)) == "one+0x1f"
    assert table.at(0x1020) is None  # behind its size
    assert table.at(0x104F) == Place("two", 0xF)  # without a size: up to the next
    assert table.at(0x1054) is None


def test_last_symbol_without_a_size_does_not_name_all_memory() -> None:
    table = Symbols([(0x1000, 0, "last")])
    assert table.at(0x1000 + LONGEST_GUESS - 1) is not None
    assert table.at(0x1000 + LONGEST_GUESS) is None


def test_of_two_names_of_a_place_the_one_with_a_size_counts() -> None:
    assert str(Symbols([(1, 0, "label"), (1, 8, "function")]).at(1)) == "function"
    assert str(Symbols([(1, 8, "function"), (1, 0, "label"), (1, 9, "other")]).at(1)) == "function"


def test_system_map_and_its_base() -> None:
    table = symbols.read(MAP)
    assert len(table) == 4
    assert str(table.at(0x100021)) == "helper+0x1"
    assert str(table.at(0xFFFFFFFF81000004)) == "_text+0x4"
    assert str(symbols.read(MAP, 0x1000).at(0x101000)) == "start"
    assert table.find("helper") == 0x100020
    assert table.find("nobody") is None


@pytest.mark.parametrize("data", [b"", b"\x7fELF", b"\x7fELF" + bytes(100), b"\xff" * 1000])
def test_file_without_symbols_names_nothing(data: bytes) -> None:
    assert len(symbols.read(data)) == 0


SYMTAB, DYNSYM, STRTAB, COMPRESSED = 2, 11, 3, 1 << 11
FUNCTION, OBJECT, SECTION, FILE = 2, 1, 3, 4


def elf(*, wide: bool, kind: int = SYMTAB, flags: int = 0, count: int = 3) -> bytes:
    """An ELF file with `start` at 0x1000, a section symbol, and `helper`, which is not defined here."""
    names = b"\0start\0helper\0"
    entries = [(1, FUNCTION, 1, 0x1000, 0x20), (0, SECTION, 1, 0x1000, 0), (7, FUNCTION, 0, 0x2000, 4)]
    size = 64 if wide else 52
    table = b"".join(
        struct.pack("<IBBHQQ", name, info, 0, section, at, length)
        if wide
        else struct.pack("<IIIBBH", name, at, length, info, 0, section)
        for name, info, section, at, length in entries
    )
    form = "<IIQQQQIIQQ" if wide else "<IIIIIIIIII"
    headers = size + len(table) + len(names)
    sections = [
        # name, type, flags, address, offset, size, link, info, alignment, size of an entry
        (0, 0, 0, 0, 0, 3, 0, 0, 0, 0),
        (0, kind, flags, 0, size, len(table), 2, 0, 8, 0),
        (0, STRTAB, 0, 0, size + len(table), len(names), 0, 0, 1, 0),
    ]
    header = struct.pack(
        "<4sBB10xHHI" + ("QQQ" if wide else "III") + "IHHHHHH",
        *(b"\x7fELF", 2 if wide else 1, 1, 2, 62, 1, 0, 0, headers, 0, size, 0, 0, struct.calcsize(form)),
        *(count, 0),
    )
    return header + table + names + b"".join(struct.pack(form, *section) for section in sections)


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("kind", [SYMTAB, DYNSYM])
@pytest.mark.parametrize("count", [0, 3])
def test_symbols_of_an_elf_file(wide: bool, kind: int, count: int) -> None:
    table = symbols.read(elf(wide=wide, kind=kind, count=count), 0x100)
    assert len(table) == 1
    assert table.at(0x111F) == Place("start", 0x1F)
    assert table.at(0x1120) is None


def test_compressed_symbol_table_and_other_byte_order_name_nothing() -> None:
    assert len(symbols.read(elf(wide=True, flags=COMPRESSED))) == 0
    other = bytearray(elf(wide=True))
    other[5] = 2  # ELFDATA2MSB
    assert len(symbols.read(bytes(other))) == 0


@given(st.data(), st.booleans())
def test_damaged_elf_file_names_what_is_left(data: st.DataObject, wide: bool) -> None:
    content = bytearray(elf(wide=wide))
    for at in data.draw(st.lists(st.integers(4, len(content) - 1), max_size=8)):
        content[at] = data.draw(st.integers(0, 255))
    assert len(symbols.read(bytes(content[: data.draw(st.integers(0, len(content)))]))) <= 3


def test_names_of_cpp_and_rust_are_read() -> None:
    pytest.importorskip("demangle")
    assert names.readable("_ZN6kernel4heap5allocEmm") == "kernel::heap::alloc(unsigned long, unsigned long)"
    assert names.readable("_RNvC6_123foo3bar").startswith("123foo::bar")


@pytest.mark.parametrize("name", ["_Z", "_ZN", "_R", "_Zé", "_Z" + "N" * 5000, "plain", "_ZZZZZ"])
def test_what_is_no_such_name_stays_as_it_is(name: str) -> None:
    assert names.readable(name) == name


def test_name_of_a_hundred_bytes_does_not_become_one_of_many_thousand() -> None:
    pytest.importorskip("demangle")
    doubled = "".join(f"S_IS{digit}_S{digit}_E" for digit in "0123456789")
    name = f"_Z1f1pIiiE{doubled}"
    assert len(name) < 128
    found = names.readable(name)
    assert found.startswith("f(p<int, int>, ")
    assert len(found) == names.LONGEST_READABLE


def test_name_with_control_characters_is_escaped() -> None:
    assert names.readable("a\x1b[2Jb\n") == "a\\x1b[2Jb\\x0a"
