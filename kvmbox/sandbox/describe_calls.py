"""Names of x86-64 system calls to numbers, with libseccomp and without.

libseccomp knows all names. Without it there remain those that policies use and those that people ask about
a sandbox: a short table, whose numbers are checked against libseccomp by a test.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Final

from kvmbox.errors import SandboxError, UsageError
from kvmbox.sandbox.policy import Rule

HIGHEST_NUMBER: Final = 600  # where libseccomp is asked for names to compare with; Linux 6.18 ends at 470

WELL_KNOWN: Final = {
    "read": 0,
    "write": 1,
    "open": 2,
    "close": 3,
    "stat": 4,
    "fstat": 5,
    "poll": 7,
    "lseek": 8,
    "mmap": 9,
    "mprotect": 10,
    "munmap": 11,
    "brk": 12,
    "rt_sigaction": 13,
    "rt_sigprocmask": 14,
    "rt_sigreturn": 15,
    "ioctl": 16,
    "pread64": 17,
    "pwrite64": 18,
    "readv": 19,
    "writev": 20,
    "pipe": 22,
    "mremap": 25,
    "madvise": 28,
    "shmget": 29,
    "dup": 32,
    "dup2": 33,
    "nanosleep": 35,
    "getpid": 39,
    "socket": 41,
    "connect": 42,
    "accept": 43,
    "sendto": 44,
    "recvfrom": 45,
    "sendmsg": 46,
    "recvmsg": 47,
    "bind": 49,
    "listen": 50,
    "socketpair": 53,
    "clone": 56,
    "fork": 57,
    "vfork": 58,
    "execve": 59,
    "exit": 60,
    "kill": 62,
    "uname": 63,
    "fcntl": 72,
    "ftruncate": 77,
    "getdents": 78,
    "getcwd": 79,
    "chdir": 80,
    "mkdir": 83,
    "unlink": 87,
    "chmod": 90,
    "ptrace": 101,
    "getuid": 102,
    "setuid": 105,
    "capset": 126,
    "personality": 135,
    "prctl": 157,
    "setrlimit": 160,
    "chroot": 161,
    "mount": 165,
    "gettid": 186,
    "tkill": 200,
    "futex": 202,
    "clock_gettime": 228,
    "exit_group": 231,
    "tgkill": 234,
    "keyctl": 250,
    "openat": 257,
    "unshare": 272,
    "perf_event_open": 298,
    "prlimit64": 302,
    "setns": 308,
    "process_vm_readv": 310,
    "process_vm_writev": 311,
    "seccomp": 317,
    "getrandom": 318,
    "memfd_create": 319,
    "bpf": 321,
    "execveat": 322,
    "userfaultfd": 323,
    "pidfd_send_signal": 424,
    "io_uring_setup": 425,
    "pidfd_open": 434,
    "clone3": 435,
    "close_range": 436,
    "openat2": 437,
    "pidfd_getfd": 438,
    "landlock_create_ruleset": 444,
    "landlock_restrict_self": 446,
}


def number_of(text: str, rules: Iterable[Rule] = ()) -> tuple[str, int]:
    """Name and number of the system call that `text` names, by name or number.

    Raises UsageError, with close matches, for a name that is none of x86-64's, or that only libseccomp
    could tell.
    """
    try:
        number = int(text, 0)
    except ValueError:
        return text, _resolve(text, rules)
    if not 0 <= number < 1 << 32:
        raise UsageError(f"'{text}' is not a system call number")
    return _name(number, rules), number


def _resolve(name: str, rules: Iterable[Rule]) -> int:
    known = _known_without_libseccomp(rules)
    library = _libseccomp_names()
    if library is not None:
        known |= library
    if name in known:
        return known[name]
    close = difflib.get_close_matches(name, known, n=3)
    hint = f"did you mean {', '.join(close)}?" if close else None
    if library is None:
        unknown = f"system call '{name}' is not among the {len(known)} known without libseccomp"
        raise UsageError(unknown, hint=hint or "give its number, or install libseccomp2")
    raise UsageError(f"x86-64 has no system call '{name}'", hint=hint)


def _name(number: int, rules: Iterable[Rule]) -> str:
    library = _libseccomp_names() or {}
    names = {value: name for name, value in (_known_without_libseccomp(rules) | library).items()}
    return names.get(number, f"system call {number}")


def _known_without_libseccomp(rules: Iterable[Rule]) -> dict[str, int]:
    return WELL_KNOWN | {rule.name: rule.number for rule in rules}


def _libseccomp_names() -> dict[str, int] | None:
    """All names that libseccomp gives to x86-64 numbers, or None where it is missing."""
    from kvmbox.sandbox.seccomp import load_libseccomp

    try:
        seccomp = load_libseccomp()
    except SandboxError:
        return None
    found = {}
    for number in range(HIGHEST_NUMBER):
        try:
            name: bytes = seccomp.resolve_syscall(seccomp.Arch.X86_64, number)
        except ValueError:
            continue
        found[name.decode("ascii")] = number
    return found
