"""Namespaces of the spawner, which every device process inherits: nothing of the host is there to be named.

Theory of operation
-------------------
There are two ways in.

*With CAP_SYS_ADMIN* (root) the namespaces are made directly, so they belong to the host's user namespace and
nobody inside can ever have a right over them. The root directory is emptied. Last of all comes a user
namespace, which takes the host's capabilities out of reach for good. It is made by root, and maps the few ids
that the sandbox is to have (see `identity`): so the spawner can give them out, and end whom it gave them to.
Each device process enters one more, of its own, in which nothing is mapped. And root, who is the owner of the
first, has every right over both without any capability: that is how the VMM ends its spawner.

*Without it* the user namespace comes first, since that gives the rights that the others need. Where the
host forbids user namespaces none of them can be had, and the report says so. The first maps the caller's
own id to 0, which the limits of System V objects ask for; a second one, below, maps nothing.

So device processes end where no id is mapped, on both ways. That is wanted: a process whose user id has no
mapping may not make a user namespace below it, so what a kernel offers to "root" in a nested namespace
cannot be reached either.

A pid namespace is for children, and a map of several ids is written from outside. So a process that its VMM
has started is a *stage*: it clones the real spawner, its sibling, which is PID 1 in there and a child of the
VMM, too. The stage writes the map, tells who the sibling is, and exits; the sibling goes on then. A spawner
that a template clones (`Cloned`) has no stage: the template writes the map.

The root of the mount namespace is a tmpfs without room for a single file, read-only, not listable; the
host's mounts are detached from it. In the ipc namespace the number of System V objects is limited to none:
their memory counts for no rlimit. See docs/adr/jail.md for what each step costs.
"""

from __future__ import annotations

import ctypes
import errno
import os

from kvmbox.jail import descriptor_passing, identity, layers, linux
from kvmbox.jail.fixed_descriptors import MAP_FD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

# <linux/sched.h>
CLONE_NEWNS: Final = 0x0002_0000
CLONE_NEWCGROUP: Final = 0x0200_0000
CLONE_NEWUTS: Final = 0x0400_0000
CLONE_NEWIPC: Final = 0x0800_0000
CLONE_NEWUSER: Final = linux.CLONE_NEWUSER
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

FLAGS: Final = {
    layers.MOUNT_NS: CLONE_NEWNS,
    layers.NET_NS: CLONE_NEWNET,
    layers.IPC_NS: CLONE_NEWIPC,
    layers.UTS_NS: CLONE_NEWUTS,
    layers.CGROUP_NS: CLONE_NEWCGROUP,
    layers.PID_NS: CLONE_NEWPID,
}
"""Each namespace but the user namespace, whose turn depends on the way in."""

IPC_SYSCTLS: Final = {"shmmni": b"0", "msgmni": b"0", "sem": b"0 0 0 0"}
"""How many segments, queues and sets of semaphores there may be (proc_sys_kernel(5)): those of the
namespace.
"""

NO_MAP: Final = "no map of user ids can be written"
NO_WAY_IN: Final = "needs CAP_SYS_ADMIN or a user namespace"
NO_MORE: Final = "unshare: no more are allowed (sysctl user.max_*_namespaces)"
NO_CLONE: Final = "no process can be cloned into it"
LEFT_OUT: Final = "left out on request"


class Isolation:
    """The layers that `isolate` has got so far, and why it has not got the others."""

    def __init__(self, without: int) -> None:
        self.applied = 0
        """A mask of `layers`."""
        self.reasons = {bit: LEFT_OUT for bit in layers.NAMES if without & bit}
        """By layer: why it is missing, in a few words."""
        self.owned = False
        """Whether the VMM's user owns the user namespace, and so has every right over who is in it."""
        self.first_id: int | None = None
        """The first of the ids that can be given out, if they can."""

    def attempt(self, layer: int, step: Callable[..., object], *arguments: int) -> bool:
        """Take one layer, unless it is to be left out; returns whether it is there."""
        if layer in self.reasons:
            return False
        try:
            step(*arguments)
        except OSError as error:
            self.reasons[layer] = str(error.args[-1])
            return False
        self.applied |= layer
        return True

    def lose(self, layer: int, reason: str) -> None:
        """A layer is not there after all."""
        self.applied &= ~layer
        self.reasons.setdefault(layer, reason)


