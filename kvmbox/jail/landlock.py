"""Landlock: no file, no TCP port, no abstract socket, no signal to anybody outside; or some files, to read.

A ruleset that handles every right the kernel knows, and allows none: a device process needs no file at all.
The VMM gets directories to read from, and keeps its signals. So the binding is three calls, or four. Rights
grew with the ABI version (landlock(7)); a kernel is asked for exactly what it knows, and what it does not
know is reported as a missing layer rather than passed over.
"""

from __future__ import annotations

import ctypes
import os
import struct

from kvmbox.jail import layers, linux

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Final

CREATE_RULESET_VERSION: Final = 1
RULE_PATH_BENEATH: Final = 1
PATH_BENEATH_ATTRIBUTE: Final = struct.Struct("=Qi")  # allowed_access, parent_fd

READ_FILE: Final = 1 << 2
READ_DIR: Final = 1 << 3
RULESET_ATTRIBUTE: Final = struct.Struct("=QQQ")  # handled_access_fs, handled_access_net, scoped

# How many filesystem rights each ABI version knows (<linux/landlock.h>): REFER came with 2, TRUNCATE
# with 3, IOCTL_DEV with 5, RESOLVE_UNIX with 9.
_FS_RIGHT_COUNT: Final = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16, 6: 16, 7: 16, 8: 16, 9: 17}
TCP_RIGHTS: Final = 0b0011  # bind and connect, ABI 4
UDP_RIGHTS: Final = 0b1100  # bind; connect and send, ABI 10
SCOPE_ABSTRACT_SOCKETS: Final = 1
SCOPES: Final = 0b11  # abstract Unix sockets and signals
SCOPES_ABI: Final = 6
NEWEST_KNOWN_ABI: Final = 10  # ABI 7 added audit flags only, ABI 8 a flag: all threads at once
RESTRICT_EVERY_THREAD: Final = 1 << 3  # LANDLOCK_RESTRICT_SELF_TSYNC
EVERY_THREAD_ABI: Final = 8


def abi() -> int:
    """The kernel's Landlock ABI version; 0 where Landlock is absent or switched off."""
    version = linux.raw_syscall(linux.SYS_LANDLOCK_CREATE_RULESET, 0, 0, CREATE_RULESET_VERSION)
    return max(version, 0)


def handled_rights(version: int) -> tuple[int, int, int]:
    """What a deny-all ruleset handles at ABI `version` ≥ 1: masks of (filesystem, network, scopes)."""
    filesystem = (1 << _FS_RIGHT_COUNT[min(version, 9)]) - 1
    network = (TCP_RIGHTS if version >= 4 else 0) | (UDP_RIGHTS if version >= 10 else 0)
    scopes = SCOPES if version >= SCOPES_ABI else 0
    return filesystem, network, scopes


def layers_of(version: int) -> int:
    """The layers (bits of `layers`) that Landlock ABI `version` gives."""
    if version < 1:
        return 0
    _, network, scopes = handled_rights(version)
    return (
        layers.LANDLOCK | (layers.LANDLOCK_NET if network else 0) | (layers.LANDLOCK_SCOPES if scopes else 0)
    )


def why_missing(limit: int) -> str:
    """Why a layer of Landlock's is not there, where at most ABI `limit` was to be used."""
    version = abi()
    if version == 0:
        return "this kernel has no Landlock, or has it switched off"
    if limit < version:
        return f"Landlock was limited to ABI {limit}"
    return f"this kernel has Landlock ABI {version} only"


def deny_everything(version: int) -> None:
    """Confine the calling thread at ABI `version` ≥ 1; needs no_new_privs. Raises OSError.

    Descriptors that are open already keep working, and children inherit the domain.
    """
    _restrict(handled_rights(version), (), 0)


def allow_reading(version: int, directories: Iterable[str]) -> None:
    """As `deny_everything`, but for reading what is in `directories`, and for signals: the processes that a
    VMM has to end were there before; see `confine_signals`. What does not exist is left out. From
    EVERY_THREAD_ABI on, the other threads that there are get the same.
    """
    filesystem, network, scopes = handled_rights(version)
    flags = RESTRICT_EVERY_THREAD if version >= EVERY_THREAD_ABI else 0
    _restrict((filesystem, network, scopes & SCOPE_ABSTRACT_SOCKETS), directories, flags)


def confine_signals(version: int) -> None:
    """Let the calling thread, and what it makes from now on, signal and connect to one another only: no
    process and no abstract socket outside, at ABI `version` ≥ SCOPES_ABI. Needs no_new_privs. Raises OSError.
    """
    _restrict((0, 0, SCOPES), (), 0)


def _restrict(handled: tuple[int, int, int], readable: Iterable[str], flags: int) -> None:
    # The structure grew with the ABI; zero bytes behind what a kernel knows are accepted by all.
    attribute = ctypes.create_string_buffer(RULESET_ATTRIBUTE.pack(*handled))
    # SAFETY: the kernel copies RULESET_ATTRIBUTE.size bytes from a buffer that outlives the call.
    ruleset = linux.checked_syscall(
        "landlock_create_ruleset",
        linux.SYS_LANDLOCK_CREATE_RULESET,
        ctypes.addressof(attribute),
        RULESET_ATTRIBUTE.size,
    )
    try:
        for directory in readable:
            _allow_reading(ruleset, directory)
        linux.checked_syscall("landlock_restrict_self", linux.SYS_LANDLOCK_RESTRICT_SELF, ruleset, flags)
    finally:
        os.close(ruleset)


def _allow_reading(ruleset: int, directory: str) -> None:
    try:
        parent = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        rule = ctypes.create_string_buffer(PATH_BENEATH_ATTRIBUTE.pack(READ_FILE | READ_DIR, parent))
        # SAFETY: the kernel copies the structure from a buffer that outlives the call.
        linux.checked_syscall(
            "landlock_add_rule",
            linux.SYS_LANDLOCK_ADD_RULE,
            ruleset,
            RULE_PATH_BENEATH,
            ctypes.addressof(rule),
        )
    finally:
        os.close(parent)
