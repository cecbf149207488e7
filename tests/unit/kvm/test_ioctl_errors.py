"""The ioctl wrapper: results, errors by name, and their translation."""

from __future__ import annotations

import ctypes
import errno
import os
import socket

import pytest

from kvmbox.base.errors import KvmError
from kvmbox.kvm import ioctl as io

_FIONREAD = 0x541B  # <asm-generic/ioctls.h>: bytes that can be read, works on any socket


def test_ioctl_success_returns_result_and_fills_argument() -> None:
    left, right = socket.socketpair()
    with left, right:
        left.send(b"12345")
        count = ctypes.c_int()

        assert io.ioctl(right.fileno(), _FIONREAD, ctypes.byref(count)) == 0
        assert count.value == 5


def test_ioctl_refused_raises_oserror_naming_request() -> None:
    descriptor = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        with pytest.raises(OSError) as caught:
            io.ioctl(descriptor, io.KVM_CREATE_VM, 0)
    finally:
        os.close(descriptor)

    assert caught.value.errno == errno.ENOTTY
    assert caught.value.filename == "ioctl KVM_CREATE_VM"
    assert caught.value.strerror == os.strerror(errno.ENOTTY)


def test_kvm_call_refused_raises_kvmerror_saying_what_failed_with_hint_and_cause() -> None:
    with pytest.raises(KvmError) as caught:
        io.kvm_call("do a thing", -1, io.KVM_CREATE_IRQCHIP, hint="do another")

    assert str(caught.value) == "cannot do a thing: ioctl KVM_CREATE_IRQCHIP: Bad file descriptor"
    assert caught.value.hint == "do another"
    assert isinstance(caught.value.__cause__, OSError)


def test_binding_is_not_shared_with_other_users_of_libc() -> None:
    assert ctypes.CDLL(None).ioctl is not io.raw_ioctl
    assert io.libc["ioctl"] is not io.raw_ioctl