class Way:
    """How a process comes into its namespaces. Made before it has any of them."""

    cloned_into = 0
    """Those that it has had from its first instruction on: flags of clone(2)."""
    is_introduced = False
    """Whether another process tells the VMM who the spawner is."""

    def __init__(self) -> None:
        self.is_admin = linux.has_capability(linux.CAP_SYS_ADMIN)
        self.ids = os.geteuid(), os.getegid()
        self.former_ipc = _ipc_namespace()

    def enter(self, flag: int) -> None:
        """Be in a new namespace of that kind. Raises OSError."""
        unshare(flag)

    def go_on(self, flags: int, proc: int) -> None:
        """Be PID 1 in the pid namespace, if there is one; with CLONE_NEWUSER, in a new user namespace as
        well, in which the VMM's ids are mapped. `proc` is a descriptor of /proc. Raises OSError.
        """
        raise NotImplementedError


class Stage(Way):
    """One that goes on as another process, a sibling."""

    def __init__(self, vmm_pid: int, hand_over: Callable[[int], None]) -> None:
        """`hand_over` gets the pid of the sibling, as the VMM sees it, before this process exits."""
        super().__init__()
        self._vmm_pid = vmm_pid
        self._hand_over = hand_over

    def go_on(self, flags: int, proc: int) -> None:
        """See Way."""
        mapped, done = os.pipe()  # closed with all others, if there is no sibling
        pid = _limited(linux.clone, flags | linux.CLONE_PARENT)
        if pid:
            if flags:
                identity.map_ids(proc, pid, self._vmm_pid)
            try:
                self._hand_over(pid)
                os.close(done)
            finally:  # even if the VMM is gone: then the other one goes, too
                os._exit(0)
        os.close(done)
        os.read(mapped, 1)  # until the other one has told who we are, and closed it, or died
        os.close(mapped)
        self.is_introduced = True
        os.setsid()  # the session so far was that of the process that exits


class Cloned(Way):
    """One that was cloned into all that this host allows; it is made before that, by the parent."""

    is_introduced = True

    def __init__(self) -> None:
        super().__init__()
        self._first = 0 if self.is_admin else CLONE_NEWUSER
        if self.is_admin or self.ids[0] != 0:  # else its id changes before it enters any
            self.cloned_into = self._first | sum(FLAGS.values())

    def leave_out(self) -> None:
        """Do without those that this host does not allow now. Raises OSError."""
        wanted, self.cloned_into = self.cloned_into, 0
        if wanted and can_clone(self._first):
            allowed = [flag for flag in FLAGS.values() if can_clone(self._first | flag)]
            self.cloned_into = self._first | sum(allowed)

    def enter(self, flag: int) -> None:
        """See Way."""
        if flag == CLONE_NEWPID and not self.cloned_into & flag:
            raise OSError(NO_CLONE)  # unshare(2) would make one for its children
        unshare(flag & ~self.cloned_into)

    def go_on(self, flags: int, proc: int) -> None:
        """See Way."""
        if flags:
            unshare(flags)  # last of all, or all others would belong to it
            descriptor_passing.send(MAP_FD, b"map")
            os.read(MAP_FD, 1)


def can_clone(flags: int) -> bool:
    """Whether a process can be cloned with `flags`. Raises OSError if none can."""
    try:
        pid = linux.clone(flags)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.ENOMEM):
            raise
        return False
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return True


def isolate(vmm_pid: int, without: int, way: Way) -> Isolation:
    """Take every namespace, and the other user id, that this host grants; `without` is a mask of layers to
    leave out. The calling process must be the only thread.

    It may return in another process: see `Stage`. Raises OSError only if that cannot be made; a layer that
    cannot be had is in the result.
    """
    isolation = Isolation(without)
    if way.is_admin:
        _as_root(isolation, vmm_pid, without, way)
    else:
        _as_user(isolation, vmm_pid, without, way)
    for layer, needed in layers.PARTS.items():
        if layer & layers.ISOLATION and not layer & isolation.applied:
            missing = needed & ~isolation.applied
            words = f"needs {' and '.join(layers.names(missing))}" if missing else identity.FEW_IDS
            isolation.reasons.setdefault(layer, words)
    return isolation


