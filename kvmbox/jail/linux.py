"""The Linux calls that a sandbox is made of, bound once: prctl, clone, capset, seccomp, close_range …

This module is loaded into the spawner and shared by every device process, so it imports as little as can
be (no enum, no typing: they would add 5 ms to the start). Every wrapper raises `OSError` that names the
system call. Numbers are those of x86-64, the only architecture that kvmbox runs on.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

TYPE_CHECKING = False  # what typing.TYPE_CHECKING is for, without importing typing
if TYPE_CHECKING:
    from typing import Final

# --- System call numbers (x86-64, <asm/unistd_64.h>) ------------------------------------------------
SYS_CLOSE: Final = 3
SYS_GETPID: Final = 39
SYS_SENDMSG: Final = 46
SYS_EXIT: Final = 60
SYS_CLONE: Final = 56
SYS_CAPGET: Final = 125
SYS_CAPSET: Final = 126
SYS_PIVOT_ROOT: Final = 155
SYS_SETRLIMIT: Final = 160
SYS_MOUNT: Final = 165
SYS_UMOUNT2: Final = 166
SYS_UNSHARE: Final = 272
SYS_SECCOMP: Final = 317
SYS_CLOSE_RANGE: Final = 436
SYS_LANDLOCK_CREATE_RULESET: Final = 444
SYS_LANDLOCK_ADD_RULE: Final = 445
SYS_LANDLOCK_RESTRICT_SELF: Final = 446

# --- <linux/lsm.h> ----------------------------------------------------------------------------------
LSM_ID_SELINUX: Final = 101
LSM_ID_APPARMOR: Final = 104

# --- prctl (<linux/prctl.h>) ------------------------------------------------------------------------
PR_SET_PDEATHSIG: Final = 1
PR_GET_DUMPABLE: Final = 3
PR_SET_DUMPABLE: Final = 4
PR_SET_NAME: Final = 15
PR_GET_SECCOMP: Final = 21
PR_SET_SECCOMP: Final = 22
PR_CAPBSET_DROP: Final = 24
PR_SET_SECUREBITS: Final = 28
PR_SET_NO_NEW_PRIVS: Final = 38
PR_CAP_AMBIENT: Final = 47
PR_CAP_AMBIENT_CLEAR_ALL: Final = 4

# NOROOT, NO_SETUID_FIXUP and NO_CAP_AMBIENT_RAISE, each with its lock, and the lock of KEEP_CAPS
# (<linux/securebits.h>): being user 0 never gives a capability back.
SECUREBITS_LOCKED: Final = 0b1110_1111

# --- seccomp modes (<linux/seccomp.h>), as /proc/PID/status shows them -------------------------------
SECCOMP_MODE_DISABLED: Final = 0
SECCOMP_MODE_STRICT: Final = 1
SECCOMP_MODE_FILTER: Final = 2

# --- clone (<linux/sched.h>) ------------------------------------------------------------------------
CLONE_PARENT: Final = 0x0000_8000
CLONE_NEWUSER: Final = 0x1000_0000

# --- Signals (<asm/signal.h>); the signal module would pull in enum ---------------------------------
SIGHUP: Final = 1
SIGINT: Final = 2
SIGQUIT: Final = 3
SIGKILL: Final = 9
SIGCHLD: Final = 17
SIGTSTP: Final = 20
SIGTTIN: Final = 21
SIGTTOU: Final = 22
SIG_DFL: Final = 0
SIG_IGN: Final = 1

SFD_NONBLOCK: Final = 0o4000
SFD_CLOEXEC: Final = 0o2000000
SIG_BLOCK: Final = 0
SIG_UNBLOCK: Final = 1
SIGNALFD_SIGINFO_SIZE: Final = 128

# --- mallopt (<malloc.h>) ---------------------------------------------------------------------------
M_TRIM_THRESHOLD: Final = -1
M_TOP_PAD: Final = -2
M_MMAP_MAX: Final = -4
M_ARENA_MAX: Final = -8

RLIMIT_NOFILE: Final = 7  # <asm-generic/resource.h>
CAPABILITY_VERSION_3: Final = 0x2008_0522
CAP_KILL: Final = 5
CAP_SETGID: Final = 6
CAP_SETUID: Final = 7
CAP_SYS_NICE: Final = 23
CAP_SYS_ADMIN: Final = 21
CAPABILITY_SETS: Final = struct.Struct("=6I")  # effective, permitted, inheritable; low words, then high
HIGHEST_POSSIBLE_CAPABILITY: Final = 63
ALL_DESCRIPTORS: Final = 0xFFFF_FFFF

_libc = ctypes.CDLL(None, use_errno=True)
_libc.prctl.argtypes = (
    ctypes.c_int,
    ctypes.c_ulong,
    ctypes.c_ulong,
    ctypes.c_ulong,
    ctypes.c_ulong,
)
_libc.prctl.restype = ctypes.c_int
_libc.syscall.argtypes = (
    ctypes.c_long,
    ctypes.c_ulong,
    ctypes.c_ulong,
    ctypes.c_ulong,
    ctypes.c_ulong,
    ctypes.c_ulong,
    ctypes.c_ulong,
)
_libc.syscall.restype = ctypes.c_long
_libc.signal.argtypes = (ctypes.c_int, ctypes.c_void_p)
_libc.signal.restype = ctypes.c_void_p
_libc.sigprocmask.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
_libc.sigprocmask.restype = ctypes.c_int
_libc.signalfd.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_int)
_libc.signalfd.restype = ctypes.c_int
_libc.mallopt.argtypes = (ctypes.c_int, ctypes.c_int)
_libc.mallopt.restype = ctypes.c_int
_libc.malloc.argtypes = (ctypes.c_size_t,)
_libc.malloc.restype = ctypes.c_void_p
_libc.free.argtypes = (ctypes.c_void_p,)
_libc.free.restype = None

SIGSET_SIZE: Final = 128  # sizeof(sigset_t) in glibc


def _error(call: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{call}: {os.strerror(number)}")


def prctl(option: int, first: int = 0, second: int = 0, third: int = 0, *, name: str) -> int:
    """prctl(2); `name` is what the error calls it. Raises OSError."""
    result: int = _libc.prctl(option, first, second, third, 0)
    if result < 0:
        raise _error(f"prctl({name})")
    return result


def raw_syscall(number: int, *arguments: int) -> int:
    """A system call of up to six integer or address arguments; returns -1 on error, errno is kept."""
    padded = arguments + (0,) * (6 - len(arguments))
    result: int = _libc.syscall(number, *padded)
    return result


def checked_syscall(name: str, number: int, *arguments: int) -> int:
    """As `raw_syscall`, but raises OSError that carries `name`."""
    result = raw_syscall(number, *arguments)
    if result < 0:
        raise _error(name)
    return result


def die_with_parent(parent_pid: int, number: int = SIGKILL) -> None:
    """A signal when the parent *thread* that made us exits; raises OSError if it is already gone.

    The death signal is set first and the parent looked at second, so there is no window. It is cleared by
    fork, by setuid and by exec of a file with capabilities: set it last among those.
    """
    prctl(PR_SET_PDEATHSIG, number, name="PR_SET_PDEATHSIG")
    if os.getppid() != parent_pid:
        raise OSError("the parent process died")


def forbid_new_privileges() -> None:
    """no_new_privs: exec never gains privileges; seccomp and Landlock ask for it. Raises OSError."""
    prctl(PR_SET_NO_NEW_PRIVS, 1, name="PR_SET_NO_NEW_PRIVS")


def forbid_dump_and_trace() -> None:
    """Not dumpable: no core, no ptrace, no /proc/PID/mem, except by CAP_SYS_PTRACE. Raises OSError."""
    prctl(PR_SET_DUMPABLE, 0, name="PR_SET_DUMPABLE")


def bound_capabilities() -> None:
    """Empty the bounding set, and lock the bits that would let user 0 have capabilities back.

    That needs CAP_SETPCAP; without it they stay, and no_new_privs is what makes them harmless. What is held
    now is held still, and a change of user id does not change that. Raises OSError.
    """
    try:
        prctl(PR_SET_SECUREBITS, SECUREBITS_LOCKED, name="PR_SET_SECUREBITS")
        for capability in range(HIGHEST_POSSIBLE_CAPABILITY + 1):
            try:  # dropped before or not, which is one call less to find out
                prctl(PR_CAPBSET_DROP, capability, name="PR_CAPBSET_DROP")
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                break  # this kernel knows no more of them
    except PermissionError:
        pass


def drop_capabilities(kept: int = 0) -> None:
    """Bound the capabilities, and empty every set but for those of the mask `kept` that are permitted now:
    these stay permitted and effective, and are not inherited. Raises OSError if any other is left.
    """
    bound_capabilities()
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, name="PR_CAP_AMBIENT")
    left = _capability_sets()[1] & kept
    low, high = left & 0xFFFF_FFFF, left >> 32
    _capability_call(SYS_CAPSET, CAPABILITY_SETS.pack(low, low, 0, high, high, 0))
    if _capability_sets() != (left, left, 0):
        raise OSError("capset: capabilities are left")


def has_capability(number: int) -> bool:
    """Whether capability `number` is effective."""
    return bool(_capability_sets()[0] >> number & 1)


def _capability_sets() -> tuple[int, int, int]:
    """The effective, permitted and inheritable sets of the calling thread, as masks. Raises OSError."""
    words = CAPABILITY_SETS.unpack(_capability_call(SYS_CAPGET, bytes(CAPABILITY_SETS.size)))
    return words[0] | words[3] << 32, words[1] | words[4] << 32, words[2] | words[5] << 32


def _capability_call(number: int, sets: bytes) -> bytes:
    header = ctypes.create_string_buffer(struct.pack("=Ii", CAPABILITY_VERSION_3, 0), 8)
    buffer = ctypes.create_string_buffer(sets, CAPABILITY_SETS.size)
    # SAFETY: both buffers have the size that version 3 asks for and outlive the call.
    name = "capset" if number == SYS_CAPSET else "capget"
    checked_syscall(name, number, ctypes.addressof(header), ctypes.addressof(buffer))
    return buffer.raw


def seccomp_mode() -> int:
    """The calling thread's seccomp mode: SECCOMP_MODE_DISABLED or _FILTER. Raises OSError.

    Not to be asked in strict mode, where the question itself is fatal.
    """
    return prctl(PR_GET_SECCOMP, name="PR_GET_SECCOMP")


def enter_strict_mode() -> None:
    """seccomp mode 1 for good: read, write, exit and sigreturn, SIGKILL for anything else, RDTSC faults.

    Fails with EINVAL where any filter is in force already. Raises OSError.
    """
    prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT, name="PR_SET_SECCOMP")


def exit_thread(status: int) -> None:
    """exit(2), the raw call, which strict mode allows; `os._exit` is exit_group, which it does not."""
    raw_syscall(SYS_EXIT, status)


def close_range(first: int, last: int = ALL_DESCRIPTORS) -> None:
    """Close every descriptor in [first, last] (Linux 5.9). Raises OSError."""
    checked_syscall("close_range", SYS_CLOSE_RANGE, first, last, 0)


def allow_no_more_descriptors() -> None:
    """RLIMIT_NOFILE 0, soft and hard, by the very call that `setup_calls` knows. Raises OSError."""
    limit = ctypes.create_string_buffer(16)
    # SAFETY: the kernel copies struct rlimit, two words of zeros, from a buffer that outlives the call.
    checked_syscall("setrlimit", SYS_SETRLIMIT, RLIMIT_NOFILE, ctypes.addressof(limit))


def clone(flags: int) -> int:
    """fork(2) with `flags` of clone(2), such as a new namespace. With CLONE_PARENT the child's parent is that
    of the caller, which must not be PID 1. Returns its pid in the caller and 0 in the child; raises OSError.
    """
    # SAFETY: as fork, the child has its own copy of the address space and, with stack 0, of this stack. The
    # fork handlers of glibc and CPython do not run, which tend to locks that another thread might hold: the
    # caller must be the only thread. glibc's note of the thread id is the parent's; it is looked at for
    # recursive mutexes only, and a later fork puts it right in its child.
    return checked_syscall("clone", SYS_CLONE, flags | SIGCHLD)


def set_signal_action(number: int, action: int) -> None:
    """SIG_DFL or SIG_IGN for a signal, in the C library: Python's own handlers are bypassed."""
    _libc.signal(number, action)


