"""Closes a descriptor so that the kernel, and not the caller, waits for the end of what is behind it.

KVM takes 13 to 15 ms to destroy a virtual machine. It computes little meanwhile: it waits until every CPU
has passed through the scheduler (RCU). Whoever closes the last descriptor of the machine waits with KVM, and
so does a process that exits. Nobody needs to wait: no vCPU thread runs any more, and the guest's memory is
unmapped apart.

So the last descriptor is put into a message that nobody can receive. The message lies in the queue of a
socket, and holds this socket as well. All other descriptors of the two are closed. The kernel looks for such
loops when a socket is closed (unix(7); net/unix/garbage.c). Since Linux 6.9 a kernel thread does that, and
destroys what it finds. Before, `close` did it, and took as long as it would have without the message.
"""

from __future__ import annotations

import _socket as socket  # the module of that name adds enumerations, and 1.5 ms to import them
import os
import struct
from typing import Final

_TWO_DESCRIPTORS: Final = struct.Struct("=2i")


def abandon(descriptor: int) -> None:
    """Close `descriptor`, the last one of its file, and do not wait for what the kernel does then.

    Where no such message can be sent, the descriptor is closed as usual.
    """
    try:
        queue, sender = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    except OSError:  # no descriptor is free
        os.close(descriptor)
        return
    rights = _TWO_DESCRIPTORS.pack(descriptor, queue.fileno())
    try:
        sender.sendmsg([b"-"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)], socket.MSG_DONTWAIT)
    except OSError:  # too many descriptors are under way in messages
        pass
    finally:
        # In this order: with `queue` open there is no loop, and the end of `sender` makes the kernel look.
        os.close(descriptor)
        queue.close()
        sender.close()
