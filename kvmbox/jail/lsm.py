"""How a process takes its label, by the module of the kernel that is in force.

A profile of AppArmor is *stacked*: what was in force stays so, and the kernel allows what all of them allow.
So it never gives anything, and no_new_privs does not forbid it.

A type of SELinux *replaces* the former, where the policy has a transition between the two. User and role
stay, and each machine has a pair of categories, which no other machine may touch. Nobody may go back. So each
process tries that: a label that can be left, as where SELinux only reports (permissive), counts for none.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

from kvmbox.jail import linux

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final

SYS_LSM_GET_SELF_ATTR: Final = 459
SYS_LSM_SET_SELF_ATTR: Final = 460

# <linux/lsm.h>
ATTRIBUTE_CURRENT: Final = 100
ONE_MODULE: Final = 1  # LSM_FLAG_SINGLE
CONTEXT: Final = struct.Struct("=4Q")  # struct lsm_ctx: id, flags, length of all, length of the text
LONGEST: Final = 4096

PREFIX: Final = "kvmbox-"

_REASONS: Final = {
    errno.ENOENT: "no profile is loaded: see 'kvmbox policy --format apparmor'",
    errno.EINVAL: "no policy is loaded: see 'kvmbox policy --format selinux'",
    errno.EACCES: "the policy lets no process with the label of this one take it",
}


def take(module: int, processes: Sequence[str], machine: int | None) -> None:
    """See `label.take`; `module` is in force."""
    former = _context() if module == linux.LSM_ID_SELINUX else ""
    number = 0
    for process in processes:
        text = context_of(former, process, machine) if former else f"stack {PREFIX}{process}"
        number = set_label(module, text)
        if number not in (errno.ENOENT, errno.EINVAL):
            break
    if number:
        raise OSError(number, _REASONS.get(number, f"lsm_set_self_attr: {os.strerror(number)}"))
    if former and set_label(module, former) == 0:
        raise OSError(errno.EPERM, "SELinux does not enforce its policy")


def type_of(process: str) -> str:
    """The type of SELinux of a process."""
    return f"kvmbox_{process.replace('-', '_')}_t"


def context_of(former: str, process: str, machine: int | None) -> str:
    """The context of SELinux that `process` is to have, where it has `former` now."""
    user, role, _, *level = former.split(":", 3)
    if level and machine is not None:
        level = [_own_level(level[0], machine)]
    return ":".join((user, role, type_of(process), *level))


def _own_level(level: str, machine: int) -> str:
    """A level with two of the categories that a process of `level` may have, others for each `machine`."""
    sensitivity = level.partition("-")[0].partition(":")[0]
    highest = level.rpartition("-")[2].partition(":")[2]
    categories: list[int] = []
    for span in highest.split(",") if highest else ():
        first, _, last = span.partition(".")
        categories += range(int(first[1:]), int((last or first)[1:]) + 1)
    count = len(categories)
    if count < 2:
        return level
    smaller, larger = machine % (count * (count - 1) // 2), 1
    while smaller >= larger:
        smaller -= larger
        larger += 1
    return f"{sensitivity}:c{categories[smaller]},c{categories[larger]}"


def _context() -> str:
    """The context of SELinux of the calling thread."""
    buffer = ctypes.create_string_buffer(CONTEXT.pack(linux.LSM_ID_SELINUX, 0, 0, 0), LONGEST)
    size = ctypes.c_uint32(LONGEST)
    # SAFETY: the kernel writes at most `size` bytes to a buffer of that size; both outlive the call.
    addresses = ctypes.addressof(buffer), ctypes.addressof(size)
    linux.checked_syscall(
        "lsm_get_self_attr", SYS_LSM_GET_SELF_ATTR, ATTRIBUTE_CURRENT, *addresses, ONE_MODULE
    )
    return buffer.raw[CONTEXT.size :].partition(b"\0")[0].decode()


def set_label(module: int, label: str) -> int:
    """Ask `module` for a label of the calling thread; returns 0, or the number of the error."""
    text = f"{label}\0".encode()
    size = (CONTEXT.size + len(text) + 7) & ~7
    context = ctypes.create_string_buffer(CONTEXT.pack(module, 0, size, len(text)) + text, size)
    # SAFETY: the kernel copies `size` bytes from a buffer that outlives the call.
    done = linux.raw_syscall(SYS_LSM_SET_SELF_ATTR, ATTRIBUTE_CURRENT, ctypes.addressof(context), size, 0)
    return ctypes.get_errno() if done < 0 else 0
