"""From a fresh fork of the spawner to a jailed device process, step by step.

Theory of operation
-------------------
The order matters: what needs a privilege comes before the privilege goes, the death signal after all that
would clear it, the filter last. Every step raises OSError or JailError where it fails; the caller reports
that and exits, so a device process that serves has every required layer.

The last step has a difficulty. The filter's listener is a descriptor in the process that installs it, and
the VMM must get it. So for a while the filter allows a few calls more (`setup_calls`):

    device process                              spawner
      installs the filter, listener = fd 0
      sends READY and the listener          ──▶   watches the listener
      closes the listener, may open none
      closes the report socket              ──▶   sees its end: the table is bare
      installs the seal
      calls getpid, which is forbidden      ──▶   receives that call: the filter is in force
      (held by the kernel)                        answers the call with PROOF
      sees PROOF, not its pid. Serves.      ◀──   sends READY and the listener to the VMM

So each start proves that a forbidden call is caught, and the process never serves otherwise.
See docs/adr/jail.md for the alternatives.

Strict mode has no listener: the process says READY, closes the report socket,
provides the heap that it may never enlarge, and enters the mode, whose own return is the proof. Without
seccomp (which takes an explicit flag) it does the same, and stops short of the last step.
"""

from __future__ import annotations

import fcntl
import os
import resource

from kvmbox.jail import descriptor_passing, identity, label, landlock, layers, linux, notify, setup_calls
from kvmbox.jail.fixed_descriptors import CHANNEL_FD, FIRST_UNUSED_FD, LISTENER_FD, REPLY_FD, REPORT_FD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Final, NamedTuple
else:
    from kvmbox.base.value_classes import NamedTuple

# What the held getpid returns: no pid is that large (the kernel's limit is 2**22).
PROOF: Final = 0x4B56_4D42

ADDRESS_SPACE: Final = 512 << 20

# What a process in strict mode has instead of growth: blocks of any size from the first, the rest on top.
STRICT_HEAP: Final = 32 << 20
STRICT_HEAP_TOP: Final = 64 << 20

LIMITS: Final = (
    # Not one more, whatever makes them: some that no other layer knows (vsock) end here.
    (resource.RLIMIT_NOFILE, 0),
    (resource.RLIMIT_NPROC, 0),
    (resource.RLIMIT_FSIZE, 0),
    (resource.RLIMIT_CORE, 0),
    (resource.RLIMIT_AS, ADDRESS_SPACE),
    (resource.RLIMIT_MEMLOCK, 0),
    (resource.RLIMIT_MSGQUEUE, 0),
    (resource.RLIMIT_NICE, 0),
    (resource.RLIMIT_RTPRIO, 0),
)


class JailError(Exception):
    """A layer that is required cannot be had, or does not hold."""


def confine(parent_pid: int, landlock_limit: int, without: int = 0, kept: int = 0) -> int:
    """The layers that the spawner and each device process take alike; returns them as a mask.

    `parent_pid` is the process whose death must be ours, 0 if it is outside of our pid namespace: then the
    caller has to make sure by other means that it still lives. At most Landlock ABI `landlock_limit` is used.
    `without` is a mask of layers to leave out, `kept` one of capabilities to keep. Raises OSError.
    """
    applied = 0
    steps: tuple[tuple[int, Callable[[], None]], ...] = (
        (layers.CAPABILITIES, lambda: linux.drop_capabilities(kept)),
        (layers.NO_NEW_PRIVS, linux.forbid_new_privileges),
        (layers.NOT_DUMPABLE, linux.forbid_dump_and_trace),
    )
    for layer, apply in steps:
        if not without & layer:
            apply()
            applied |= layer
    linux.die_with_parent(parent_pid)  # also where it is to be left out: nobody wants stray processes
    applied |= layers.DEATH_SIGNAL
    version = 0 if without & layers.LANDLOCK else min(landlock.abi(), landlock_limit)
    if version:
        landlock.deny_everything(version)
    return applied | landlock.layers_of(version)


class Order(NamedTuple):
    """What a device process is to become.

    `required`, `inherited` and `without` are masks of layers: those that must be there in the end, those that
    are there from the start, and those to leave out; `reasons` says why a layer is not there. `user` is the
    id that it is to have, None to keep that of the spawner. `seccomp` is one of the linux.SECCOMP_MODE_*.
    `ready` makes, from the mask of layers in force, the message that takes the listener to the spawner.
    """

    device_type: str
    parent_pid: int
    bpf: bytes
    cpu: int | None
    required: int
    inherited: int
    user: int | None
    landlock_limit: int
    seccomp: int
    without: int
    reasons: Mapping[int, str]
    ready: Callable[[int], bytes]

    @property
    def listens(self) -> bool:
        """Whether there will be a listener."""
        return self.seccomp == linux.SECCOMP_MODE_FILTER


