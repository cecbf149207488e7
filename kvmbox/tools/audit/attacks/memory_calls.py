"""After memory that runs, memory without end, foreign system calls, and the clock.

Machine code lies in a page that is made when the spawner loads this module, long before anything is
jailed: an attacker would find such instructions in libc. Where the host forbids such pages, `CODE` is None
and the attacks that need it say so.
"""

from __future__ import annotations

import ctypes
import mmap
import time

from kvmbox.tools.audit.attacks.syscalls import attempt, tried
from kvmbox.tools.audit.payload_frames import Stopped

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

DATA: Final = mmap.PROT_READ | mmap.PROT_WRITE
PRIVATE: Final = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
NOWHERE: Final = -1  # the descriptor of an anonymous mapping

MIB: Final = 1 << 20
PIECE: Final = 64 * MIB
MOST: Final = 1024 * MIB
"""What the memory attack reserves at most. It touches one page of each piece, so this costs 64 KiB."""

ENOEXEC: Final = 8

IPC_PRIVATE: Final = 0
IPC_CREAT: Final = 0o1000
IPC_EXCL: Final = 0o2000
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
        page = mmap.mmap(-1, mmap.PAGESIZE, prot=DATA | mmap.PROT_EXEC)
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


def _map(size: int, protection: int, evidence: bytes = b"") -> int:
    return attempt("mmap", 0, size, protection, PRIVATE, NOWHERE, 0, evidence=evidence)


def execute_mapping(_given: dict[str, str]) -> bytes:
    """Map memory that is writable and executable, and run what is written there."""
    where = _map(mmap.PAGESIZE, DATA | mmap.PROT_EXEC)
    # SAFETY: a fresh mapping of a page; the code is six bytes and touches nothing.
    ctypes.memmove(where, RETURN_ANSWER, len(RETURN_ANSWER))
    return b"%d" % _Function(where)()


def execute_data(_given: dict[str, str]) -> bytes:
    """Make data executable by mprotect, and run it."""
    where = _map(mmap.PAGESIZE, DATA)
    # SAFETY: as above.
    ctypes.memmove(where, RETURN_ANSWER, len(RETURN_ANSWER))
    attempt("mprotect", where, mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_EXEC)
    return b"%d" % _Function(where)()


def exhaust_memory(_given: dict[str, str]) -> bytes:
    """Take memory, in the way that the policy allows, until there is none or MOST is had."""
    had = 0
    while had < MOST:
        where = _map(PIECE, DATA, evidence=b"%d of %d MiB" % (had // MIB, MOST // MIB))
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
            tried("shmctl", segment, IPC_RMID, 0)


def shared_segment(given: dict[str, str]) -> bytes:
    """System V shared memory, marked at once to go with the process."""
    segment = attempt("shmget", IPC_PRIVATE, int(given["segment_size"]), IPC_CREAT | IPC_EXCL | 0o666)
    attempt("shmat", segment, 0, 0)
    attempt("shmctl", segment, IPC_RMID, 0)
    return b"%d" % segment


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