def _as_root(isolation: Isolation, vmm_pid: int, without: int, way: Way) -> None:
    for layer, flag in FLAGS.items():
        isolation.attempt(layer, way.enter, flag)
    if isolation.applied & layers.IPC_NS:
        isolation.attempt(layers.IPC_LIMITS, lambda: forbid_objects(way.former_ipc))
    wanted = not without & (layers.OTHER_UID | layers.USER_NS)
    proc = open_proc() if wanted else -1
    if isolation.applied & layers.MOUNT_NS:
        _empty_root(isolation)
    isolation.attempt(layers.OTHER_UID, identity.leave_groups)
    isolation.applied &= ~layers.OTHER_UID  # that was no more than the first step
    if proc >= 0:
        isolation.owned = isolation.attempt(layers.USER_NS, way.go_on, CLONE_NEWUSER, proc)
        os.close(proc)
    if not isolation.owned and isolation.applied & layers.PID_NS:
        way.go_on(0, proc)
    if isolation.attempt(layers.OTHER_UID, lambda: _change(isolation, vmm_pid, without)):
        isolation.attempt(layers.OWN_UID, lambda: _own_ids(isolation))
    if not isolation.owned:
        isolation.attempt(layers.USER_NS, unshare, CLONE_NEWUSER)


def _as_user(isolation: Isolation, vmm_pid: int, without: int, way: Way) -> None:
    was_root = way.ids[0] == 0
    if isolation.attempt(layers.OTHER_UID, identity.leave_groups):
        isolation.applied &= ~layers.OTHER_UID
        isolation.attempt(layers.OTHER_UID, lambda: _change(isolation, vmm_pid, without))
    uid, gid = way.ids if way.cloned_into else (os.geteuid(), os.getegid())
    isolation.attempt(layers.USER_NS, way.enter, CLONE_NEWUSER)
    if not isolation.applied & layers.USER_NS:
        for layer in FLAGS:
            isolation.reasons.setdefault(layer, NO_WAY_IN)
        return
    isolation.reasons.setdefault(layers.OWN_UID, NO_MAP if was_root else identity.NOT_ROOT)
    for layer, flag in FLAGS.items():
        isolation.attempt(layer, way.enter, flag)
    mapped = False
    if isolation.applied & layers.IPC_NS and layers.IPC_LIMITS not in isolation.reasons:
        try:
            identity.map_to_root(uid, gid)
            mapped = True
            forbid_objects(way.former_ipc)
            isolation.applied |= layers.IPC_LIMITS
        except OSError as error:
            isolation.reasons[layers.IPC_LIMITS] = str(error.args[-1])
    if isolation.applied & layers.PID_NS:
        way.go_on(0, -1)
    if isolation.applied & layers.MOUNT_NS:
        _empty_root(isolation)
    if mapped:
        try:
            unshare(CLONE_NEWUSER)
        except OSError as error:
            isolation.lose(layers.USER_NS, str(error.args[-1]))


def _change(isolation: Isolation, vmm_pid: int, without: int) -> None:
    number = identity.change(vmm_pid, without)
    if isolation.owned and number == identity.first_of(vmm_pid):
        isolation.first_id = number


def _own_ids(isolation: Isolation) -> None:
    if isolation.first_id is None:
        needed = layers.names(layers.USER_NS & ~isolation.applied)
        raise OSError(f"needs {needed[0]}" if needed else identity.FEW_IDS if isolation.owned else NO_MAP)


def _empty_root(isolation: Isolation) -> None:
    # The namespace alone hides nothing: the layer is there if its root is empty.
    isolation.applied &= ~layers.MOUNT_NS
    isolation.attempt(layers.MOUNT_NS, empty_root)


def open_proc() -> int:
    """A descriptor of /proc, or -1 where there is none."""
    try:
        return os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return -1


def _ipc_namespace() -> str:
    """The ipc namespace of the calling process, by name; empty where that cannot be told."""
    try:
        return os.readlink("/proc/self/ns/ipc")
    except OSError:
        return ""


def forbid_objects(former: str) -> None:
    """No System V object may be made in this ipc namespace from now on. The caller must own it, and it must
    not be the `former` one, which belongs to others. Raises OSError.
    """
    if _ipc_namespace() in ("", former) or not former:
        # Whoever says that there is a new one had better be right: these limits would be the host's.
        raise OSError("the ipc namespace is not a new one")
    for name, value in IPC_SYSCTLS.items():
        try:
            descriptor = os.open(f"/proc/sys/kernel/{name}", os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(descriptor, value)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise OSError(error.errno, f"sysctl kernel.{name}: {error.strerror}") from error


def unshare(flag: int) -> None:
    """Be in a new namespace. Raises OSError."""
    _limited(lambda: linux.checked_syscall("unshare", linux.SYS_UNSHARE, flag))


def _limited(call: Callable[..., int], *arguments: int) -> int:
    try:
        return call(*arguments)
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
