"""Landlock, deny-all: no file, no TCP port, no abstract socket, no signal to anybody outside.

A ruleset that handles every right the kernel knows, and allows none. Nothing here takes a path: a device
process needs no file at all, so the binding is three calls. Rights grew with the ABI version
(landlock(7)); a kernel is asked for exactly what it knows, and what it does not know is reported as a
missing layer rather than passed over.
"""

from __future__ import annotations

import ctypes
import os
import struct

from kvmbox.sandbox import layers, linux

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

CREATE_RULESET_VERSION: Final = 1
RULESET_ATTRIBUTE: Final = struct.Struct("=QQQ")  # handled_access_fs, handled_access_net, scoped

# How many filesystem rights each ABI version knows (<linux/landlock.h>): REFER came with 2, TRUNCATE
# with 3, IOCTL_DEV with 5.
_FS_RIGHT_COUNT: Final = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
NET_RIGHTS: Final = 0b11  # bind and connect over TCP, ABI 4
SCOPES: Final = 0b11  # abstract Unix sockets and signals, ABI 6
NEWEST_KNOWN_ABI: Final = 6  # ABI 7 adds audit flags only


def abi() -> int:
    """The kernel's Landlock ABI version; 0 where Landlock is absent or switched off."""
    version = linux.raw_syscall(linux.SYS_LANDLOCK_CREATE_RULESET, 0, 0, CREATE_RULESET_VERSION)
    return max(version, 0)


def handled_rights(version: int) -> tuple[int, int, int]:
    """What a deny-all ruleset handles at ABI `version` ≥ 1: masks of (filesystem, network, scopes)."""
    filesystem = (1 << _FS_RIGHT_COUNT[min(version, 5)]) - 1
    network = NET_RIGHTS if version >= 4 else 0
    scopes = SCOPES if version >= 6 else 0
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
    # The structure grew with the ABI; zero bytes behind what a kernel knows are accepted by all.
    attribute = ctypes.create_string_buffer(RULESET_ATTRIBUTE.pack(*handled_rights(version)))
    # SAFETY: the kernel copies RULESET_ATTRIBUTE.size bytes from a buffer that outlives the call.
    ruleset = linux.checked_syscall(
        "landlock_create_ruleset",
        linux.SYS_LANDLOCK_CREATE_RULESET,
        ctypes.addressof(attribute),
        RULESET_ATTRIBUTE.size,
    )
    try:
        linux.checked_syscall("landlock_restrict_self", linux.SYS_LANDLOCK_RESTRICT_SELF, ruleset)
    finally:
        os.close(ruleset)
