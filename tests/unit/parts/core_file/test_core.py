"""ELF core files, as pyelftools and C's headers see them."""

from __future__ import annotations

import io
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile

from kvmbox.explain.paging import NO_EXECUTE, PRESENT, WRITABLE
from kvmbox.parts.core_file import core
from kvmbox.parts.core_file.core import (
    CoreCpu,
    headers,
    note,
    notes_of,
    signal_of,
    vmcoreinfo_in,
    vmcoreinfo_note,
)
from kvmbox.parts.core_file.page_map import Range
from tests.support.stopped_cpu import Memory, long_mode, protected_mode, real_mode

XSAVE = bytes(range(256)) * 4
RANGES = (
    Range(0xFFFF_FFFF_8000_0000, 0x20_0000, 0x3000, 0x1000, PRESENT),
    Range(0x1000, 0x8000, 0x5000, 0x2000, PRESENT | WRITABLE | NO_EXECUTE),
)


def file_of(notes: bytes, *, wide: bool) -> Any:
    at = core.header_size(len(RANGES) + 1, wide=wide)
    return ELFFile(io.BytesIO(headers(RANGES, (at, len(notes)), wide=wide) + notes))


def notes_in(file: Any) -> list[tuple[str, int, bytes]]:
    (segment,) = [one for one in file.iter_segments() if one["p_type"] == "PT_NOTE"]
    file.stream.seek(segment["p_offset"])
    raw = file.stream.read(segment["p_filesz"])
    found, at = [], 0
    while at < len(raw):
        owner, size, kind = (int.from_bytes(raw[at + i : at + i + 4], "little") for i in (0, 4, 8))
        at += 12
        name = raw[at : at + owner].rstrip(b"\0").decode()
        at += -(-owner // 4) * 4
        found.append((name, kind, raw[at : at + size]))
        at += -(-size // 4) * 4
    return found


@pytest.mark.parametrize(
    ("wide", "machine", "bits", "high"),
    [(True, "EM_X86_64", 64, 0xFFFF_FFFF_8000_0000), (False, "EM_386", 32, 0x8000_0000)],
)
def test_headers_are_those_of_a_core_file(wide: bool, machine: str, bits: int, high: int) -> None:
    file = file_of(b"", wide=wide)
    assert (file["e_type"], file["e_machine"], file.elfclass) == ("ET_CORE", machine, bits)
    loads = [one.header for one in file.iter_segments() if one["p_type"] == "PT_LOAD"]
    values = ("p_vaddr", "p_paddr", "p_offset", "p_filesz", "p_memsz", "p_flags")
    assert [tuple(one[name] for name in values) for one in loads] == [
        (high, 0x20_0000, 0x3000, 0x1000, 0x1000, 5),  # read and execute
        (0x1000, 0x8000, 0x5000, 0x2000, 0x2000, 6),  # read and write
    ]


def test_registers_of_64_bits_are_a_note() -> None:
    cpu = long_mode(Memory(), rip=0xFFFF_FFFF_8000_1234, rsp=0x7000, rax=1 << 63, r15=15, rdi=7)
    cpu.sregs.fs.base, cpu.sregs.gs.selector = 0x1234_5678_9ABC, 0x2B
    ((owner, kind, status),) = notes_in(file_of(notes_of(CoreCpu(cpu, 11), wide=True), wide=True))
    assert (owner, kind, len(status)) == ("CORE", 1, 336)
    registers = [int.from_bytes(status[at : at + 8], "little") for at in range(112, 328, 8)]
    # struct user_regs_struct: r15 first, rax at 10, rdi at 14, rip at 16, rsp at 19, fs_base at 21, gs at 26.
    assert [registers[at] for at in (0, 10, 14, 16, 19, 21, 26)] == [
        *(15, 1 << 63, 7, 0xFFFF_FFFF_8000_1234, 0x7000, 0x1234_5678_9ABC, 0x2B),
    ]
    assert (status[12], status[32]) == (11, 1)  # the signal, the thread


def test_registers_of_32_bits_are_a_note() -> None:
    cpu = protected_mode(Memory(), rip=0x10_0000, rsp=0x9000, rax=0x1_0000_0003, rbx=5)
    cpu.sregs.cs.selector = 8
    (_, _, status) = notes_in(file_of(notes_of(CoreCpu(cpu), wide=False), wide=False))[0]
    assert len(status) == 144
    registers = [int.from_bytes(status[at : at + 4], "little") for at in range(72, 140, 4)]
    # struct user_regs_struct: ebx first, eax at 6, eip at 12, cs at 13, esp at 15.
    assert [registers[at] for at in (0, 6, 12, 13, 15)] == [5, 3, 0x10_0000, 8, 0x9000]


@pytest.mark.parametrize(
    ("wide", "size", "pc", "sp"), [(False, 4, 120, 132), (True, 8, 112 + 16 * 8, 112 + 19 * 8)]
)
def test_addresses_in_real_mode_are_linear(wide: bool, size: int, pc: int, sp: int) -> None:
    cpu = real_mode(Memory(), rip=0x10, rsp=0x20)
    cpu.sregs.cs.base, cpu.sregs.ss.base = 0xF0000, 0x8000
    (_, _, status) = notes_in(file_of(notes_of(CoreCpu(cpu), wide=wide), wide=wide))[0]
    assert int.from_bytes(status[pc : pc + size], "little") == 0xF0010
    assert int.from_bytes(status[sp : sp + size], "little") == 0x8020


def test_upper_halves_do_not_count_outside_of_64_bit_mode() -> None:
    cpu = protected_mode(Memory(), rax=0xDEAD_0000_0001)
    (_, _, status) = notes_in(file_of(notes_of(CoreCpu(cpu), wide=True), wide=True))[0]
    assert int.from_bytes(status[112 + 80 : 112 + 88], "little") == 1


@pytest.mark.parametrize(
    ("wide", "kinds"),
    [(True, [("CORE", 1), ("CORE", 2), ("LINUX", 0x202)]),
     (False, [("CORE", 1), ("LINUX", 0x46E62B7F), ("LINUX", 0x202)])],
)  # fmt: skip
def test_floating_point_registers_are_notes(wide: bool, kinds: list[tuple[str, int]]) -> None:
    cpu = long_mode(Memory()) if wide else protected_mode(Memory())
    found = notes_in(file_of(notes_of(CoreCpu(cpu, 0, XSAVE, 4), wide=wide), wide=wide))
    assert [one[:2] for one in found] == kinds
    assert found[1][2] == XSAVE[:512]
    assert found[2][2] == XSAVE[:464] + (7).to_bytes(8, "little") + XSAVE[472:]


def test_notes_of_two_cpus_are_two_threads() -> None:
    memory = Memory()
    one, two = long_mode(memory), long_mode(memory)
    two = type(two)(two.regs, two.sregs, memory.read, 1)
    notes = b"".join(notes_of(CoreCpu(cpu), wide=True) for cpu in (one, two))
    assert [status[32] for _, _, status in notes_in(file_of(notes, wide=True))] == [1, 2]


@pytest.mark.parametrize(("vector", "signal"), [(0, 8), (6, 4), (14, 11), (12, 7), (None, 11), (0x80, 11)])
def test_signal_says_which_exception(vector: int | None, signal: int) -> None:
    assert signal_of(vector) == signal


INFO = b"OSRELEASE=6.12.0\nPAGESIZE=4096\n"


def test_vmcoreinfo_at_the_start_of_a_page_is_found() -> None:
    page = vmcoreinfo_note(INFO) + bytes(8192)
    assert vmcoreinfo_in(page[:8192]) == INFO


@pytest.mark.parametrize(
    "page",
    [
        b"",
        bytes(4096),
        note(b"VMCOREINF0\0", 0, INFO),
        note(b"VMCOREINFO\0", 0, b"nothing of it"),
        b"\x0b\0\0\0\xff\xff\xff\xff\0\0\0\0VMCOREINFO\0\0" + INFO,  # too long
        b"\xff\0\0\0\x10\0\0\0\0\0\0\0VMCOREINFO\0\0" + INFO,
    ],
)
def test_what_is_no_vmcoreinfo_is_not_taken_for_it(page: bytes) -> None:
    assert vmcoreinfo_in(page) == b""


PROGRAM = """
#include <stddef.h>
#include <stdio.h>
#include <sys/procfs.h>
#include <sys/user.h>
int main(void)
{
    printf("%zu %zu %zu %zu\\n", sizeof(struct elf_prstatus), offsetof(struct elf_prstatus, pr_cursig),
           offsetof(struct elf_prstatus, pr_pid), offsetof(struct elf_prstatus, pr_reg));
    return 0;
}
"""


def test_prstatus_is_as_in_the_header(tmp_path: Path) -> None:
    if not shutil.which("cc"):
        pytest.skip("cc not found")
    (tmp_path / "a.c").write_text(PROGRAM)
    subprocess.run(["cc", "-o", tmp_path / "a", tmp_path / "a.c"], check=True)
    told = subprocess.run([tmp_path / "a"], check=True, capture_output=True, text=True).stdout
    assert told.split() == ["336", "12", "32", "112"]
