"""The table of transports (`--ipc`): another one is a module and a line here. And which one `auto` means.

socketpair   one SOCK_SEQPACKET socket                 it keeps the boundaries of frames itself
pipe         two pipes in packet mode (O_DIRECT)       the same, and the switch is cheaper than a socket's
shm          a sealed memfd, mapped by both, and       no system call while both sides spin
             two pipes that serve as doorbells
"""

from __future__ import annotations

import os
import resource
from typing import Final

from kvmbox.base.errors import SandboxError
from kvmbox.remote.channel.implementations import chosen
from kvmbox.remote.process.spin_permits import SpinPermits
from kvmbox.remote.transport.interface import Link, LinkedTransport
from kvmbox.remote.transport.shared_page import PageTransport
from kvmbox.remote.transport.stream import PipeTransport, SocketTransport
from kvmbox.wire import page_layout

TRANSPORTS: Final[dict[str, type[LinkedTransport]]] = {
    "socketpair": SocketTransport,
    "pipe": PipeTransport,
    "shm": PageTransport,
}

IPC_CHOICES: Final = tuple(TRANSPORTS)

AUTO: Final = "auto"
"""Instead of one of them: the one that is the fastest on this host."""

IPC_OPTIONS: Final = (AUTO, *IPC_CHOICES)
DEFAULT_IPC: Final = AUTO


def ipc_of(option: str, *, can_spin: bool) -> str:
    """The transport that one of `IPC_OPTIONS` means where processes can spin, or cannot."""
    if option != AUTO:
        return option
    return "shm" if can_spin and _page_is_allowed() else "pipe"


def _page_is_allowed() -> bool:
    """Whether the limit of file sizes, which counts for shared memory too, has room for a page."""
    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    return limit == resource.RLIM_INFINITY or limit >= page_layout.SIZE


def make_link(ipc: str, spin: SpinPermits | None = None) -> Link:
    """A new connection of a kind of `IPC_CHOICES`. `spin` grants the right to spin. Raises
    SandboxError.
    """
    made: list[int] = []
    try:
        return chosen(TRANSPORTS[ipc]).connect(made, spin)
    except OSError as error:
        for descriptor in made:
            os.close(descriptor)
        raise SandboxError(f"cannot connect a device process by {ipc}: {error.strerror}") from error
