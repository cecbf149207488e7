"""After memory that runs, memory without end, foreign system calls, and the clock.

Machine code lies in a page that is made when the spawner loads this module, long before anything is
jailed: an attacker would find such instructions in libc. Where the host forbids such pages, `CODE` is None
and the attacks that need it say so.
"""

from __future__ import annotations

import ctypes
import mmap
import time

from kvmbox.jail import linux
from kvmbox.tools.audit.attacks.syscalls import NUMBERS, attempt
from kvmbox.tools.audit.payload_frames import Stopped

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

PAGE: Final = 4096
PROT_READ: Final = 1
PROT_WRITE: Final = 2
PROT_EXEC: Final = 4
MAP_PRIVATE: Final = 0x02
MAP_ANONYMOUS: Final = 0x20
MAP_NORESERVE: Final = 0x4000
NOWHERE: Final = -1  # the descriptor of an anonymous mapping

MIB: Final = 1 << 20
PIECE: Final = 64 * MIB
MOST: Final = 1024 * MIB
"""What the memory attack reserves at most. It touches one page of each piece, so this costs 64 KiB."""

ENOEXEC: Final = 8

IPC_PRIVATE: Final = 0
IPC_CREAT: Final = 0o1000
IPC_RMID: Final = 0
SHM_NORESERVE: Final = 0o10000

ANSWER: Final = 0x4B56
# mov eax, ANSWER; ret
RETURN_ANSWER: Final = b"\xb8" + ANSWER.to_bytes(4, "little") + b"\xc3"
# rdtsc; shl rdx, 32; or rax, rdx; ret
READ_TSC: Final = bytes.fromhex("0f31 48c1e220 4809d0 c3")
# push rbx; mov eax, 20 (getpid of i386); int 0x80; pop rbx; ret
FOREIGN_GETPID: Final = bytes.fromhex("53 b814000000 cd80 5b c3")

_Function = ctypes.CFUNCTYPE(ctypes.c_uint64)


def _code_page() -> dict[bytes, Callable[[], int]] | None:
    try:
        page = mmap.mmap(-1, PAGE, prot=PROT_READ | PROT_WRITE | PROT_EXEC)
    except OSError:
        return None
    functions: dict[bytes, Callable[[], int]] = {}
    position = 0
    for code in (READ_TSC, FOREIGN_GETPID):
        page[position : position + len(code)] = code
        # SAFETY: the page is never unmapped: the buffer that the function holds keeps it.
        start = ctypes.addressof(ctypes.c_char.from_buffer(page, position))
        functions[code] = _Function(start)
        position += 64
    _kept.append(page)
    return functions


_kept: list[mmap.mmap] = []
CODE: Final = _code_page()


def _run(code: bytes) -> int:
    if CODE is None:
        raise Stopped("mmap", ENOEXEC)
    return CODE[code]()


def _map(size: int, protection: int, flags: int = 0, evidence: bytes = b"") -> int:
    return attempt(
        "mmap", 0, size, protection, MAP_PRIVATE | MAP_ANONYMOUS | flags, NOWHERE, 0, evidence=evidence
    )


def execute_mapping(_given: dict[str, str]) -> bytes:
    """Map memory that is writable and executable, and run what is written there."""
    where = _map(PAGE, PROT_READ | PROT_WRITE | PROT_EXEC)
    # SAFETY: a fresh mapping of a page; the code is six bytes and touches nothing.
    ctypes.memmove(where, RETURN_ANSWER, len(RETURN_ANSWER))
    return b"%d" % _Function(where)()


def execute_data(_given: dict[str, str]) -> bytes:
    """Make data executable by mprotect, and run it."""
    where = _map(PAGE, PROT_READ | PROT_WRITE)
    # SAFETY: as above.
    ctypes.memmove(where, RETURN_ANSWER, len(RETURN_ANSWER))
    attempt("mprotect", where, PAGE, PROT_READ | PROT_EXEC)
    return b"%d" % _Function(where)()


def exhaust_memory(_given: dict[str, str]) -> bytes:
    """Take memory, in the way that the policy allows, until there is none or MOST is had."""
    had = 0
    while had < MOST:
        where = _map(PIECE, PROT_READ | PROT_WRITE, evidence=b"%d of %d MiB" % (had // MIB, MOST // MIB))
        # SAFETY: the first byte of a fresh mapping.
        ctypes.memset(where, 1, 1)
        had += PIECE
    return b"%d MiB" % (had // MIB)


def shared_segments(_given: dict[str, str]) -> bytes:
    """The same in System V segments, each mapped no longer than it takes to write a byte to it."""
    segments: list[int] = []
    try:
        while len(segments) * PIECE < MOST:
            held = len(segments) * PIECE // MIB
            evidence = b"%d of %d MiB" % (held, MOST // MIB)
            segments.append(
                attempt("shmget", IPC_PRIVATE, PIECE, IPC_CREAT | SHM_NORESERVE | 0o600, evidence=evidence)
            )
            where = attempt("shmat", segments[-1], 0, 0, evidence=evidence)
            # SAFETY: the first byte of a fresh mapping.
            ctypes.memset(where, 1, 1)
            attempt("shmdt", where)
        return b"%d MiB" % (len(segments) * PIECE // MIB)
    finally:
        for segment in segments:
            linux.raw_syscall(NUMBERS["shmctl"], segment, IPC_RMID, 0)


def foreign_call(_given: dict[str, str]) -> bytes:
    """getpid by way of int 0x80, where system calls have the numbers of i386."""
    return b"%d" % (_run(FOREIGN_GETPID) & 0xFFFF_FFFF)


def read_tsc(_given: dict[str, str]) -> bytes:
    """RDTSC, twice: no system call at all."""
    first = _run(READ_TSC)
    return b"later" if _run(READ_TSC) > first else b""


def read_clock(_given: dict[str, str]) -> bytes:
    """The monotonic clock, which the vDSO reads without a system call where it can."""
    first = time.monotonic_ns()
    while time.monotonic_ns() == first:
        pass
    return b"later"


def burn_cpu(_given: dict[str, str]) -> bytes:
    """Compute, without any system call; audit looks at the CPU time meanwhile."""
    count = 0
    for number in range(BURN_ROUNDS):
        count += number & 1
    return b"%d" % count


BURN_ROUNDS: Final = 2_000_000
