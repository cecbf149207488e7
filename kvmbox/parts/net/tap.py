"""A tap: a network interface of the host whose other end is a descriptor (<linux/if_tun.h>)."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from struct import Struct
from typing import Final

from kvmbox.base.errors import StartError

DEVICE: Final = "/dev/net/tun"
TUNSETIFF: Final = 0x4004_54CA
IFF_TAP: Final = 0x0002
TUNGETIFF: Final = 0x8004_54D2
IFF_NO_PI: Final = 0x1000
IFF_VNET_HDR: Final = 0x4000

_REQUEST: Final = Struct("16sH22x")  # struct ifreq: name, flags


def open_tap(name: str) -> int:
    """The descriptor of tap `name`, which does not block. Raises StartError."""
    try:
        socket.if_nametoindex(name)
    except OSError as error:  # TUNSETIFF would make one, for a user who may
        hint = _hint(name, errno.ENODEV)
        raise StartError(f"--net tap:{name}: there is no such interface", hint=hint) from error
    try:
        descriptor = os.open(DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            fcntl.ioctl(descriptor, TUNSETIFF, _REQUEST.pack(os.fsencode(name), IFF_TAP | IFF_NO_PI))
        except BaseException:
            os.close(descriptor)
            raise
    except OSError as error:
        raise StartError(f"--net tap:{name}: {error.strerror}", hint=_hint(name, error.errno)) from error
    return descriptor


def is_tap(descriptor: int) -> bool:
    """Whether it is a tap whose packets are frames, and nothing before them."""
    try:
        found = fcntl.ioctl(descriptor, TUNGETIFF, bytes(_REQUEST.size))
    except OSError:
        return False
    _, flags = _REQUEST.unpack(found)
    return bool(flags & (IFF_TAP | IFF_NO_PI | IFF_VNET_HDR) == IFF_TAP | IFF_NO_PI)


def _hint(name: str, number: int | None) -> str:
    if number in (errno.EPERM, errno.EACCES, errno.ENODEV):
        return f"as root: ip tuntap add dev {name} mode tap user $USER; without root there is --net user"
    if number == errno.EBUSY:
        return "another program has it"
    if number == errno.EINVAL:
        return "it is an interface of another kind"
    return "the kernel module tun is needed"