def lock_up(order: Order) -> None:
    """Jail the calling process, a fork of the spawner; on return it holds its channel and nothing else.

    `arrange_descriptors` comes first. Raises OSError or JailError, with a message for the user; the
    process must then exit.
    """
    applied = order.inherited
    if order.user is not None:
        applied = _take_id(order.user, applied)
    applied |= confine(order.parent_pid, order.landlock_limit, order.without)
    reasons = dict(order.reasons)
    if not order.without & layers.LABEL:
        applied |= take_label(reasons, order.device_type, label.ANY_DEVICE)
    will_have = applied | layers.CLOSED_DESCRIPTORS
    if not order.without & layers.RLIMITS:
        will_have |= layers.RLIMITS
    if order.seccomp != linux.SECCOMP_MODE_DISABLED:
        will_have |= layers.SECCOMP
    if missing := (layers.REQUIRED & ~order.without | order.required) & ~will_have:
        raise JailError(f"sandbox layer missing: {', '.join(_explain(missing, reasons))}")
    if order.seccomp == linux.SECCOMP_MODE_STRICT and linux.seccomp_mode() != linux.SECCOMP_MODE_DISABLED:
        raise JailError("strict mode is refused by the kernel: a seccomp filter is in force already")
    linux.keep_large_blocks_on_the_heap()
    if will_have & layers.RLIMITS:
        set_limits(listens=order.listens)
    if order.cpu is not None:  # as late as that, so that the jailing itself runs wherever there is room
        os.sched_setaffinity(0, {order.cpu})
    if order.listens:
        _enter_filter(order.bpf, order.ready(will_have), limits=bool(will_have & layers.RLIMITS))
        return
    if order.seccomp == linux.SECCOMP_MODE_STRICT:
        linux.provide_heap(STRICT_HEAP, STRICT_HEAP_TOP)
    descriptor_passing.send(REPORT_FD, order.ready(will_have))
    os.close(REPORT_FD)
    if order.seccomp == linux.SECCOMP_MODE_STRICT:
        linux.enter_strict_mode()


def _take_id(user: int, applied: int) -> int:
    """Become `user`, in a user namespace in which nobody has a name; returns what is left of the layers."""
    identity.become(user)
    try:
        linux.checked_syscall("unshare", linux.SYS_UNSHARE, linux.CLONE_NEWUSER)
    except OSError:
        return applied & ~layers.USER_NS  # the id has a name here, so another namespace could be made below
    return applied


def take_label(reasons: dict[int, str], *processes: str, machine: int | None = None) -> int:
    """The layer, if a policy is loaded for one of `processes`, else 0, and a reason. See `label.take`."""
    try:
        label.take(*processes, machine=machine)
    except OSError as error:
        reasons[layers.LABEL] = str(error.args[-1])
        return 0
    return layers.LABEL


def _explain(missing: int, reasons: Mapping[int, str]) -> list[str]:
    return [
        f"{name} ({reasons[bit]})" if bit in reasons else name
        for bit, name in layers.NAMES.items()
        if missing & bit
    ]


def _enter_filter(bpf: bytes, ready: bytes, *, limits: bool) -> None:
    send = descriptor_passing.prepared(REPORT_FD, ready, [LISTENER_FD])
    listener = notify.install_filter(setup_calls.PROLOGUE + bpf)
    # From here on, every call but those of the policy and of `setup_calls` is held for good.
    if listener != LISTENER_FD:
        raise JailError("the seccomp listener has an unexpected number")
    try:
        send()
    finally:
        os.close(LISTENER_FD)  # or a forbidden call would be held here, and nobody would know
    if limits:
        linux.allow_no_more_descriptors()
    os.close(REPORT_FD)
    notify.install_plain_filter(setup_calls.SEAL, every_thread=False)
    if linux.raw_syscall(linux.SYS_GETPID) != PROOF:
        raise JailError("the seccomp filter let a forbidden call through")


def arrange_descriptors(channel: Sequence[int], report: int) -> None:
    """Move what the jailing needs to its fixed numbers, and close everything else. Raises OSError.

    `channel` is one socket, or the two pipe ends for requests and for replies.
    """
    wanted = dict(zip((CHANNEL_FD, REPLY_FD), channel, strict=False))
    wanted[REPORT_FD] = report
    # Up and out of the way first: one's source may be another's target.
    parked = {
        target: fcntl.fcntl(source, fcntl.F_DUPFD_CLOEXEC, FIRST_UNUSED_FD)
        for target, source in wanted.items()
    }
    linux.close_range(0, FIRST_UNUSED_FD - 1)
    for target, source in parked.items():
        os.dup2(source, target, inheritable=False)
    linux.close_range(FIRST_UNUSED_FD)


def set_limits(*, listens: bool) -> None:
    """The resource limits of a device process, soft and hard; that of descriptors comes later for one that
    `listens`: who has few may have none on the way to somebody else (unix(7), ETOOMANYREFS). Raises OSError.
    """
    for limit, value in LIMITS:
        if limit == resource.RLIMIT_NOFILE and listens:
            continue
        _, hard = resource.getrlimit(limit)
        bounded = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (bounded, bounded))
