"""Explanations of states and files that nobody would make: they never raise, and always end."""

from __future__ import annotations

import io
import json
import random
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile

from kvmbox.base.symbol_file import SymbolFile
from kvmbox.explain import symbols
from kvmbox.explain.debug_info import DebugInfo
from kvmbox.explain.paging import CR0_PG
from kvmbox.explain.stopped_cpu import Cpu
from kvmbox.kvm.registers import format_registers
from kvmbox.kvm.uapi import kvm_regs, kvm_sregs
from kvmbox.parts.core_file.core import CoreCpu, header_size, headers, notes_of
from kvmbox.parts.core_file.page_map import Backing, page_map
from kvmbox.parts.crash_report.explanation import explain
from kvmbox.parts.crash_report.report_text import lines_of
from tests.support.stopped_cpu import Memory

STATES = 400
FILES = 150
CORES = 120
REGISTERS = "rax rbx rcx rdx rsi rdi rbp rsp r8 r9 r10 r11 r12 r13 r14 r15 rip rflags".split()  # noqa: SIM905
CONTROL = ("cr0", "cr2", "cr3", "cr4", "efer")


def number(source: random.Random) -> int:
    """Any number, more often one that is near memory or at an edge."""
    return source.choice(
        (
            *(0, 1, 0x7C00, 0x1000, 0xFFF, (1 << 64) - 1, 1 << 63, 0x8000_0000_0000, 0x8000_0001),
            *(source.randrange(1 << 16), source.getrandbits(64), source.getrandbits(32)),
        )
    )


def state(source: random.Random) -> Cpu:
    memory = Memory()
    for page in source.sample(range(20), 12):
        data = source.randbytes(4096) if source.random() < 0.5 else bytes(4096)
        memory.write(page * 4096, data)
    for _ in range(20):  # entries of tables that lead to memory
        memory.write_number(source.randrange(0, 0x5000, 8), source.randrange(20) << 12 | 0x27)
    sregs = kvm_sregs(**{name: number(source) for name in CONTROL})
    for segment in (sregs.cs, sregs.ss, sregs.tr, sregs.ldt):
        segment.base, segment.limit = number(source), source.getrandbits(32)
        segment.l, segment.db, segment.dpl = source.randrange(2), source.randrange(2), source.randrange(4)
        segment.unusable = source.randrange(2)
    for table in (sregs.gdt, sregs.idt):
        table.base, table.limit = number(source), source.getrandbits(16)
    return Cpu(kvm_regs(**{name: number(source) for name in REGISTERS}), sregs, memory.read)


def test_any_state_is_explained() -> None:
    source = random.Random(40)
    causes = set()
    for _ in range(STATES):
        cpu = state(source)
        found = explain(cpu, DebugInfo(), crashed=True)
        json.dumps(found.as_json())
        text = lines_of(found, format_registers(cpu.regs, cpu.sregs))
        assert all(line.isprintable() for line in text)
        assert len(text) < 200
        if found.fault is not None:
            causes.add(found.fault.vector)
    assert len(causes) > 3  # the states are not all of one kind


def test_any_state_has_a_core_file_of_what_is_ram() -> None:
    source = random.Random(43)
    ram = (Backing(0, 0x14000, 0x8_0000), Backing(0x14000, 0x1000, 0x10_0000))
    paged = 0
    for _ in range(CORES):
        cpu = state(source)
        cpu.sregs.cr0, cpu.sregs.cr3 = CR0_PG, source.randrange(20) << 12
        cpu.sregs.cr4, cpu.sregs.efer = source.getrandbits(13), source.getrandbits(12)
        mapped = page_map(cpu, ram)
        for one in mapped.ranges:
            (backing,) = [b for b in ram if b.start <= one.physical < b.start + b.size]
            assert one.physical + one.size <= backing.start + backing.size
            assert one.place - backing.place == one.physical - backing.start
        paged += [(one.linear, one.size) for one in mapped.ranges] != [(one.start, one.size) for one in ram]
        for wide in (True, False):
            notes = notes_of(CoreCpu(cpu, 11, source.randbytes(2048), source.getrandbits(64)), wide=wide)
            at = header_size(len(mapped.ranges) + 1, wide=wide)
            file: Any = ELFFile(io.BytesIO(headers(mapped.ranges, (at, len(notes)), wide=wide) + notes))
            (segment, *loads) = file.iter_segments()
            assert len(loads) == len(mapped.ranges)
            assert next(segment.iter_notes())["n_type"] == "NT_PRSTATUS"
    assert paged > 3  # the states are not all of one kind


