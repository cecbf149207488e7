"""The three ways to connect a VMM to a device process (`--ipc`), made and taken apart in one place.

    socketpair   one SOCK_SEQPACKET socket                 it keeps the boundaries of frames itself
    pipe         two pipes in packet mode (O_DIRECT)       the same, and the switch is cheaper than a socket's
    shm          a sealed memfd, mapped by both, and       no system call while both sides spin
                 two pipes that serve as doorbells

A pipe and not a socket is the doorbell of shared memory: it wakes in 5 µs instead of 8, and ends, as a
socket does and an eventfd does not, when the process at its other end dies.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Callable, Sequence

from kvmbox.channel.channel import Channel, Grants
from kvmbox.channel.shared import SharedChannel
from kvmbox.channel.spin import SpinGrants
from kvmbox.channel.stream import StreamChannel
from kvmbox.errors import SandboxError
from kvmbox.lean import Value
from kvmbox.sandbox import passing
from kvmbox.wire import page_layout as layout

SOCKETPAIR = "socketpair"
PIPE = "pipe"
SHM = "shm"
IPC_CHOICES = (SOCKETPAIR, PIPE, SHM)


class Link(Value):
    """Both ends of a connection, by descriptor.

    `vmm` is a socket, or the ends to write requests to and to read replies from. `device` is a socket, or
    the ends to read requests from and to write replies to, and with shared memory its descriptor.
    """

    vmm: tuple[int, ...]
    device: tuple[int, ...]
    page: mmap.mmap | None = None

    def close_vmm_end(self) -> None:
        """Close what a channel would have taken over."""
        if self.page is not None:
            self.page.close()
        for descriptor in self.vmm:
            os.close(descriptor)


def make_link(ipc: str) -> Link:
    """A new connection of a kind of `IPC_CHOICES`. Raises SandboxError."""
    made: list[int] = []  # to be closed again where a later one cannot be had
    try:
        if ipc == SOCKETPAIR:
            ours, theirs = passing.socket_pair()
            return Link((ours,), (theirs,))
        flags = os.O_CLOEXEC | (os.O_DIRECT if ipc == PIPE else 0)
        made += os.pipe2(flags)
        made += os.pipe2(flags)
        vmm, device = (made[1], made[2]), (made[0], made[3])
        if ipc == PIPE:
            return Link(vmm, device)
        memory = os.memfd_create("kvmbox-page", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        made.append(memory)
        os.ftruncate(memory, layout.SIZE)
        # Neither side can take the memory away under the other, which would be a SIGBUS.
        fcntl.fcntl(memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        # SAFETY: both sides may write to it at any time; see `shared` for what the VMM makes of that.
        return Link(vmm, (*device, memory), mmap.mmap(memory, layout.SIZE))
    except OSError as error:
        for descriptor in made:
            os.close(descriptor)
        raise SandboxError(f"cannot connect a device process by {ipc}: {error.strerror}") from error


def channel_on(
    link: Link,
    device_type: str,
    grants: Sequence[Grants],
    *,
    now: Callable[[], int],
    deadline_changed: Callable[[int, int], None] | None = None,
    spin: SpinGrants | None = None,
) -> Channel:
    """A channel that takes over the VMM's end of `link`."""
    if link.page is not None:
        requests, replies = link.vmm
        return SharedChannel(
            device_type,
            link.page,
            requests,
            replies,
            grants,
            now=now,
            deadline_changed=deadline_changed,
            spin=spin,
        )
    return StreamChannel(
        device_type,
        link.vmm[0],
        grants,
        now=now,
        deadline_changed=deadline_changed,
        reply_descriptor=link.vmm[1] if len(link.vmm) > 1 else None,
    )


def sever(channel: Channel) -> None:
    """Leave `channel` with nobody at its other end, for good. The caller holds its lock."""
    if isinstance(channel, SharedChannel):
        link = make_link(SHM)
    else:
        link = make_link(SOCKETPAIR if isinstance(channel, StreamChannel) and channel.is_socket else PIPE)
    for descriptor in link.device:
        os.close(descriptor)
    adopt(channel, link)


def adopt(channel: Channel, link: Link) -> None:
    """Put another process behind `channel`, of the same kind of link. The caller holds its lock."""
    if isinstance(channel, SharedChannel):
        assert link.page is not None
        channel.adopt(link.page, *link.vmm)
    elif isinstance(channel, StreamChannel):
        channel.adopt(*link.vmm)
    else:
        raise TypeError(f"nothing can be put behind a {type(channel).__name__}")
