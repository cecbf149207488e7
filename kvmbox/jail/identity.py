"""The user and group ids of the sandbox when kvmbox is started as root: numbers that own nothing.

Each VMM has some numbers of its own, so that its device processes are strangers to those of another VMM as
they are to every user of the host: made from the VMM's pid, in a range that systemd's list of user ids
(UIDS-GIDS) leaves to nobody. The first is the spawner's; each device process gets one of the others, because
whoever has the same id may change another's resource limits, for one (prlimit(2)).

To give them out the spawner needs the right to change ids, and has it in a user namespace only, in which
these numbers are mapped and no other: a process that may write that map is the one that made the namespace,
see `namespaces`. Where a container maps only a part of all ids, "nobody" has to do for all.
"""

from __future__ import annotations

import os

from kvmbox.jail import layers, linux

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Container
    from typing import Final

FIRST_ID: Final = 0x7000_0000
"""Nothing is given out from here to 0x7FFE_0000."""

IDS: Final = 63
"""How many a VMM has. Pids are below 2**22, and 63 * 2**22 ids end below 0x7FFE_0000."""

NOBODY: Final = 65534
NOT_ROOT: Final = "kvmbox was not started as root"
FEW_IDS: Final = "this container maps too few user ids"


def first_of(vmm_pid: int) -> int:
    """The first id of the VMM with that pid."""
    return FIRST_ID + IDS * vmm_pid


def candidates(vmm_pid: int) -> tuple[int, int]:
    """The ids to try for the spawner, best first."""
    return first_of(vmm_pid), NOBODY


def map_ids(proc: int, pid: int, vmm_pid: int) -> None:
    """Map the VMM's ids, each to itself, in the user namespace of process `pid`, which was just made; or
    nobody alone, where the others are not there; or none. Needs CAP_SETUID and CAP_SETGID.

    `proc` is a descriptor of /proc.
    """
    for number, count in ((first_of(vmm_pid), IDS), (NOBODY, 1)):
        try:
            for name in ("gid_map", "uid_map"):
                _write(f"{pid}/{name}", f"{number} {number} {count}", proc)
        except OSError:
            continue  # the process finds out
        return


def map_to_root(uid: int, gid: int) -> None:
    """Call `uid` and `gid`, which are the caller's, user and group 0 in the user namespace that it has just
    made. It is left dumpable, until `jail.confine`. Raises OSError.
    """
    linux.prctl(linux.PR_SET_DUMPABLE, 1, name="PR_SET_DUMPABLE")  # or these files are root's
    _write("/proc/self/setgroups", "deny")  # or gid_map asks for a right
    _write("/proc/self/gid_map", f"0 {gid} 1")
    _write("/proc/self/uid_map", f"0 {uid} 1")


def _write(path: str, text: str, directory: int | None = None) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC, dir_fd=directory)
        try:
            os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)
    except OSError as error:
        raise OSError(error.errno, f"{path}: {error.strerror}") from error


def leave_groups() -> None:
    """Be in no other group. Raises OSError."""
    if os.geteuid() != 0:
        raise OSError(NOT_ROOT)
    _call("setgroups", lambda: os.setgroups(()))


def change(vmm_pid: int, without: int) -> int:
    """Become a user and a group of the first of `candidates` that is mapped, and return it. Raises OSError.

    Every capability is gone from what can be had again before the id changes, unless `without` has
    layers.CAPABILITIES: afterwards that takes a right which a plain user does not have. The death signal
    and the dumpable flag are cleared by this: set them later.
    """
    if not without & layers.CAPABILITIES:
        linux.bound_capabilities()
    *others, last = candidates(vmm_pid)
    for number in others:
        try:
            become(number)
        except OSError:
            continue  # EINVAL: not mapped in this user namespace
        return number
    become(last)
    return last


def become(number: int) -> None:
    """Become user and group `number`. Raises OSError."""
    _call("setresgid", lambda: os.setresgid(number, number, number))
    _call("setresuid", lambda: os.setresuid(number, number, number))


def free_id(first: int, used: Container[int | None]) -> int | None:
    """An id for a device process, of those behind the spawner's `first`, that is not `used`; None if all
    are.
    """
    for number in range(first + 1, first + IDS):
        if number not in used:
            return number
    return None


def _call(name: str, call: Callable[[], None]) -> None:
    try:
        call()
    except OSError as error:
        raise OSError(error.errno, f"{name}: {error.strerror}") from error
