"""seccomp filters, raw: install one, with a listener or for all threads; receive a held call, answer it.

Loaded into the spawner; see `listener` for what the VMM makes of it, and docs/adr/jail.md for the reason.
"""

from __future__ import annotations

import ctypes
import fcntl
import struct

from kvmbox.jail import linux

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

# <linux/seccomp.h>
SECCOMP_SET_MODE_FILTER: Final = 1
SECCOMP_GET_ACTION_AVAIL: Final = 2
SECCOMP_FILTER_FLAG_TSYNC: Final = 1 << 0
SECCOMP_FILTER_FLAG_NEW_LISTENER: Final = 1 << 3
SECCOMP_RET_USER_NOTIF: Final = 0x7FC0_0000
NOTIFICATION: Final = struct.Struct("=QIIiIQ6Q")  # seccomp_notif: id pid flags, nr arch ip args[6]
RESPONSE: Final = struct.Struct("=QqiI")  # seccomp_notif_resp: id val error flags
SECCOMP_IOCTL_NOTIF_RECV: Final = 0xC000_2100 | NOTIFICATION.size << 16
SECCOMP_IOCTL_NOTIF_SEND: Final = 0xC000_2101 | RESPONSE.size << 16

INSTRUCTION_SIZE: Final = 8  # struct sock_filter


def install_filter(bpf: bytes) -> int:
    """Filter the calling thread for good; returns the listener's descriptor, the lowest free number.

    `bpf` is an array of struct sock_filter. Needs no_new_privs. Raises OSError.
    """
    return _install(bpf, SECCOMP_FILTER_FLAG_NEW_LISTENER)


def install_plain_filter(bpf: bytes, *, every_thread: bool) -> None:
    """Filter the calling thread for good, or each thread of the process; no listener. Raises OSError."""
    if _install(bpf, SECCOMP_FILTER_FLAG_TSYNC if every_thread else 0) != 0:
        raise OSError("seccomp: a thread has a filter of its own already")


def _install(bpf: bytes, flags: int) -> int:
    count, remainder = divmod(len(bpf), INSTRUCTION_SIZE)
    if remainder or not 0 < count <= 0xFFFF:
        raise OSError("seccomp: the filter is no array of BPF instructions")
    instructions = ctypes.create_string_buffer(bpf, len(bpf))
    # struct sock_fprog: unsigned short len, six bytes of padding, pointer.
    program = ctypes.create_string_buffer(struct.pack("=H6xQ", count, ctypes.addressof(instructions)), 16)
    # SAFETY: the kernel copies both buffers before the call returns.
    return linux.checked_syscall(
        "seccomp",
        linux.SYS_SECCOMP,
        SECCOMP_SET_MODE_FILTER,
        flags,
        ctypes.addressof(program),
    )


def notification_available() -> bool:
    """Whether this kernel has user notification."""
    action = ctypes.c_uint32(SECCOMP_RET_USER_NOTIF)
    # SAFETY: the kernel reads four bytes of an object that outlives the call.
    return linux.raw_syscall(linux.SYS_SECCOMP, SECCOMP_GET_ACTION_AVAIL, 0, ctypes.addressof(action)) == 0


def receive(listener: int) -> tuple[int, ...] | None:
    """The next held call as (id, pid, flags, number, arch, ip, six arguments); blocks until there is one.

    None if the process died, or was stopped, meanwhile. Raises OSError.
    """
    buffer = bytearray(NOTIFICATION.size)  # the kernel insists on zeros
    return NOTIFICATION.unpack(buffer) if _is_held(listener, SECCOMP_IOCTL_NOTIF_RECV, buffer) else None


def respond(listener: int, identifier: int, value: int) -> bool:
    """Let held call `identifier` return `value` without running it. Return whether it was still held.

    Raises OSError.
    """
    return _is_held(listener, SECCOMP_IOCTL_NOTIF_SEND, bytearray(RESPONSE.pack(identifier, value, 0, 0)))


def _is_held(listener: int, request: int, buffer: bytearray) -> bool:
    try:
        fcntl.ioctl(listener, request, buffer, True)
    except FileNotFoundError:
        return False
    return True
