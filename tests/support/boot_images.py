"""Builders of guest images for the tests of kvmbox.boot: the formats' specifications, and struct only."""

from __future__ import annotations

import struct
from dataclasses import dataclass

PT_LOAD = 1
PT_DYNAMIC = 2
PT_INTERP = 3
PT_NOTE = 4
ET_REL = 1
ET_EXEC = 2
ET_DYN = 3
ET_CORE = 4
EM_386 = 3
EM_X86_64 = 62

CODE = bytes(range(1, 33))


@dataclass
class Piece:
    """One program header and its bytes. `physical` is as `virtual`, sizes are as `data`, unless given."""

    data: bytes = CODE
    virtual: int = 0x100000
    physical: int | None = None
    memory_size: int | None = None
    file_size: int | None = None
    offset: int | None = None
    type: int = PT_LOAD


def elf(
    pieces: list[Piece] | None = None,
    *,
    bits: int = 32,
    entry: int = 0x100000,
    file_type: int = ET_EXEC,
    machine: int | None = None,
    elf_class: int | None = None,
    order: int = 1,
    version: int = 1,
    count: int | None = None,
    entry_size: int | None = None,
    section_offset: int = 0,
    section_count: int = 0,
) -> bytes:
    """An ELF file: header, program headers, then the pieces' bytes one behind the other."""
    pieces = [Piece()] if pieces is None else pieces
    header_size, program_size, section_size = (52, 32, 40) if bits == 32 else (64, 56, 64)
    identity = (
        b"\x7fELF" + bytes([elf_class if elf_class is not None else bits // 32, order, version]) + bytes(9)
    )
    header = struct.pack(
        "<HHIIIIIHHHHHH" if bits == 32 else "<HHIQQQIHHHHHH",
        file_type,
        machine if machine is not None else (EM_386 if bits == 32 else EM_X86_64),
        1,
        entry,
        header_size,
        section_offset,
        0,
        header_size,
        program_size if entry_size is None else entry_size,
        len(pieces) if count is None else count,
        section_size,
        section_count,
        0,
    )
    table, body = b"", b""
    data_start = header_size + program_size * len(pieces)
    for piece in pieces:
        offset = data_start + len(body) if piece.offset is None else piece.offset
        physical = piece.virtual if piece.physical is None else piece.physical
        file_size = len(piece.data) if piece.file_size is None else piece.file_size
        memory_size = file_size if piece.memory_size is None else piece.memory_size
        if bits == 32:
            table += struct.pack(
                "<8I", piece.type, offset, piece.virtual, physical, file_size, memory_size, 7, 4096
            )
        else:
            table += struct.pack(
                "<II6Q", piece.type, 7, offset, piece.virtual, physical, file_size, memory_size, 4096
            )
        body += piece.data
    return identity + header + table + body


def multiboot_header(
    flags: int = 3,
    addresses: tuple[int, int, int, int, int] | None = None,
    video: tuple[int, int, int, int] | None = None,
) -> bytes:
    """A Multiboot 1 header; `addresses` are header, load, load_end, bss_end, entry, and set flag 16. `video`
    is mode_type, width, height, depth, and sets flag 2.
    """
    if addresses is not None:
        flags |= 1 << 16
    if video is not None:
        flags |= 1 << 2
        addresses = addresses or (0, 0, 0, 0, 0)
    header = struct.pack("<III", 0x1BADB002, flags, -(0x1BADB002 + flags) & 0xFFFF_FFFF)
    header += struct.pack("<5I", *addresses) if addresses is not None else b""
    return header + (struct.pack("<4I", *video) if video is not None else b"")


def multiboot2_tag(
    kind: int, content: bytes = b"", *, optional: bool = False, size: int | None = None
) -> bytes:
    """One header tag with its padding; `size` is a wrong one."""
    tag = struct.pack("<HHI", kind, int(optional), 8 + len(content) if size is None else size) + content
    return tag + bytes(-len(tag) % 8)


def multiboot2_header(
    *tags: bytes, architecture: int = 0, length: int | None = None, end: bool = True
) -> bytes:
    """A Multiboot 2 header with `tags`, and the end tag behind them; `length` is a wrong one."""
    body = b"".join(tags) + (multiboot2_tag(0) if end else b"")
    length = 16 + len(body) if length is None else length
    checksum = -(0xE85250D6 + architecture + length) & 0xFFFF_FFFF
    return struct.pack("<IIII", 0xE85250D6, architecture, length, checksum) + body


def pvh_note(entry: int, size: int = 4) -> Piece:
    """A PT_NOTE segment with XEN_ELFNOTE_PHYS32_ENTRY, an address of `size` bytes."""
    note = elf_note(b"Xen\0", 18, (entry & (1 << 8 * size) - 1).to_bytes(size, "little"))
    return Piece(data=note, type=PT_NOTE)


def bzimage(
    code: bytes = CODE * 32,
    *,
    version: int = 0x20F,
    sectors: int = 1,
    jump: int = 0x6A,
    fields: dict[int, tuple[int, int]] | None = None,
) -> bytes:
    """A Linux kernel image: boot sector, `sectors` of setup code, `code` as the kernel proper.

    It has a 64-bit entry and wants 1 MiB from 0x200000 on. `fields` are {offset: (value, size)} that differ.
    """
    values = {
        0x1F1: (sectors, 1),  # setup_sects
        0x1F4: (-(-len(code) // 16), 4),  # syssize
        0x1FE: (0xAA55, 2),
        0x200: (0xEB | jump << 8, 2),
        0x206: (version, 2),
        0x211: (1, 1),  # loadflags: LOADED_HIGH
        0x214: (0x100000, 4),  # code32_start
        0x22C: (0x7FFF_FFFF, 4),  # initrd_addr_max
        0x230: (0x200000, 4),  # kernel_alignment
        0x234: (1, 1),  # relocatable_kernel
        0x236: (1, 2),  # xloadflags: XLF_KERNEL_64
        0x238: (100, 4),  # cmdline_size
        0x258: (0x200000, 8),  # pref_address
        0x260: (0x100000, 4),  # init_size
    }
    head = bytearray(512 * ((sectors or 4) + 1))
    head[0x202:0x206] = b"HdrS"
    for offset, (value, size) in (values | (fields or {})).items():
        head[offset : offset + size] = value.to_bytes(size, "little")
    return bytes(head) + code


def elf_note(name: bytes, note_type: int, descriptor: bytes) -> bytes:
    """One ELF note, padded as the gABI says."""

    def pad(data: bytes) -> bytes:
        return data + bytes(-len(data) % 4)

    return struct.pack("<III", len(name), len(descriptor), note_type) + pad(name) + pad(descriptor)
