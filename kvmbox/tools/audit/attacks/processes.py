"""After processes: make some, become another, trace, read and signal those of others.

Children are bounded and short-lived: each has a death signal, leaves by itself after two seconds, and is
killed and reaped before the attack answers.
"""

from __future__ import annotations

import ctypes
import os
import struct

from kvmbox.jail import linux, lsm
from kvmbox.tools.audit.attacks import syscalls
from kvmbox.tools.audit.payload_frames import Stopped

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, NoReturn

BOMB: Final = 64
CHILD_STATUS: Final = 42
EXECUTED_STATUS: Final = 77
CLONE_ARGS_SIZE: Final = 64  # the first version of struct clone_args
SIGUSR1: Final = 10
SI_QUEUE: Final = -1
SIGINFO_SIZE: Final = 128
SECRET_SIZE: Final = 16
F_SETFL: Final = 4
F_SETOWN: Final = 8
F_SETSIG: Final = 10
O_ASYNC: Final = 0o20000
FD_PIDFS_ROOT: Final = -10002
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
        syscalls.tried("exit_group", status)


def _child_came(pid: int) -> bytes:
    status = syscalls.space(4)
    # SAFETY: the kernel writes an int into four bytes.
    syscalls.attempt("wait4", pid, status, WALL, 0)
    came = int.from_bytes(status.raw, "little") == CHILD_STATUS << 8
    return b"child" if came else b""


def fork(_given: dict[str, str]) -> bytes:
    """A child by fork(2), which exits."""
    # SAFETY: no other thread wants the interpreter's lock (`stand_in`); the child makes one system call.
    # So in all that follow.
    pid = syscalls.attempt("fork")
    if pid == 0:
        _leave(CHILD_STATUS)
    return _child_came(pid)


def clone3(_given: dict[str, str]) -> bytes:
    """A child by clone3(2), whose flags no filter can see."""
    arguments = syscalls.filled(struct.pack("=8Q", 0, 0, 0, 0, linux.SIGCHLD, 0, 0, 0))
    pid = syscalls.attempt("clone3", arguments, CLONE_ARGS_SIZE)
    if pid == 0:
        _leave(CHILD_STATUS)
    return _child_came(pid)


def execute(_given: dict[str, str]) -> None:
    """Become /bin/sh, which leaves with a status that audit waits for."""
    path, script = syscalls.text("/bin/sh"), syscalls.text(f"exit {EXECUTED_STATUS}")
    name, option = syscalls.text("sh"), syscalls.text("-c")
    vector = syscalls.filled(struct.pack("=4Q", *map(syscalls.address, (name, option, script)), 0))
    nothing = syscalls.space(8)
    # SAFETY: strings and vectors live in buffers that outlive the call, or the process.
    syscalls.attempt("execve", path, vector, nothing)


def fork_bomb(_given: dict[str, str]) -> bytes:
    """Children that stay, up to BOMB of them."""
    children: list[int] = []
    pause = syscalls.filled(struct.pack("=2q", 2, 0))
    failed: Stopped | None = None
    for _ in range(BOMB):
        try:
            pid = syscalls.attempt("fork")
        except Stopped as stopped:
            failed = stopped
            break
        if pid == 0:
            syscalls.tried("prctl", linux.PR_SET_PDEATHSIG, linux.SIGKILL)
            syscalls.tried("nanosleep", pause, 0)
            _leave(0)
        children.append(pid)
    for pid in children:
        syscalls.tried("kill", pid, linux.SIGKILL)
    for pid in children:
        syscalls.tried("wait4", pid, 0, WALL, 0)
    if failed is not None:
        raise Stopped(failed.call, failed.number, b"%d of %d" % (len(children), BOMB))
    return b"%d" % len(children)


def kill(given: dict[str, str]) -> None:
    """kill(2)."""
    syscalls.attempt("kill", int(given["pid"]), SIGUSR1)


def kill_thread(given: dict[str, str]) -> None:
    """tkill(2), which names a thread."""
    syscalls.attempt("tkill", int(given["pid"]), SIGUSR1)


def kill_in_group(given: dict[str, str]) -> None:
    """tgkill(2), which names a thread and its process."""
    syscalls.attempt("tgkill", int(given["pid"]), int(given["pid"]), SIGUSR1)


def signal_by_directory(given: dict[str, str]) -> None:
    """A signal through the process's directory of /proc, which is as good as a pidfd."""
    directory = syscalls.open_file(f"/proc/{given['pid']}", os.O_DIRECTORY)
    syscalls.attempt("pidfd_send_signal", directory, SIGUSR1, 0, 0)


