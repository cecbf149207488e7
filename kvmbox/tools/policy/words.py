"""Arguments of system calls in words, and words to arguments. Pure.

The names of arguments are those of the manual pages. A value is spelled as a program would spell it:
`PROT_READ|PROT_WRITE`, `-1`, `0xae80`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

from kvmbox.jail import namespaces
from kvmbox.jail.fixed_descriptors import CHANNEL_FD, REPLY_FD
from kvmbox.sandbox.policy import INT, WORD, Condition
from kvmbox.sandbox.seccomp import OWN_PID, SPAWNER_PIDFD

SIGNATURES: Final[Mapping[str, str]] = {
    "read": "fd buf count",
    "write": "fd buf count",
    "open": "path flags mode",
    "close": "fd",
    "poll": "fds nfds timeout",
    "mmap": "addr length prot flags fd offset",
    "mprotect": "addr length prot",
    "munmap": "addr length",
    "brk": "addr",
    "rt_sigaction": "signum act oldact sigsetsize",
    "rt_sigprocmask": "how set oldset sigsetsize",
    "ioctl": "fd request argp",
    "readv": "fd iov iovcnt",
    "writev": "fd iov iovcnt",
    "pread64": "fd buf count offset",
    "pwrite64": "fd buf count offset",
    "mremap": "old_address old_size new_size flags new_address",
    "madvise": "addr length advice",
    "dup2": "oldfd newfd",
    "socket": "domain type protocol",
    "connect": "fd addr addrlen",
    "sendto": "fd buf len flags dest_addr addrlen",
    "recvfrom": "fd buf len flags src_addr addrlen",
    "sendmsg": "fd msg flags",
    "recvmsg": "fd msg flags",
    "clone": "flags stack parent_tid child_tid tls",
    "execve": "path argv envp",
    "exit": "status",
    "exit_group": "status",
    "kill": "pid sig",
    "tkill": "tid sig",
    "tgkill": "tgid tid sig",
    "fcntl": "fd op arg",
    "ftruncate": "fd length",
    "ptrace": "op pid addr data",
    "prctl": "op arg2 arg3 arg4 arg5",
    "futex": "uaddr op val timeout uaddr2 val3",
    "openat": "dirfd path flags mode",
    "memfd_create": "name flags",
    "setrlimit": "resource rlim",
    "seccomp": "op flags args",
    "socketpair": "domain type protocol sv",
    "timerfd_settime": "fd flags new_value old_value",
    "pidfd_send_signal": "pidfd sig info flags",
    "clone3": "cl_args size",
}
"""Names of the arguments, by system call: what policies speak of, and what people ask for."""

_PLACEHOLDERS: Final = {OWN_PID: "own-pid", SPAWNER_PIDFD: "spawner"}
"""What a filter has in place of these is known when it is installed: `seccomp.bound_to`."""

_OPEN: Final = {
    **{name: getattr(os, name) for name in ("O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC", "O_APPEND")},
    "O_TMPFILE": 0o20000000,  # without O_DIRECTORY, which belongs to it
}
_CLONE: Final = {
    "CLONE_VM": 0x100,
    "CLONE_FILES": 0x400,
    "CLONE_THREAD": 0x1_0000,
    "CLONE_NEWTIME": 0x80,
    **{name: bit for name, bit in vars(namespaces).items() if name.startswith("CLONE_NEW")},
}
_PROTECTIONS: Final = {"PROT_READ": 1, "PROT_WRITE": 2, "PROT_EXEC": 4}
_MAPPINGS: Final = {"MAP_SHARED": 1, "MAP_PRIVATE": 2, "MAP_FIXED": 0x10, "MAP_ANONYMOUS": 0x20}

CONSTANTS: Final[Mapping[str, int]] = {
    "PROT_NONE": 0,
    **_PROTECTIONS,
    **_MAPPINGS,
    **_CLONE,
    "AT_FDCWD": -100,
    "stdin": 0,
    "stdout": 1,
    "stderr": 2,
    "channel": CHANNEL_FD,
    "reply": REPLY_FD,
    "own-pid": OWN_PID,
    "spawner": SPAWNER_PIDFD,
}
"""Words that stand for an argument. Further ones are found by prefix: see `parse_argument`."""

_FLAGS: Final[Mapping[tuple[str, str], Mapping[str, int]]] = {
    ("mmap", "flags"): _MAPPINGS,
    ("open", "flags"): _OPEN,
    ("openat", "flags"): _OPEN,
    ("clone", "flags"): _CLONE,
}
"""Names of the bits of an argument, by call and argument; `prot` is the same for all calls."""

_SIGNED: Final = frozenset({"fd", "dirfd", "oldfd", "newfd", "pidfd", "pid", "tid", "tgid", "timeout"})


def argument_name(call: str, index: int) -> str:
    """The name of argument `index` (0..5) of `call`, as in its manual page, or 'argument N' from 1."""
    names = SIGNATURES.get(call, "").split()
    return names[index] if index < len(names) else f"argument {index + 1}"


def value_in_words(call: str, name: str, value: int) -> str:
    """`value` of the argument called `name`, as a program would spell it."""
    if value in _PLACEHOLDERS:
        return _PLACEHOLDERS[value]
    if name == "prot":
        return _flags(value, _PROTECTIONS) if value else "PROT_NONE"
    if (call, name) in _FLAGS:
        return _flags(value, _FLAGS[call, name])
    if name == "request":  # of ioctl: the second byte says whose it is
        return hex(value)
    if name in _SIGNED and value & ~INT in (0, WORD & ~INT):
        # An int argument: the kernel takes the lower half, as a signed number.
        lower = value & INT
        signed = lower - ((lower & 1 << 31) << 1)
        return "AT_FDCWD" if name == "dirfd" and signed == CONSTANTS["AT_FDCWD"] else str(signed)
    return str(value) if value < 1 << 16 else hex(value)


def _flags(value: int, names: Mapping[str, int]) -> str:
    words = [name for name, bit in names.items() if value & bit]
    rest = value & ~sum(names.values())
    return "|".join(words + ([hex(rest)] if rest else [])) or "0"


def condition_in_words(call: str, condition: Condition) -> str:
    """What the condition asks: 'fd is 3', 'flags has none of 0x7'."""
    name = argument_name(call, condition.argument)
    value = value_in_words(call, name, condition.value)
    if condition.mask in (INT, WORD):
        return f"{name} is {value}"
    mask = value_in_words(call, name, condition.mask)
    if condition.value == 0:
        return f"{name} has none of {mask}"
    return f"{name} has {value}" if condition.value == condition.mask else f"{name} & ({mask}) is {value}"


def unmet_in_words(call: str, condition: Condition, registers: tuple[int, ...]) -> str:
    """Why the condition does not hold for the six `registers`: what the argument is, and must be."""
    name = argument_name(call, condition.argument)
    actual = registers[condition.argument] & (condition.mask if condition.mask == INT else WORD)
    given = value_in_words(call, name, actual)
    return f"{name} is {given}, and the rule wants: {condition_in_words(call, condition)}"


def parse_argument(text: str) -> int:
    """An argument from '3', '-1', '0x1000', 'channel' or 'PROT_READ|PROT_WRITE'. Raises ValueError.

    Names with the prefixes O_, AF_, SOCK_, SIG, PROT_ and MAP_ are those that Python's modules know.
    """
    value = 0
    for word in text.split("|"):
        value |= _parse_word(word.strip())
    if not -(1 << 63) <= value <= WORD:
        raise ValueError(f"'{text}' does not fit into a register of 64 bits")
    return value


def _parse_word(word: str) -> int:
    try:
        return int(word, 0)
    except ValueError:
        pass
    if word in CONSTANTS:
        return CONSTANTS[word]
    found = _constant_of_module(word)
    if found is None:
        raise ValueError(
            f"'{word}' is neither a number nor a name that is known here: "
            "give it in decimal, as 0x…, or as PROT_, MAP_, O_, AF_, SOCK_ or SIG…"
        )
    return found


def _constant_of_module(word: str) -> int | None:
    import mmap
    import signal
    import socket

    homes = {"PROT_": mmap, "MAP_": mmap, "O_": os, "AF_": socket, "SOCK_": socket, "SIG": signal}
    for prefix, module in homes.items():
        if word.startswith(prefix):
            value = getattr(module, word, None)
            return int(value) if isinstance(value, int) else None
    return None
