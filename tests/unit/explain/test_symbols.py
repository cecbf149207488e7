"""Names of addresses."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmbox.explain import demangled_names, symbols
from kvmbox.explain.symbols import LONGEST_GUESS, Place, Symbol, Symbols

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
    table = Symbols([Symbol(0x1000, 0x20, "one"), Symbol(0x1040, 0, "two"), Symbol(0x1050, 4, "three")])
    assert table.at(0x0FFF) is None
    assert str(table.at(0x1000)) == "one"
    assert str(table.at(0x101F)) == "one+0x1f"
    assert table.at(0x1020) is None  # behind its size
    assert table.at(0x104F) == Place("two", 0xF)  # without a size: up to the next
    assert table.at(0x1054) is None


def test_last_symbol_without_a_size_does_not_name_all_memory() -> None:
    table = Symbols([Symbol(0x1000, 0, "last")])
    assert table.at(0x1000 + LONGEST_GUESS - 1) is not None
    assert table.at(0x1000 + LONGEST_GUESS) is None


def test_of_two_names_of_a_place_the_higher_rank_and_then_the_first_counts() -> None:
    one, two = Symbol(1, 0, "one"), Symbol(1, 8, "two", 1)
    assert str(Symbols([one, two]).at(1)) == "two"
    assert str(Symbols([two, one, Symbol(1, 9, "other", 1)]).at(1)) == "two"


def test_system_map_and_its_base() -> None:
    table = symbols.read(MAP)
    assert len(table) == 4
    assert str(table.at(0x100021)) == "helper+0x1"
    assert str(table.at(0xFFFFFFFF81000004)) == "_text+0x4"
    assert str(symbols.read(MAP, 0x1000).at(0x101000)) == "start"
    assert table.find("helper") == 0x100020
    assert table.find("nobody") is None


def test_system_map_prefers_a_global_name() -> None:
    both = b"0000000000100000 t local\n0000000000100000 T start\n"
    assert str(symbols.read(both).at(0x100004)) == "start+0x4"


@pytest.mark.parametrize("data", [b"", b"\x7fELF", b"\x7fELF" + bytes(100), b"\xff" * 1000])
def test_file_without_symbols_names_nothing(data: bytes) -> None:
    assert len(symbols.read(data)) == 0


SYMTAB, DYNSYM, STRTAB, COMPRESSED = 2, 11, 3, 1 << 11
FUNCTION, OBJECT, SECTION, FILE = 2, 1, 3, 4


GLOBAL = 1 << 4
TEXT, HEADER = 3, 4
"""The sections of an `elf`: [0x1000, 0x1100) and, in front of that, [0xFE0, 0x1000)."""
PLAIN = [
    (b"start", FUNCTION, TEXT, 0x1000, 0x20),
    (b"", SECTION, TEXT, 0x1000, 0),
    (b"helper", FUNCTION, 0, 0x2000, 4),
]
"""`start` at 0x1000, a section symbol, and `helper`, which is not defined here."""

Row = tuple[bytes, int, int, int, int]
"""Name, binding and type, section, address and size."""


def elf(*, wide: bool, kind: int = SYMTAB, flags: int = 0, count: int = 5, rows: list[Row] = PLAIN) -> bytes:
    """An ELF file with these symbols."""
    demangled_names, entries = b"\0", []
    for name, *rest in rows:
        entries.append((len(demangled_names) if name else 0, *rest))
        demangled_names += name + b"\0"
    size = 64 if wide else 52
    table = b"".join(
        struct.pack("<IBBHQQ", name, info, 0, section, at, length)
        if wide
        else struct.pack("<IIIBBH", name, at, length, info, 0, section)
        for name, info, section, at, length in entries
    )
    form = "<IIQQQQIIQQ" if wide else "<IIIIIIIIII"
    headers = size + len(table) + len(demangled_names)
    sections = [
        # name, type, flags, address, offset, size, link, info, alignment, size of an entry
        (0, 0, 0, 0, 0, 5, 0, 0, 0, 0),
        (0, kind, flags, 0, size, len(table), 2, 0, 8, 0),
        (0, STRTAB, 0, 0, size + len(table), len(demangled_names), 0, 0, 1, 0),
        (0, 1, 6, 0x1000, 0, 0x100, 0, 0, 1, 0),
        (0, 1, 2, 0xFE0, 0, 0x20, 0, 0, 1, 0),
    ]
    header = struct.pack(
        "<4sBB10xHHI" + ("QQQ" if wide else "III") + "IHHHHHH",
        *(b"\x7fELF", 2 if wide else 1, 1, 2, 62, 1, 0, 0, headers, 0, size, 0, 0, struct.calcsize(form)),
        *(count, 0),
    )
    return header + table + demangled_names + b"".join(struct.pack(form, *section) for section in sections)


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("kind", [SYMTAB, DYNSYM])
@pytest.mark.parametrize("count", [0, 5])
def test_symbols_of_an_elf_file(wide: bool, kind: int, count: int) -> None:
    table = symbols.read(elf(wide=wide, kind=kind, count=count), 0x100)
    assert len(table) == 1
    assert table.at(0x111F) == Place("start", 0x1F)
    assert table.at(0x1120) is None


LABEL = 0
END = (b"hdr_end", LABEL, HEADER, 0x1000, 0)


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize(
    ("other", "wanted"),
    [
        ((b"_start", GLOBAL | LABEL, TEXT, 0x1000, 0), "_start+0x5"),
        ((b"_start", LABEL, TEXT, 0x1000, 0), "_start+0x5"),
        ((b"_start", FUNCTION, TEXT, 0x1000, 8), "_start+0x5"),
        ((b"before", GLOBAL | LABEL, HEADER, 0xFE0, 0), None),  # of the header, too: the code has no name
    ],
)
def test_label_at_the_end_of_a_section_does_not_name_the_next_one(
    wide: bool, other: Row, wanted: str | None
) -> None:
    for rows in ([END, other], [other, END]):
        place = symbols.read(elf(wide=wide, rows=rows)).at(0x1005)
        assert (None if place is None else str(place)) == wanted


@pytest.mark.parametrize(
    ("worse", "better"),
    [
        ((b"w", GLOBAL | LABEL, TEXT, 0x1000, 0), (b"b", FUNCTION, TEXT, 0x1000, 0)),
        ((b"w", FUNCTION, TEXT, 0x1000, 4), (b"b", GLOBAL | FUNCTION, TEXT, 0x1000, 4)),
        ((b"w", LABEL, TEXT, 0x1000, 0), (b"b", GLOBAL | LABEL, TEXT, 0x1000, 0)),
        ((b"w", LABEL, TEXT, 0x1000, 0), (b"b", LABEL, TEXT, 0x1000, 4)),
    ],
)
def test_of_two_symbols_at_one_address_the_better_counts(worse: Row, better: Row) -> None:
    for rows in ([worse, better], [better, worse]):
        assert str(symbols.read(elf(wide=True, rows=rows)).at(0x1000)) == "b"


def test_symbol_without_a_size_ends_with_its_section() -> None:
    table = symbols.read(elf(wide=True, rows=[(b"last", LABEL, TEXT, 0x10F0, 0)]))
    assert str(table.at(0x10FF)) == "last+0xf"
    assert table.at(0x1100) is None


def test_code_of_an_elf_file_is_its_sections_of_instructions() -> None:
    for wide in (False, True):
        assert symbols.code_of(elf(wide=wide), 0x10) == [range(0x1010, 0x1110)]
    assert symbols.code_of(MAP) == []
    many = bytearray(elf(wide=True))
    many[60:62] = (5 + 2 * symbols.MOST_CODE).to_bytes(2, "little")  # e_shnum
    many += bytes(many[-128:-64]) * 2 * symbols.MOST_CODE
    assert len(symbols.code_of(bytes(many))) == symbols.MOST_CODE


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
    assert (
        demangled_names.readable("_ZN6kernel4heap5allocEmm")
        == "kernel::heap::alloc(unsigned long, unsigned long)"
    )
    assert demangled_names.readable("_RNvC6_123foo3bar").startswith("123foo::bar")


@pytest.mark.parametrize("name", ["_Z", "_ZN", "_R", "_Zé", "_Z" + "N" * 5000, "plain", "_ZZZZZ"])
def test_what_is_no_such_name_stays_as_it_is(name: str) -> None:
    assert demangled_names.readable(name) == name


def test_name_of_a_hundred_bytes_does_not_become_one_of_many_thousand() -> None:
    pytest.importorskip("demangle")
    doubled = "".join(f"S_IS{digit}_S{digit}_E" for digit in "0123456789")
    name = f"_Z1f1pIiiE{doubled}"
    assert len(name) < 128
    found = demangled_names.readable(name)
    assert found.startswith("f(p<int, int>, ")
    assert len(found) == demangled_names.LONGEST_READABLE


def test_name_with_control_characters_is_escaped() -> None:
    assert demangled_names.readable("a\x1b[2Jb\n") == "a\\x1b[2Jb\\x0a"