def _signal_set(numbers: tuple[int, ...]) -> ctypes.Array[ctypes.c_char]:
    mask = sum(1 << (number - 1) for number in numbers)
    return ctypes.create_string_buffer(mask.to_bytes(8, "little"), SIGSET_SIZE)


def block_signals(*numbers: int) -> None:
    """Block signals, to be read from a signalfd. Raises OSError."""
    if _libc.sigprocmask(SIG_BLOCK, _signal_set(numbers), None) < 0:
        raise _error("sigprocmask")


def unblock_signals(*numbers: int) -> None:
    """Undo `block_signals`. Raises OSError."""
    if _libc.sigprocmask(SIG_UNBLOCK, _signal_set(numbers), None) < 0:
        raise _error("sigprocmask")


def signal_descriptor(*numbers: int) -> int:
    """A non-blocking signalfd for blocked signals. Raises OSError."""
    descriptor: int = _libc.signalfd(-1, _signal_set(numbers), SFD_NONBLOCK | SFD_CLOEXEC)
    if descriptor < 0:
        raise _error("signalfd")
    return descriptor


def keep_large_blocks_on_the_heap() -> None:
    """Tell malloc never to use mmap for a large block, whose growth would need mremap.

    glibc then grows and trims its heap by brk alone: one system call less for the filter to allow.
    """
    _libc.mallopt(M_MMAP_MAX, 0)


def provide_heap(size: int, reserve: int) -> None:
    """Give malloc all the heap that it will ever have: it never asks for more, nor gives any back.

    `size` bytes are there for sure, `reserve` more as the top of the heap; pages are not touched, so they
    cost nothing until used. For strict mode, where brk is as fatal as any other call; needs an interpreter
    that takes its objects from malloc (PYTHONMALLOC=malloc). Raises MemoryError.
    """
    _libc.mallopt(M_ARENA_MAX, 1)
    _libc.mallopt(M_MMAP_MAX, 0)
    _libc.mallopt(M_TRIM_THRESHOLD, 0x7FFF_FFFF)
    _libc.mallopt(M_TOP_PAD, reserve)
    # SAFETY: what malloc gave goes back to free at once; nothing is read or written.
    if not (block := _libc.malloc(size)):
        raise MemoryError(f"no heap of {size} bytes")
    _libc.free(block)