def signal_by_owner(given: dict[str, str]) -> None:
    """Make another process the owner of a pipe, and have the kernel signal it when something comes."""
    ends = syscalls.space(8)
    # SAFETY: the kernel writes two descriptors into eight bytes.
    syscalls.attempt("pipe2", ends, 0)
    reading, writing = struct.unpack("=2i", ends.raw)
    syscalls.attempt("fcntl", reading, F_SETOWN, int(given["pid"]))
    syscalls.attempt("fcntl", reading, F_SETSIG, SIGUSR1)
    syscalls.attempt("fcntl", reading, F_SETFL, O_ASYNC)
    syscalls.write_all(writing, b"!")
    syscalls.attempt("fcntl", reading, F_SETFL, 0)  # or the end of this process is another signal


def limit_sibling(given: dict[str, str]) -> None:
    """Limit the memory of another process to next to nothing: it will die of that, and be blamed."""
    limits = syscalls.filled(struct.pack("=2Q", LIMITED, LIMITED))  # a struct rlimit64
    syscalls.attempt("prlimit64", int(given["pid"]), RLIMIT_AS, limits, 0)


def queue_signal(given: dict[str, str]) -> None:
    """rt_sigqueueinfo(2), a signal with a forged sender."""
    info = syscalls.filled(struct.pack("=3i4x2i", SIGUSR1, 0, SI_QUEUE, 1, 0).ljust(SIGINFO_SIZE, b"\0"))
    # SAFETY: the kernel reads a siginfo_t of its full size.
    syscalls.attempt("rt_sigqueueinfo", int(given["pid"]), SIGUSR1, info)


def signal_by_pidfd(given: dict[str, str]) -> None:
    """A signal through a descriptor of the process."""
    syscalls.attempt("pidfd_send_signal", syscalls.attempt("pidfd_open", int(given["pid"]), 0), SIGUSR1, 0, 0)


def signal_by_handle(given: dict[str, str]) -> None:
    """A signal through a descriptor of the process that a file handle gives (Linux 6.14)."""
    syscalls.attempt("pidfd_send_signal", syscalls.open_handle(FD_PIDFS_ROOT, given["handle"]), SIGUSR1, 0, 0)


def leave_label(given: dict[str, str]) -> None:
    """The label of AppArmor or SELinux that audit has."""
    number = lsm.set_label(int(given["module"]), given["label"])
    if number:
        raise Stopped("lsm_set_self_attr", number)


def trace(given: dict[str, str]) -> bytes:
    """Stop another process by ptrace, and read its secret word by word."""
    pid, where = int(given["pid"]), int(given["address"])
    syscalls.attempt("ptrace", PTRACE_SEIZE, pid, 0, 0)
    syscalls.attempt("ptrace", PTRACE_INTERRUPT, pid, 0, 0)
    syscalls.attempt("wait4", pid, 0, WALL, 0)
    data = b""
    word = syscalls.space(8)
    for offset in range(0, SECRET_SIZE, 8):
        # SAFETY: the raw call writes the word that was read to the address in its fourth argument.
        syscalls.attempt("ptrace", PTRACE_PEEKDATA, pid, where + offset, word)
        data += word.raw
    syscalls.attempt("ptrace", PTRACE_DETACH, pid, 0, 0)
    return data


def read_memory(given: dict[str, str]) -> bytes:
    """Read the secret of another process with process_vm_readv."""
    here = syscalls.space(SECRET_SIZE)
    local = syscalls.filled(struct.pack("=2Q", syscalls.address(here), SECRET_SIZE))
    remote = syscalls.filled(struct.pack("=2Q", int(given["address"]), SECRET_SIZE))
    # SAFETY: one iovec each; the local one is a buffer of just that size.
    syscalls.attempt("process_vm_readv", int(given["pid"]), local, 1, remote, 1, 0)
    return here.raw


def steal_descriptor(given: dict[str, str]) -> bytes:
    """Take a descriptor out of another process, and read the secret from it."""
    process = syscalls.attempt("pidfd_open", int(given["pid"]), 0)
    stolen = syscalls.attempt("pidfd_getfd", process, int(given["descriptor"]), 0)
    buffer = syscalls.space(SECRET_SIZE)
    # SAFETY: the kernel writes at most as many bytes as the buffer has. The position stays as it is.
    length = syscalls.attempt("pread64", stolen, buffer, SECRET_SIZE, 0)
    return buffer.raw[:length]


def bystander(given: dict[str, str]) -> bytes:
    """No attack: hold a secret, and tell where it is. The sibling that others are after."""
    _held.append(syscalls.filled(given["secret"].encode()))
    return b"%d" % syscalls.address(_held[-1])


_held: list[ctypes.Array[ctypes.c_char]] = []
