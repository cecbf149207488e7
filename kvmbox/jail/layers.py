"""The layers of the sandbox, once: bit, and name (for --require, --stats and doctor).

A set of layers is an int of these bits: it crosses from the device process to the VMM as one word, and
this module is loaded into the spawner, which stays free of enum and typing. A required layer that cannot
be applied ends the device process before it serves; any other is reported as missing, and `--require`
makes it required.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Final

SECCOMP: Final = 1 << 0
NO_NEW_PRIVS: Final = 1 << 1
CLOSED_DESCRIPTORS: Final = 1 << 2
RLIMITS: Final = 1 << 3
NOT_DUMPABLE: Final = 1 << 4
DEATH_SIGNAL: Final = 1 << 5
CAPABILITIES: Final = 1 << 6
EMPTY_ENVIRONMENT: Final = 1 << 7
LANDLOCK: Final = 1 << 8
LANDLOCK_NET: Final = 1 << 9
LANDLOCK_SCOPES: Final = 1 << 10
OTHER_UID: Final = 1 << 11
USER_NS: Final = 1 << 12
MOUNT_NS: Final = 1 << 13
PID_NS: Final = 1 << 14
NET_NS: Final = 1 << 15
IPC_NS: Final = 1 << 16
UTS_NS: Final = 1 << 17
CGROUP_NS: Final = 1 << 18
OWN_UID: Final = 1 << 19
IPC_LIMITS: Final = 1 << 20
LABEL: Final = 1 << 21

NAMES: Final = {
    SECCOMP: "seccomp",
    NO_NEW_PRIVS: "no-new-privs",
    CLOSED_DESCRIPTORS: "closed-descriptors",
    RLIMITS: "rlimits",
    NOT_DUMPABLE: "not-dumpable",
    DEATH_SIGNAL: "death-signal",
    CAPABILITIES: "capabilities",
    EMPTY_ENVIRONMENT: "empty-environment",
    LANDLOCK: "landlock",
    LANDLOCK_NET: "landlock-net",
    LANDLOCK_SCOPES: "landlock-scopes",
    OTHER_UID: "other-uid",
    USER_NS: "user-namespace",
    MOUNT_NS: "mount-namespace",
    PID_NS: "pid-namespace",
    NET_NS: "net-namespace",
    IPC_NS: "ipc-namespace",
    UTS_NS: "uts-namespace",
    CGROUP_NS: "cgroup-namespace",
    OWN_UID: "own-uid",
    IPC_LIMITS: "ipc-limits",
    LABEL: "lsm-label",
}

VMM_SECCOMP: Final = 1 << 24
VMM_LANDLOCK: Final = 1 << 25
VMM_CAPABILITIES: Final = 1 << 26
VMM_SCOPES: Final = 1 << 27
VMM_LABEL: Final = 1 << 28

VMM_NAMES: Final = {
    VMM_SECCOMP: "vmm-seccomp",
    VMM_LANDLOCK: "vmm-landlock",
    VMM_CAPABILITIES: "vmm-capabilities",
    VMM_SCOPES: "vmm-scopes",
    VMM_LABEL: "vmm-label",
}
"""What kvmbox's main process takes itself, once it is set up; see `vmm`."""

VMM: Final = VMM_SECCOMP | VMM_LANDLOCK | VMM_CAPABILITIES | VMM_SCOPES | VMM_LABEL

REQUIRED: Final = (
    SECCOMP
    | NO_NEW_PRIVS
    | CLOSED_DESCRIPTORS
    | RLIMITS
    | NOT_DUMPABLE
    | DEATH_SIGNAL
    | CAPABILITIES
    | EMPTY_ENVIRONMENT
)
"""What no run goes without, unless it is told to."""

ISOLATION: Final = (
    OTHER_UID | USER_NS | MOUNT_NS | PID_NS | NET_NS | IPC_NS | UTS_NS | CGROUP_NS | OWN_UID | IPC_LIMITS
)
"""What the spawner takes once, and every device process inherits, or is given by it."""

PARTS: Final = {
    LANDLOCK_NET: LANDLOCK,
    LANDLOCK_SCOPES: LANDLOCK | LANDLOCK_NET,
    OWN_UID: OTHER_UID | USER_NS,
    IPC_LIMITS: IPC_NS,
}
"""By layer, those (a mask) without which it cannot be had."""


def names(mask: int) -> list[str]:
    """The names of the layers in `mask`, in the order of the tables."""
    return [name for table in (NAMES, VMM_NAMES) for bit, name in table.items() if mask & bit]


def mask_of(wanted: Iterable[str]) -> int:
    """The bits of named layers; raises ValueError that tells the unknown name and the known ones."""
    bits = {name: bit for table in (NAMES, VMM_NAMES) for bit, name in table.items()}
    mask = 0
    for name in wanted:
        if name not in bits:
            raise ValueError(f"unknown sandbox layer '{name}' (known: {', '.join(bits)})")
        mask |= bits[name]
    return mask
