"""A label of the host's mandatory access control for each process, where a profile for it is loaded.

`kvmbox policy --format apparmor` writes the profiles. A process takes its label itself, by
lsm_set_self_attr(2), which needs no /proc. The profile is *stacked*: what was in force stays so, and the
kernel allows what all of them allow. So a label never gives anything, and no_new_privs does not forbid it.

Once it is labelled, a process has what its profile lists. A device process is labelled late, when all that is
left to do is to enter its filter.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

from kvmbox.jail import linux

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

# <linux/lsm.h>
ATTRIBUTE_CURRENT: Final = 100
APPARMOR: Final = 104
CONTEXT: Final = struct.Struct("=4Q")  # struct lsm_ctx: id, flags, length of all, length of the text

PREFIX: Final = "kvmbox-"
ANY_DEVICE: Final = "device"
"""The profile of a device type that has none of its own: a model that a user wrote."""

_REASONS: Final = {
    errno.ENOSYS: "lsm_set_self_attr needs Linux 6.8",
    errno.EOPNOTSUPP: "AppArmor is not in force",
    errno.ENOENT: "no profile is loaded: see 'kvmbox policy --format apparmor'",
}


def take(*processes: str) -> None:
    """Stack the profile of the first of `processes` that one is loaded for upon the calling thread's label.

    Raises OSError, with the reason, where none can be had.
    """
    number = errno.ENOENT
    for process in processes:
        number = _stack(PREFIX + process)
        if number == 0:
            return
        if number != errno.ENOENT:
            break
    raise OSError(number, _REASONS.get(number, f"lsm_set_self_attr: {os.strerror(number)}"))


def _stack(profile: str) -> int:
    """0, or the number of the error."""
    text = f"stack {profile}\0".encode()
    size = (CONTEXT.size + len(text) + 7) & ~7
    context = ctypes.create_string_buffer(CONTEXT.pack(APPARMOR, 0, size, len(text)) + text, size)
    # SAFETY: the kernel copies `size` bytes from a buffer that outlives the call.
    done = linux.raw_syscall(
        linux.SYS_LSM_SET_SELF_ATTR, ATTRIBUTE_CURRENT, ctypes.addressof(context), size, 0
    )
    return ctypes.get_errno() if done < 0 else 0
