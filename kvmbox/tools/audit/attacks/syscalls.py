"""Raw system calls for attacks: numbers (x86-64, <asm/unistd_64.h>), and a call that tells how it failed."""

from __future__ import annotations

import ctypes

from kvmbox.jail import linux
from kvmbox.tools.audit.payload_frames import Stopped

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

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
O_WRONLY: Final = 0o1
O_RDWR: Final = 0o2
O_CREAT: Final = 0o100
O_EXCL: Final = 0o200
O_DIRECTORY: Final = 0o200000
SIGKILL: Final = 9
EOPNOTSUPP: Final = 95


def attempt(call: str, *arguments: int, evidence: bytes = b"") -> int:
    """Make system call `call`; raises Stopped, with `evidence`, if it fails."""
    result = linux.raw_syscall(NUMBERS[call], *arguments)
    if result < 0:
        raise Stopped(call, ctypes.get_errno(), evidence)
    return result


def text(value: str) -> ctypes.Array[ctypes.c_char]:
    """A C string; the caller keeps it as long as the kernel may read it."""
    return ctypes.create_string_buffer(value.encode())


def address(buffer: ctypes.Array[ctypes.c_char]) -> int:
    """Where a buffer is."""
    return ctypes.addressof(buffer)


def space(size: int) -> ctypes.Array[ctypes.c_char]:
    """A buffer of zeros for the kernel to write to, or a structure that is mostly zeros."""
    return ctypes.create_string_buffer(size)


def filled(data: bytes) -> ctypes.Array[ctypes.c_char]:
    """A buffer with just these bytes."""
    return ctypes.create_string_buffer(data, len(data))


def open_file(path: str, flags: int = 0, mode: int = 0) -> int:
    """openat(2); raises Stopped."""
    name = text(path)
    # SAFETY: the kernel reads a C string that outlives the call.
    return attempt("openat", AT_FDCWD, address(name), flags, mode)


def open_handle(root: int, handle: str) -> int:
    """open_by_handle_at(2): what a file handle, in hexadecimal, stands for; raises Stopped."""
    if not handle:
        raise Stopped("name_to_handle_at", EOPNOTSUPP)
    buffer = filled(bytes.fromhex(handle))
    # SAFETY: the kernel reads a struct file_handle, whose length is in it.
    return attempt("open_by_handle_at", root, address(buffer), 0)


def read_some(descriptor: int, size: int) -> bytes:
    """read(2); raises Stopped."""
    buffer = space(size)
    # SAFETY: the kernel writes at most `size` bytes into a buffer of that size.
    length = attempt("read", descriptor, address(buffer), size)
    return buffer.raw[:length]


def write_all(descriptor: int, data: bytes) -> int:
    """write(2), once; raises Stopped."""
    buffer = filled(data)
    # SAFETY: the kernel reads the buffer's bytes, which outlive the call.
    return attempt("write", descriptor, address(buffer), len(data))


def unshare(flags: int) -> None:
    """New namespaces, by way of an own user namespace where that is what it takes; raises Stopped."""
    if linux.raw_syscall(NUMBERS["unshare"], flags) < 0:
        attempt("unshare", flags | CLONE_NEWUSER)


CLONE_NEWNS: Final = 0x0002_0000
CLONE_NEWUTS: Final = 0x0400_0000
CLONE_NEWUSER: Final = 0x1000_0000
