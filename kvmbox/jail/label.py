"""A label of the host's mandatory access control for each process, where a policy for it is loaded.

`kvmbox policy --format apparmor` and `--format selinux` write the policies. A process takes its label
itself, by lsm_set_self_attr(2), which needs no /proc. Module `lsm` has how, and is loaded only where one of
the two is in force.

Once it is labelled, a process has what its policy lists. A device process is labelled late, when all that is
left to do is to enter its filter.
"""

from __future__ import annotations

import ctypes

from kvmbox.jail import linux

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

SYS_LSM_LIST_MODULES: Final = 461

MOST_MODULES: Final = 32

ANY_DEVICE: Final = "device"
"""The policy for a device type that has none of its own: a model that a user wrote."""


def in_force() -> int:
    """The module of the kernel that gives labels, or 0.

    What `take` needs is loaded, for who will have no files then.
    """
    modules, size = (ctypes.c_uint64 * MOST_MODULES)(), ctypes.c_uint32(8 * MOST_MODULES)
    # SAFETY: the kernel writes at most `size` bytes, which is the size of `modules`; both outlive the call.
    linux.raw_syscall(SYS_LSM_LIST_MODULES, ctypes.addressof(modules), ctypes.addressof(size), 0)
    found = next((module for module in modules if module in (linux.LSM_ID_SELINUX, linux.LSM_ID_APPARMOR)), 0)
    if found:
        from kvmbox.jail import lsm  # noqa: F401 - loaded for `take`
    return found


def take(*processes: str, machine: int | None = None) -> None:
    """Give the calling thread the label of the first of `processes` that the host has a policy for.

    `machine` is a number for the categories of SELinux, None to keep those that there are. Raises OSError,
    with the reason, where none can be had.
    """
    if not (module := in_force()):
        raise OSError("neither AppArmor nor SELinux is in force, or this is no Linux 6.8")
    from kvmbox.jail import lsm

    lsm.take(module, processes, machine)
