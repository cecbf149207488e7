"""Messages that carry descriptors, over SOCK_SEQPACKET sockets given by number.

Numbers, not socket objects: an object closes its descriptor when it is collected, and in a jailed process
close is a forbidden call. For each call there is a short-lived object that closes nothing (`_Borrowed`): an
exception may come at any time from a signal handler, and must not end the channel. `_socket` is what the
socket module is made of; the module itself would bring selectors and enum into the spawner.
"""

from __future__ import annotations

import _socket
import os
import select
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Final

MAXIMUM_MESSAGE: Final = 64 * 1024
MAXIMUM_DESCRIPTORS: Final = 3

_INT: Final = struct.Struct("=i")


class CutShortError(OSError):
    """A message, or its descriptors, did not fit."""


class _Borrowed(_socket.socket):
    """A socket object for a descriptor of somebody else: it lets go of the number when it is collected."""

    __slots__ = ()

    # In C, so that no signal handler can run between its call and its effect.
    __del__ = _socket.socket.detach


def send(descriptor: int, message: bytes, descriptors: Sequence[int] = (), *, wait: bool = True) -> None:
    """Send one message, with descriptors, on a SEQPACKET socket given by number. Raises OSError; with `wait`
    false BlockingIOError tells that the peer has left too much unread.
    """
    prepared(descriptor, message, descriptors, wait=wait)()


def prepared(
    descriptor: int, message: bytes, descriptors: Sequence[int] = (), *, wait: bool = True
) -> Callable[[], object]:
    """`send` for later: what this returns makes one system call, sendmsg."""
    ancillary = []
    if descriptors:
        numbers = b"".join(_INT.pack(number) for number in descriptors)
        ancillary.append((_socket.SOL_SOCKET, _socket.SCM_RIGHTS, numbers))
    flags = _socket.MSG_NOSIGNAL | (0 if wait else _socket.MSG_DONTWAIT)
    socket = _borrow(descriptor)
    return lambda: socket.sendmsg([message], ancillary, flags)


def receive(descriptor: int, *, wait: bool = True) -> tuple[bytes, list[int]] | None:
    """One message with its descriptors; None at the end of file. With `wait` false BlockingIOError tells
    that there is none yet. Raises OSError; CutShortError
    for a message that did not fit, every descriptor that came with it is then closed.
    """
    socket = _borrow(descriptor)
    flags = _socket.MSG_CMSG_CLOEXEC | (0 if wait else _socket.MSG_DONTWAIT)
    space = _socket.CMSG_SPACE(MAXIMUM_DESCRIPTORS * _INT.size)
    try:
        message, ancillary, result_flags, _ = socket.recvmsg(MAXIMUM_MESSAGE, space, flags)
    except ConnectionResetError:
        # The peer went with something of ours unread, which SEQPACKET tells once, *before* the peer's
        # last words (net/core/datagram.c). They, or the end of file, come now.
        message, ancillary, result_flags, _ = socket.recvmsg(MAXIMUM_MESSAGE, space, flags)
    received = [
        number
        for level, kind, numbers in ancillary
        if (level, kind) == (_socket.SOL_SOCKET, _socket.SCM_RIGHTS)
        for (number,) in _INT.iter_unpack(numbers)
    ]
    if result_flags & (_socket.MSG_TRUNC | _socket.MSG_CTRUNC):
        for number in received:
            os.close(number)
        raise CutShortError("a message was cut short")
    return (message, received) if message else None


def hung_up(descriptor: int) -> bool:
    """Whether the peer of a socket, given by number, has closed its end, or the half of it that writes."""
    poller = select.poll()
    poller.register(descriptor, select.POLLRDHUP)
    return bool(poller.poll(0))


def socket_pair() -> tuple[int, int]:
    """Two connected SEQPACKET sockets, by number, closed on exec. Raises OSError."""
    one, other = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    return one.detach(), other.detach()


def _borrow(descriptor: int) -> _Borrowed:
    # All three given, or the constructor would ask the kernel for them.
    return _Borrowed(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, descriptor)
