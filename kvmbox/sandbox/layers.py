"""The layers of the sandbox, once: bit, name (for --require, --stats and doctor), and what each is for.

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
}

PURPOSES: Final = {
    SECCOMP: "system calls: read and write on the channel, memory, exit",
    NO_NEW_PRIVS: "no exec gains privileges",
    CLOSED_DESCRIPTORS: "nothing open but the channel",
    RLIMITS: "bounded memory; no new descriptors, processes, files or core dumps",
    NOT_DUMPABLE: "no ptrace, no /proc/PID/mem, no core by the same user",
    DEATH_SIGNAL: "dies with the spawner, which dies with the VMM",
    CAPABILITIES: "no capability in any set",
    EMPTY_ENVIRONMENT: "no environment variable inherited",
    LANDLOCK: "no path of the file system",
    LANDLOCK_NET: "no TCP bind or connect",
    LANDLOCK_SCOPES: "no abstract socket and no signal to anything outside",
}

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
"""What no run goes without."""


def names(mask: int) -> list[str]:
    """The names of the layers in `mask`, in the order of the table."""
    return [name for bit, name in NAMES.items() if mask & bit]


def mask_of(wanted: Iterable[str]) -> int:
    """The bits of named layers; raises ValueError that tells the unknown name and the known ones."""
    bits = {name: bit for bit, name in NAMES.items()}
    mask = 0
    for name in wanted:
        if name not in bits:
            raise ValueError(f"unknown sandbox layer '{name}' (known: {', '.join(bits)})")
        mask |= bits[name]
    return mask
