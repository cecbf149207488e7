"""After processes: make some, become another, trace, read and signal those of others.

Children are bounded and short-lived: each has a death signal, leaves by itself after two seconds, and is
killed and reaped before the attack answers.
"""

from __future__ import annotations

import ctypes
import struct

from kvmbox.jail import linux
from kvmbox.tools.audit.attacks.calls import (
    NUMBERS,
    O_DIRECTORY,
    SIGKILL,
    address,
    attempt,
    filled,
    open_file,
    space,
    text,
    write_all,
)
from kvmbox.tools.audit.wire import Stopped

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, NoReturn

BOMB: Final = 64
CHILD_STATUS: Final = 42
EXECUTED_STATUS: Final = 77
CLONE_ARGS_SIZE: Final = 64  # the first version of struct clone_args
SIGCHLD: Final = 17
SIGUSR1: Final = 10
SI_QUEUE: Final = -1
SIGINFO_SIZE: Final = 128
SECRET_SIZE: Final = 16
F_SETFL: Final = 4
F_SETOWN: Final = 8
F_SETSIG: Final = 10
O_ASYNC: Final = 0o20000
RLIMIT_AS: Final = 9
LIMITED: Final = 4096 + 7
"""Less memory than any process has, in bytes, and a number that nobody else would choose."""

PTRACE_PEEKDATA: Final = 2
PTRACE_DETACH: Final = 17
PTRACE_SEIZE: Final = 0x4206
PTRACE_INTERRUPT: Final = 0x4207
WALL: Final = 0x4000_0000


def _leave(status: int) -> NoReturn:
    while True:
        linux.raw_syscall(NUMBERS["exit_group"], status)


def _child_came(pid: int, evidence: bytes = b"child") -> bytes:
    status = space(4)
    # SAFETY: the kernel writes an int into four bytes.
    attempt("wait4", pid, address(status), WALL, 0)
    came = int.from_bytes(status.raw, "little") == CHILD_STATUS << 8
    return evidence if came else b""


def fork(_given: dict[str, str]) -> bytes:
    """A child by fork(2), which exits."""
    # SAFETY: no other thread wants the interpreter's lock (`stand_in`); the child makes one system call.
    # So in all that follow.
    pid = attempt("fork")
    if pid == 0:
        _leave(CHILD_STATUS)
    return _child_came(pid)


def clone3(_given: dict[str, str]) -> bytes:
    """A child by clone3(2), whose flags no filter can see."""
    arguments = filled(struct.pack("=8Q", 0, 0, 0, 0, SIGCHLD, 0, 0, 0))
    pid = attempt("clone3", address(arguments), CLONE_ARGS_SIZE)
    if pid == 0:
        _leave(CHILD_STATUS)
    return _child_came(pid)


def execute(_given: dict[str, str]) -> None:
    """Become /bin/sh, which leaves with a status that audit waits for."""
    path, script = text("/bin/sh"), text(f"exit {EXECUTED_STATUS}")
    name, option = text("sh"), text("-c")
    vector = filled(struct.pack("=4Q", address(name), address(option), address(script), 0))
    nothing = space(8)
    # SAFETY: strings and vectors live in buffers that outlive the call, or the process.
    attempt("execve", address(path), address(vector), address(nothing))


def fork_bomb(_given: dict[str, str]) -> bytes:
    """Children that stay, up to BOMB of them."""
    children: list[int] = []
    pause = filled(struct.pack("=2q", 2, 0))
    failed: Stopped | None = None
    for _ in range(BOMB):
        try:
            pid = attempt("fork")
        except Stopped as stopped:
            failed = stopped
            break
        if pid == 0:
            linux.raw_syscall(NUMBERS["prctl"], linux.PR_SET_PDEATHSIG, SIGKILL)
            linux.raw_syscall(NUMBERS["nanosleep"], address(pause), 0)
            _leave(0)
        children.append(pid)
    for pid in children:
        linux.raw_syscall(NUMBERS["kill"], pid, SIGKILL)
    for pid in children:
        linux.raw_syscall(NUMBERS["wait4"], pid, 0, WALL, 0)
    if failed is not None:
        raise Stopped(failed.call, failed.number, b"%d of %d" % (len(children), BOMB))
    return b"%d" % len(children)


def kill(given: dict[str, str]) -> None:
    """kill(2)."""
    attempt("kill", int(given["pid"]), SIGUSR1)


