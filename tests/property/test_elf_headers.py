"""ELF headers of any content decode as pyelftools decodes them."""

from __future__ import annotations

import io
from collections.abc import Mapping

import pytest
from elftools.common.utils import struct_parse
from elftools.elf.enums import ENUM_E_MACHINE, ENUM_E_TYPE, ENUM_P_TYPE_BASE
from elftools.elf.structs import ELFStructs
from hypothesis import given
from hypothesis import strategies as st

from kvmbox.boot.elf import headers
from kvmbox.boot.elf.headers import (
    FILE_HEADER_SIZE,
    IDENTITY_SIZE,
    PROGRAM_HEADER_SIZE,
    FileHeader,
    ProgramHeader,
    file_header,
    program_header,
)

IDENTITY = {32: b"\x7fELF\x01\x01\x01", 64: b"\x7fELF\x02\x01\x01"}
SPARSE = st.lists(st.sampled_from([0, 0, 1, 2, 3, 62, 0x7F, 0xFF]), min_size=64, max_size=64).map(bytes)
FIELDS = st.one_of(st.binary(min_size=64, max_size=64), SPARSE)


def structs_of(bits: int) -> ELFStructs:
    structs = ELFStructs(little_endian=True, elfclass=bits)
    structs.create_basic_structs()
    structs.create_advanced_structs("ET_EXEC", "EM_X86_64", "ELFOSABI_SYSV")
    return structs


STRUCTS = {bits: structs_of(bits) for bits in (32, 64)}


def number(names: Mapping[str, int], value: str | int) -> int:
    """pyelftools gives the names that it knows, and numbers else."""
    return names[value] if isinstance(value, str) else value


@pytest.mark.parametrize("bits", [32, 64])
@given(fields=FIELDS)
def test_file_header_of_any_content_decodes_as_pyelftools_does(bits: int, fields: bytes) -> None:
    data = (IDENTITY[bits].ljust(IDENTITY_SIZE, b"\0") + fields)[: FILE_HEADER_SIZE[bits]]

    raw = struct_parse(STRUCTS[bits].Elf_Ehdr, io.BytesIO(data), stream_pos=0)

    assert file_header(data, bits) == FileHeader(
        type=number(ENUM_E_TYPE, raw["e_type"]),
        machine=number(ENUM_E_MACHINE, raw["e_machine"]),
        entry=raw["e_entry"],
        program_offset=raw["e_phoff"],
        program_size=raw["e_phentsize"],
        program_count=raw["e_phnum"],
        section_offset=raw["e_shoff"],
        section_size=raw["e_shentsize"],
        section_count=raw["e_shnum"],
    )


@pytest.mark.parametrize("bits", [32, 64])
@given(fields=FIELDS, index=st.integers(0, 3))
def test_program_header_of_any_content_decodes_as_pyelftools_does(
    bits: int, fields: bytes, index: int
) -> None:
    position = index * PROGRAM_HEADER_SIZE[bits]
    data = bytes(position) + fields

    raw = struct_parse(STRUCTS[bits].Elf_Phdr, io.BytesIO(data), stream_pos=position)

    assert program_header(data, bits, index, position) == ProgramHeader(
        index,
        number(ENUM_P_TYPE_BASE, raw["p_type"]),
        raw["p_offset"],
        raw["p_vaddr"],
        raw["p_paddr"],
        raw["p_filesz"],
        raw["p_memsz"],
    )


def test_header_sizes_and_constants_are_those_of_pyelftools() -> None:
    for bits, structs in STRUCTS.items():
        assert FILE_HEADER_SIZE[bits] == structs.Elf_Ehdr.sizeof()
        assert PROGRAM_HEADER_SIZE[bits] == structs.Elf_Phdr.sizeof()
    for name, names in [("ET", ENUM_E_TYPE), ("EM", ENUM_E_MACHINE), ("PT", ENUM_P_TYPE_BASE)]:
        ours = {key: value for key, value in vars(headers).items() if key.startswith(f"{name}_")}
        assert ours
        assert ours == {key: names[key] for key in ours}
