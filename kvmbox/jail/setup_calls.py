"""The last calls of a device process on its way into the jail, which its policy does not allow.

Theory of operation
-------------------
The listener of a filter exists once the filter is in force. But then the process must still send it to the
spawner, close what it does not need, and take its last limit. So a *prologue* in front of the filter allows
these calls: each by its number and its first argument.

A second filter, the *seal*, ends that. It is the same prologue with another verdict. The kernel takes the
strictest verdict of all filters. So what the prologue alone allows is fatal from then on (SIGSYS), and for
any other call the filter decides.
"""

from __future__ import annotations

import struct

from kvmbox.jail import linux, notify
from kvmbox.jail.fixed_descriptors import LISTENER_FD, REPORT_FD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

# <linux/bpf_common.h>, <linux/seccomp.h>, <linux/audit.h>
LOAD: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS
JUMP_IF_EQUAL: Final = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
RETURN: Final = 0x06  # BPF_RET | BPF_K
NUMBER, ARCH, FIRST_ARGUMENT = 0, 4, 16  # in struct seccomp_data; of the argument the lower half, an int
AUDIT_ARCH_X86_64: Final = 0xC000_003E
KILL_PROCESS: Final = 0x8000_0000
ALLOW: Final = 0x7FFF_0000

CALLS: Final = (
    (linux.SYS_SENDMSG, REPORT_FD),  # the listener, to the spawner
    (linux.SYS_CLOSE, LISTENER_FD),
    (linux.SYS_CLOSE, REPORT_FD),
    (linux.SYS_SETRLIMIT, linux.RLIMIT_NOFILE),  # the listener needed a number
    (linux.SYS_SECCOMP, notify.SECCOMP_SET_MODE_FILTER),  # the seal
)

_instruction = struct.Struct("=HBBI").pack  # struct sock_filter: code, jump if true, if false, k


def _prologue(verdict: int) -> bytes:
    tests = b"".join(
        _instruction(LOAD, 0, 0, NUMBER)
        + _instruction(JUMP_IF_EQUAL, 0, 3, number)
        + _instruction(LOAD, 0, 0, FIRST_ARGUMENT)
        + _instruction(JUMP_IF_EQUAL, 0, 1, argument)
        + _instruction(RETURN, 0, 0, verdict)
        for number, argument in CALLS
    )
    other_abi = _instruction(JUMP_IF_EQUAL, 0, len(tests) // notify.INSTRUCTION_SIZE, AUDIT_ARCH_X86_64)
    return _instruction(LOAD, 0, 0, ARCH) + other_abi + tests


PROLOGUE: Final = _prologue(ALLOW)
"""To be put in front of a filter."""

SEAL: Final = _prologue(KILL_PROCESS) + _instruction(RETURN, 0, 0, ALLOW)
"""A filter of its own."""
