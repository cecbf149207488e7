"""An ELF core file of a guest: program headers and notes, as gdb reads those of Linux processes. Pure.

A core file is an ELF file (System V ABI, "Object Files") of type ET_CORE. Its PT_LOAD headers say which bytes
of the file are at which linear address. Its PT_NOTE header leads to the notes, of which each has a type, an
owner and a content. NT_PRSTATUS has the general registers of a thread, here a CPU, as `struct elf_prstatus`
has them (<linux/elfcore.h>, <asm/user_64.h>, <asm/user_32.h>). NT_FPREGSET, NT_PRXFPREG and NT_X86_XSTATE
have floating-point registers: the first two as FXSAVE stores them, the third as XSAVE does (Intel SDM volume
1, section 13.4).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from struct import Struct
from typing import Final

from kvmbox.base.value_classes import Value
from kvmbox.explain.paging import NO_EXECUTE, WRITABLE
from kvmbox.explain.stopped_cpu import Cpu
from kvmbox.parts.core_file.page_map import Range

# <linux/elf.h>, <linux/elf-em.h>
ET_CORE: Final = 4
EM_386: Final = 3
EM_X86_64: Final = 62
PT_LOAD: Final = 1
PT_NOTE: Final = 4
PF_X: Final = 1
PF_W: Final = 2
PF_R: Final = 4
NT_PRSTATUS: Final = 1
NT_FPREGSET: Final = 2
NT_X86_XSTATE: Final = 0x202
NT_PRXFPREG: Final = 0x46E6_2B7F

PHYSICAL: Final = 1 << 62
"""Where guest-physical memory is in a 64-bit core file of a guest with paging: this and the physical address.
No linear address of a guest can be there, because it would not be canonical.
"""

_FORMS: Final = {
    False: (Struct("<4s5B7x2HIIIII6H"), Struct("<8I")),
    True: (Struct("<4s5B7x2HIQQQI6H"), Struct("<IIQQQQQQ")),
}
"""The ELF header and a program header, by whether the file is one of 64 bits."""
_PAGE: Final = 4096

# struct elf_prstatus: signal at 12, pid at 32 or 24, registers at 112 or 72, size 336 or 144.
_PRSTATUS_64: Final = Struct("<12xH2x16xI76x27Q8x")
_PRSTATUS_32: Final = Struct("<12xH2x8xI44x17I4x")
_NAMES_64: Final = "r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi"
_NAMES_32: Final = "rbx rcx rdx rsi rdi rbp rax"

_FXSAVE: Final = 512
_XCR0_AT: Final = 464
"""Where Linux has XCR0 in an XSAVE area (<asm/user.h>, `USER_XSTATE_XCR0_WORD`)."""
_X87_AND_SSE: Final = 3

_VMCOREINFO: Final = b"VMCOREINFO\0"
_MOST_VMCOREINFO: Final = 4096  # VMCOREINFO_BYTES, one page (<linux/vmcore_info.h>)
_NOTE: Final = Struct("<3I")


# What Linux sends a process for an exception (arch/x86/kernel/traps.c), by the vector.
_SIGILL, _SIGTRAP, _SIGBUS, _SIGFPE, _SIGSEGV = 4, 5, 7, 8, 11
_SIGNALS: Final = {
    0: _SIGFPE,
    1: _SIGTRAP,
    3: _SIGTRAP,
    6: _SIGILL,
    11: _SIGBUS,
    12: _SIGBUS,
    16: _SIGFPE,
    17: _SIGBUS,
    19: _SIGFPE,
}
"""Of the others it is SIGSEGV."""


def signal_of(vector: int | None) -> int:
    """The signal by which gdb says that an exception has ended the guest; None: one that is not known."""
    return _SIGSEGV if vector is None else _SIGNALS.get(vector, _SIGSEGV)


class CoreCpu(Value):
    """A CPU, the signal that has ended it (0: none), and its XSAVE area and XCR0, if they are known."""

    cpu: Cpu
    signal: int = 0
    xsave: bytes = b""
    xcr0: int = 0


def note(owner: bytes, kind: int, content: bytes) -> bytes:
    """A note: owner and content are padded to words of four bytes."""
    return _NOTE.pack(len(owner), len(content), kind) + _padded(owner) + _padded(content)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def notes_of(one: CoreCpu, *, wide: bool) -> bytes:
    """The notes of a CPU. `wide` says that the file is one of 64 bits."""
    found = note(b"CORE\0", NT_PRSTATUS, _status(one, wide=wide))
    if len(one.xsave) < _FXSAVE:
        return found
    found += note(b"CORE\0", NT_FPREGSET, one.xsave[:_FXSAVE]) if wide else b""
    found += b"" if wide else note(b"LINUX\0", NT_PRXFPREG, one.xsave[:_FXSAVE])
    if len(one.xsave) > _FXSAVE:
        # A guest that has SSE has not always set the bit for it.
        enabled = (one.xcr0 | _X87_AND_SSE).to_bytes(8, "little")
        area = one.xsave[:_XCR0_AT] + enabled + one.xsave[_XCR0_AT + 8 :]
        found += note(b"LINUX\0", NT_X86_XSTATE, area)
    return found


def _status(one: CoreCpu, *, wide: bool) -> bytes:
    regs, sregs = one.cpu.regs, one.cpu.sregs
    most = (1 << 64 if wide else 1 << 32) - 1
    mask = most if one.cpu.bits == 64 else (1 << 32) - 1
    general = [int(getattr(regs, name)) & mask for name in (_NAMES_64 if wide else _NAMES_32).split()]
    segments = [getattr(sregs, name).selector for name in ("ds", "es", "fs", "gs")]
    frame = (
        most,  # orig_rax: it is not in a system call
        one.cpu.pc & most,
        sregs.cs.selector,
        regs.rflags & mask,
        one.cpu.sp & most,
        sregs.ss.selector,
    )
    begin = one.signal, one.cpu.number + 1  # 0 is no thread to gdb
    if wide:
        return _PRSTATUS_64.pack(*begin, *general, *frame, sregs.fs.base, sregs.gs.base, *segments)
    return _PRSTATUS_32.pack(*begin, *general, *segments, *frame)


def vmcoreinfo_in(page: bytes | memoryview) -> bytes:
    """The content of the note VMCOREINFO if `page`, and what follows it, begin with it; or nothing.

    Linux has the note at the start of a page of its own (kernel/vmcore_info.c).
    """
    head = bytes(page[: _NOTE.size + len(_VMCOREINFO)])
    if head[_NOTE.size :] != _VMCOREINFO:
        return b""
    owner, size, _ = _NOTE.unpack_from(head)
    if owner != len(_VMCOREINFO) or size > _MOST_VMCOREINFO:
        return b""
    start = _NOTE.size + len(_padded(_VMCOREINFO))
    content = bytes(page[start : start + size])
    return content if content.startswith(b"OSRELEASE=") else b""


def vmcoreinfo_note(content: bytes) -> bytes:
    """The same as a note of a core file."""
    return note(_VMCOREINFO, 0, content)


def header_size(count: int, *, wide: bool) -> int:
    """The bytes of the ELF header and `count` program headers."""
    header, segment = _FORMS[wide]
    return header.size + count * segment.size


def headers(ranges: Sequence[Range], notes: tuple[int, int], *, wide: bool) -> bytes:
    """The ELF header, the program header of the notes, which are (place, size), and those of `ranges`."""
    header, segment = _FORMS[wide]
    count = len(ranges) + 1
    found = [
        header.pack(
            b"\x7fELF",
            *(2 if wide else 1, 1, 1, 0, 0),  # class, little-endian, version, ABI of System V
            ET_CORE,
            EM_X86_64 if wide else EM_386,
            *(1, 0, header.size, 0, 0),  # version, entry, program headers, section headers, flags
            *(header.size, segment.size, count, 0, 0, 0),
        ),
        _program_header(PT_NOTE, 0, (notes[0], 0, 0, notes[1], 0, 4), wide=wide),
    ]
    mask = (1 << 64) - 1 if wide else (1 << 32) - 1
    for one in ranges:
        flags = PF_R | (PF_W if one.rights & WRITABLE else 0) | (0 if one.rights & NO_EXECUTE else PF_X)
        physical = one.physical & mask
        values = (one.place, one.linear & mask, physical, one.size, one.size, _PAGE)
        found.append(_program_header(PT_LOAD, flags, values, wide=wide))
    return b"".join(found)


def _program_header(kind: int, flags: int, values: Iterable[int], *, wide: bool) -> bytes:
    """`values` are offset, linear and physical address, size in the file and in memory, and alignment."""
    _, segment = _FORMS[wide]
    if wide:
        return segment.pack(kind, flags, *values)
    *others, alignment = values
    return segment.pack(kind, *others, flags, alignment)