def built(directory: Path) -> bytes:
    """An ELF file with debug information."""
    if not shutil.which("cc"):
        pytest.skip("cc not found: there is no file to damage")
    text = directory / "x.c"
    text.write_text("int f(int n) { return n ? f(n - 1) * 3 : 1; }\nint _start(void) { return f(3); }\n")
    flags = ("-g", "-ffreestanding", "-nostdlib", "-static")
    subprocess.run(["cc", *flags, "-o", directory / "x", text], check=True)
    return (directory / "x").read_bytes()


def section(data: bytes, name: str) -> tuple[int, int]:
    """Where the header and the content of a section of an ELF64 file are."""
    headers = int.from_bytes(data[0x28:0x30], "little")
    size, count, names = (int.from_bytes(data[at : at + 2], "little") for at in (0x3A, 0x3C, 0x3E))
    strings = int.from_bytes(data[headers + size * names + 0x18 :][:8], "little")
    for number in range(count):
        header = headers + size * number
        start = strings + int.from_bytes(data[header : header + 4], "little")
        if data[start : data.index(b"\0", start)] == name.encode():
            return header, int.from_bytes(data[header + 0x18 :][:8], "little")
    raise AssertionError(name)


def test_damage_that_pyelftools_does_not_expect_is_left_out(tmp_path: Path) -> None:
    whole = built(tmp_path)
    header, line = section(whole, ".debug_line")
    version = int.from_bytes(whole[line + 4 : line + 6], "little")
    # The field behind minimum and maximum length, default_is_stmt and line_base; since version 5 after sizes.
    range_at = line + (4 + 2 + 2 + 4 if version >= 5 else 4 + 2 + 4) + 4
    no_range = bytearray(whole)
    no_range[range_at] = 0
    packed = bytearray(whole)
    packed[header + 9] |= 0x08  # SHF_COMPRESSED is bit 11 of the flags
    for data in (no_range, packed):
        info = DebugInfo([SymbolFile(bytes(data))])
        assert info.place(0x401000) is not None
        assert info.line(0x401000) is None


def test_names_that_share_megabytes_are_cut(tmp_path: Path) -> None:
    names = b"\0" + b"a" * 1_000_000 + b"\0"
    table = bytes(24) + b"".join(
        (1).to_bytes(4, "little") + b"\x02\0\1\0" + (0x1000 + 16 * number).to_bytes(8, "little") + bytes(8)
        for number in range(200)
    )
    found = symbols.Symbols(symbols.of_table(table, names, 0, [(0x1000, 0x100)] * 4, wide=True))
    assert len(found) == 200
    place = found.at(0x1000)
    assert place is not None
    assert len(place.symbol) == symbols.LONGEST_NAME


def test_any_file_is_asked_for_names_lines_and_callers(tmp_path: Path) -> None:
    whole = built(tmp_path)
    source = random.Random(41)
    named = 0
    for _ in range(FILES):
        data = bytearray(whole)
        for _ in range(source.choice((1, 2, 8, 64))):
            data[source.randrange(len(data))] = source.randrange(256)
        info = DebugInfo([SymbolFile(bytes(data[: source.choice((len(data), source.randrange(len(data))))]))])
        cpu = state(source)
        for address in (0x401000, 0x401010, cpu.pc):
            named += bool(info.named(address))
            frames = info.frames(address)
            if frames is not None:
                frames.caller(address, {"rsp": 0x8000, "rbp": 0x8000}, 64, cpu.number_at)
        explain(cpu, info, crashed=False)
    assert named > FILES // 4  # most damage leaves something to be found