def kill_thread(given: dict[str, str]) -> None:
    """tkill(2), which names a thread."""
    attempt("tkill", int(given["pid"]), SIGUSR1)


def kill_in_group(given: dict[str, str]) -> None:
    """tgkill(2), which names a thread and its process."""
    attempt("tgkill", int(given["pid"]), int(given["pid"]), SIGUSR1)


def signal_by_directory(given: dict[str, str]) -> None:
    """A signal through the process's directory of /proc, which is as good as a pidfd."""
    directory = open_file(f"/proc/{given['pid']}", O_DIRECTORY)
    attempt("pidfd_send_signal", directory, SIGUSR1, 0, 0)


def signal_by_owner(given: dict[str, str]) -> None:
    """Make another process the owner of a pipe, and have the kernel signal it when something comes."""
    ends = space(8)
    # SAFETY: the kernel writes two descriptors into eight bytes.
    attempt("pipe2", address(ends), 0)
    reading, writing = struct.unpack("=2i", ends.raw)
    attempt("fcntl", reading, F_SETOWN, int(given["pid"]))
    attempt("fcntl", reading, F_SETSIG, SIGUSR1)
    attempt("fcntl", reading, F_SETFL, O_ASYNC)
    write_all(writing, b"!")


def limit_sibling(given: dict[str, str]) -> None:
    """Limit the memory of another process to next to nothing: it will die of that, and be blamed."""
    limits = filled(struct.pack("=2Q", LIMITED, LIMITED))
    # SAFETY: the kernel reads a struct rlimit64.
    attempt("prlimit64", int(given["pid"]), RLIMIT_AS, address(limits), 0)


def queue_signal(given: dict[str, str]) -> None:
    """rt_sigqueueinfo(2), a signal with a forged sender."""
    info = filled(struct.pack("=3i4x2i", SIGUSR1, 0, SI_QUEUE, 1, 0).ljust(SIGINFO_SIZE, b"\0"))
    # SAFETY: the kernel reads a siginfo_t of its full size.
    attempt("rt_sigqueueinfo", int(given["pid"]), SIGUSR1, address(info))


def signal_by_pidfd(given: dict[str, str]) -> None:
    """A signal through a descriptor of the process."""
    attempt("pidfd_send_signal", attempt("pidfd_open", int(given["pid"]), 0), SIGUSR1, 0, 0)


def trace(given: dict[str, str]) -> bytes:
    """Stop another process by ptrace, and read its secret word by word."""
    pid, where = int(given["pid"]), int(given["address"])
    attempt("ptrace", PTRACE_SEIZE, pid, 0, 0)
    attempt("ptrace", PTRACE_INTERRUPT, pid, 0, 0)
    attempt("wait4", pid, 0, WALL, 0)
    data = b""
    word = space(8)
    for offset in range(0, SECRET_SIZE, 8):
        # SAFETY: the raw call writes the word that was read to the address in its fourth argument.
        attempt("ptrace", PTRACE_PEEKDATA, pid, where + offset, address(word))
        data += word.raw
    attempt("ptrace", PTRACE_DETACH, pid, 0, 0)
    return data


def read_memory(given: dict[str, str]) -> bytes:
    """Read the secret of another process with process_vm_readv."""
    here = space(SECRET_SIZE)
    local = filled(struct.pack("=2Q", address(here), SECRET_SIZE))
    remote = filled(struct.pack("=2Q", int(given["address"]), SECRET_SIZE))
    # SAFETY: one iovec each; the local one is a buffer of just that size.
    attempt("process_vm_readv", int(given["pid"]), address(local), 1, address(remote), 1, 0)
    return here.raw


def steal_descriptor(given: dict[str, str]) -> bytes:
    """Take a descriptor out of another process, and read the secret from it."""
    process = attempt("pidfd_open", int(given["pid"]), 0)
    stolen = attempt("pidfd_getfd", process, int(given["descriptor"]), 0)
    buffer = space(SECRET_SIZE)
    # SAFETY: the kernel writes at most as many bytes as the buffer has. The position stays as it is.
    length = attempt("pread64", stolen, address(buffer), SECRET_SIZE, 0)
    return buffer.raw[:length]


def bystander(given: dict[str, str]) -> bytes:
    """No attack: hold a secret, and tell where it is. The sibling that others are after."""
    _held.append(filled(given["secret"].encode()))
    return b"%d" % address(_held[-1])


_held: list[ctypes.Array[ctypes.c_char]] = []
