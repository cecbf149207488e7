"""Namespaces of the spawner, which every device process inherits: nothing of the host is there to be named.

Theory of operation
-------------------
There are two ways in, and both end alike.

*With CAP_SYS_ADMIN* (root) the namespaces are made directly, so they belong to the host's user namespace and
nobody inside can ever have a right over them. The root directory is emptied, the user id changed, and last
of all a user namespace entered, which takes the host's capabilities out of reach for good.

*Without it* the user namespace comes first, since that gives the rights that the others need. Where the
host forbids user namespaces none of them can be had, and the report says so.

The user namespace maps no id at all. That is wanted: a process whose user id has no mapping may not make a
user namespace below it, so what a kernel offers to "root" in a nested namespace cannot be reached either.

A pid namespace is for children. So the process that asks for it clones the real spawner, its *sibling*, which
is PID 1 in there and a child of the VMM like the process that it replaces; that one says so and exits.

The root of the mount namespace is a tmpfs without room for a single file, read-only, not listable; the
host's mounts are detached from it. See docs/adr/0010 for what each step costs.
"""

from __future__ import annotations

import ctypes
import errno
import os

from kvmbox.sandbox import identity, layers, linux

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

# <linux/sched.h>
CLONE_NEWNS: Final = 0x0002_0000
CLONE_NEWCGROUP: Final = 0x0200_0000
CLONE_NEWUTS: Final = 0x0400_0000
CLONE_NEWIPC: Final = 0x0800_0000
CLONE_NEWUSER: Final = 0x1000_0000
CLONE_NEWPID: Final = 0x2000_0000
CLONE_NEWNET: Final = 0x4000_0000

# <linux/mount.h>, umount(2)
MS_RDONLY: Final = 1
MS_NOSUID: Final = 2
MS_NODEV: Final = 4
MS_NOEXEC: Final = 8
MS_REC: Final = 0x4000
MS_PRIVATE: Final = 1 << 18
MNT_DETACH: Final = 2

EMPTY: Final = b"size=4k,nr_inodes=1,mode=111"
"""The one inode is the root directory itself, which may be entered and not listed."""

MOUNT_POINT: Final = b"/dev"
"""Any directory that every host has; /dev/null has just been opened in this one."""

_FLAGS: Final = {
    layers.MOUNT_NS: CLONE_NEWNS,
    layers.NET_NS: CLONE_NEWNET,
    layers.IPC_NS: CLONE_NEWIPC,
    layers.UTS_NS: CLONE_NEWUTS,
    layers.CGROUP_NS: CLONE_NEWCGROUP,
    layers.PID_NS: CLONE_NEWPID,
}
"""Each namespace but the user namespace, whose turn depends on the way in."""

NO_WAY_IN: Final = "needs CAP_SYS_ADMIN or a user namespace"
NO_MORE: Final = "unshare: no more are allowed (sysctl user.max_*_namespaces)"
LEFT_OUT: Final = "left out on request"


class Isolation:
    """The layers that `isolate` has got so far, and why it has not got the others."""

    def __init__(self, without: int) -> None:
        self.applied = 0
        """A mask of `layers`."""
        self.reasons = {bit: LEFT_OUT for bit in layers.NAMES if without & bit}
        """By layer: why it is missing, in a few words."""

    def attempt(self, layer: int, step: Callable[..., None], *arguments: int) -> None:
        """Take one layer, unless it is to be left out."""
        if layer in self.reasons:
            return
        try:
            step(*arguments)
        except OSError as error:
            self.reasons[layer] = str(error.args[-1])
        else:
            self.applied |= layer


def isolate(vmm_pid: int, without: int, hand_over: Callable[[int], None]) -> Isolation:
    """Take every namespace, and the other user id, that this host grants; `without` is a mask of layers to
    leave out. The calling process must be the only thread, and a child of the VMM.

    Where there is a pid namespace this returns in a new process, PID 1 in it and a child of the VMM too; the
    calling one passes its pid, as the VMM sees it, to `hand_over`, and exits. Raises OSError only if that
    process cannot be made; a layer that cannot be had is in the result.
    """
    isolation = Isolation(without)
    direct = linux.has_capability(linux.CAP_SYS_ADMIN)
    if not direct:
        isolation.attempt(layers.OTHER_UID, identity.change, vmm_pid, without)
        isolation.attempt(layers.USER_NS, _unshare, CLONE_NEWUSER)
    if direct or isolation.applied & layers.USER_NS:
        _enter_others(isolation, hand_over)
    else:
        for layer in _FLAGS:
            isolation.reasons.setdefault(layer, NO_WAY_IN)
    if direct:
        isolation.attempt(layers.OTHER_UID, identity.change, vmm_pid, without)
        isolation.attempt(layers.USER_NS, _unshare, CLONE_NEWUSER)
    return isolation


def _enter_others(isolation: Isolation, hand_over: Callable[[int], None]) -> None:
    for layer, flag in _FLAGS.items():
        isolation.attempt(layer, _unshare, flag)
    if isolation.applied & layers.PID_NS:
        _become_first_process(hand_over)
    if isolation.applied & layers.MOUNT_NS:
        # The namespace alone hides nothing: the layer is there if its root is empty.
        isolation.applied &= ~layers.MOUNT_NS
        isolation.attempt(layers.MOUNT_NS, empty_root)


def _become_first_process(hand_over: Callable[[int], None]) -> None:
    pid = linux.clone_sibling()
    if pid:
        hand_over(pid)
        os._exit(0)
    os.setsid()  # the session so far was that of the process that exits


def _unshare(flag: int) -> None:
    try:
        linux.checked_syscall("unshare", linux.SYS_UNSHARE, flag)
    except OSError as error:
        if error.errno == errno.ENOSPC:  # which has nothing to do with space on a device
            raise OSError(error.errno, NO_MORE) from error
        raise


def empty_root() -> None:
    """Make the root directory of this mount namespace an empty one that stays so. Raises OSError."""
    _mount(None, b"/", None, MS_REC | MS_PRIVATE)  # or what follows would show outside
    _mount(b"none", MOUNT_POINT, b"tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, EMPTY)
    os.chdir(MOUNT_POINT)
    here = ctypes.create_string_buffer(b".")
    # SAFETY: the kernel copies the string before each call returns.
    address = ctypes.addressof(here)
    # New and old root on one directory: the old one ends on top, and is taken away there (pivot_root(2)).
    linux.checked_syscall("pivot_root", linux.SYS_PIVOT_ROOT, address, address)
    linux.checked_syscall("umount2", linux.SYS_UMOUNT2, address, MNT_DETACH)
    os.chdir("/")


def _mount(source: bytes | None, target: bytes, kind: bytes | None, flags: int, data: bytes = b"") -> None:
    buffers = [None if text is None else ctypes.create_string_buffer(text) for text in (source, target, kind)]
    options = ctypes.create_string_buffer(data)
    # SAFETY: the kernel copies every string before the call returns; 0 is no string.
    pointers = [0 if buffer is None else ctypes.addressof(buffer) for buffer in buffers]
    linux.checked_syscall("mount", linux.SYS_MOUNT, *pointers, flags, ctypes.addressof(options))
