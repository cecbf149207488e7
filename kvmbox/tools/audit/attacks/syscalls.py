"""Raw system calls for attacks: numbers (x86-64, <asm/unistd_64.h>), and a call that tells how it failed."""

from __future__ import annotations

import ctypes

from kvmbox.jail import linux
from kvmbox.tools.audit.payload_frames import Stopped

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    Buffer = ctypes.Array[ctypes.c_char]

# The formatter would give each cell a line of its own.
# fmt: off
NUMBERS: Final = {
    "read": 0, "write": 1, "mmap": 9, "mprotect": 10, "pread64": 17, "shmget": 29, "shmat": 30, "shmctl": 31,
    "nanosleep": 35, "socket": 41, "connect": 42, "sendto": 44, "bind": 49, "listen": 50, "fork": 57,
    "execve": 59, "exit": 60, "wait4": 61, "kill": 62, "uname": 63, "shmdt": 67, "fcntl": 72, "chdir": 80,
    "unlink": 87, "ptrace": 101, "syslog": 103, "setuid": 105, "capget": 125, "rt_sigqueueinfo": 129,
    "personality": 135, "setpriority": 141, "prctl": 157, "chroot": 161, "mount": 165, "sethostname": 170,
    "ioperm": 173, "tkill": 200, "getdents64": 217, "exit_group": 231, "tgkill": 234, "add_key": 248,
    "openat": 257, "newfstatat": 262, "unshare": 272, "pipe2": 293, "perf_event_open": 298, "prlimit64": 302,
    "open_by_handle_at": 304, "setns": 308, "process_vm_readv": 310, "memfd_create": 319, "bpf": 321,
    "userfaultfd": 323, "pidfd_send_signal": 424, "io_uring_setup": 425, "pidfd_open": 434, "clone3": 435,
    "pidfd_getfd": 438,
}
# fmt: on

AT_FDCWD: Final = -100
EOPNOTSUPP: Final = 95


def tried(call: str, *arguments: int | Buffer) -> int:
    """What system call `call` returns: negative if it fails. A buffer stands for its address."""
    # SAFETY: the caller gives buffers of the sizes that the call wants, which outlive it.
    numbers = [one if isinstance(one, int) else address(one) for one in arguments]
    return linux.raw_syscall(NUMBERS[call], *numbers)


def attempt(call: str, *arguments: int | Buffer, evidence: bytes = b"") -> int:
    """As `tried`; raises Stopped, with `evidence`, if it fails."""
    result = tried(call, *arguments)
    if result < 0:
        raise Stopped(call, ctypes.get_errno(), evidence)
    return result


def text(value: str) -> Buffer:
    """A C string."""
    return ctypes.create_string_buffer(value.encode())


def address(buffer: Buffer) -> int:
    """Where a buffer is."""
    return ctypes.addressof(buffer)


def space(size: int) -> Buffer:
    """A buffer of zeros for the kernel to write to, or a structure that is mostly zeros."""
    return ctypes.create_string_buffer(size)


def filled(data: bytes) -> Buffer:
    """A buffer with just these bytes."""
    return ctypes.create_string_buffer(data, len(data))


def open_file(path: str, flags: int = 0, mode: int = 0) -> int:
    """openat(2); raises Stopped."""
    return attempt("openat", AT_FDCWD, text(path), flags, mode)


def open_handle(root: int, handle: str) -> int:
    """open_by_handle_at(2): what a file handle, in hexadecimal, stands for; raises Stopped."""
    if not handle:
        raise Stopped("name_to_handle_at", EOPNOTSUPP)
    # SAFETY: the kernel reads a struct file_handle, whose length is in it.
    return attempt("open_by_handle_at", root, filled(bytes.fromhex(handle)), 0)


def read_some(descriptor: int, size: int) -> bytes:
    """read(2); raises Stopped."""
    buffer = space(size)
    # SAFETY: the kernel writes at most `size` bytes into a buffer of that size.
    length = attempt("read", descriptor, buffer, size)
    return buffer.raw[:length]


def write_all(descriptor: int, data: bytes) -> int:
    """write(2), once; raises Stopped."""
    return attempt("write", descriptor, filled(data), len(data))


def unshare(flags: int) -> None:
    """New namespaces, by way of an own user namespace where that is what it takes; raises Stopped."""
    if tried("unshare", flags) < 0:
        attempt("unshare", flags | linux.CLONE_NEWUSER)
