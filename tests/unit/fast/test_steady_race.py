"""A steady value and the ring: another thread empties the ring while the compiled loop looks at both.

A page that is missing (userfaultfd(2)) holds the thread of the vCPU where it looks at the ring, as the
scheduler of the host may.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import select
import struct
import threading

import pytest

from kvmbox.contract.catalog import build_model
from kvmbox.wire import protocol
from tests.property import test_steady_reads as steady
from tests.support.halves import half_of
from tests.support.kernel_ring import RING, indices, kernel_writes
from tests.support.scripted_vcpu import DATA, IN, FakeVcpu

USERFAULTFD = 323  # <asm/unistd_64.h>
UFFDIO_API, UFFDIO_REGISTER, UFFDIO_COPY = 0xC018AA3F, 0xC020AA00, 0xC028AA03  # <linux/userfaultfd.h>
MISSING = 1
REGISTER_A, REGISTER_B = 0x0A, 0x0B
VALUE_OF_B = 0x02


class MappedVcpu(FakeVcpu):
    """Its page can be missing, as that of a bytearray cannot."""

    def __init__(self) -> None:
        super().__init__()
        self.page = mmap.mmap(-1, 0x3000, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # type: ignore[assignment]
        self.bytes = memoryview(self.page)
        self.words32, self.words64 = self.bytes.cast("I"), self.bytes.cast("Q")


def address_of(page: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(page))


class HeldPage:
    """The page of the ring, which is missing until somebody looks at it: then `meanwhile` is called."""

    def __init__(self, page: mmap.mmap) -> None:
        self._place = address_of(page) + RING
        self.content = mmap.mmap(-1, mmap.PAGESIZE)
        self.content[:] = page[RING : RING + mmap.PAGESIZE]
        self._libc = ctypes.CDLL(None, use_errno=True)
        # Of one whose `read` blocks, `select` says at once that it can be read.
        self._descriptor = self._libc.syscall(USERFAULTFD, os.O_CLOEXEC | os.O_NONBLOCK)
        if self._descriptor < 0:
            pytest.skip("the host has no userfaultfd for us")
        fcntl.ioctl(self._descriptor, UFFDIO_API, struct.pack("<QQQ", 0xAA, 0, 0))
        area = struct.pack("<QQQQ", self._place, mmap.PAGESIZE, MISSING, 0)
        fcntl.ioctl(self._descriptor, UFFDIO_REGISTER, area)
        page.madvise(mmap.MADV_DONTNEED, RING, mmap.PAGESIZE)

    def wait_for_look(self) -> None:
        assert select.select([self._descriptor], [], [], 30)[0], "nobody has looked at the ring"

    def let_look(self) -> None:
        copied = struct.pack("<QQQQq", self._place, address_of(self.content), mmap.PAGESIZE, 0, 0)
        fcntl.ioctl(self._descriptor, UFFDIO_COPY, copied)
        os.close(self._descriptor)


def test_index_that_is_delivered_meanwhile_selects_the_register(monkeypatch: pytest.MonkeyPatch) -> None:
    half = half_of("compiled")
    if half is None:
        pytest.skip("compiled: not built")
    monkeypatch.setattr(steady, "FakeVcpu", MappedVcpu)
    machine = steady.Machine(half, build_model)
    page, script = machine.vcpu.page, machine.vcpu.script
    threads, read = [], []

    def hold() -> int:
        """In KVM_RUN, and so the compiled loop is the next that looks at the ring, without the GIL."""
        kernel_writes(page, steady.RTC, bytes([REGISTER_B]))
        held = HeldPage(page)  # type: ignore[arg-type]

        def flush() -> None:
            """As `CoalescedRing.flush`: the device first, then the ring."""
            held.wait_for_look()
            machine.channels["rtc"].request(protocol.WRITE_RUN, payload=bytes([REGISTER_B]))
            held.content[:4] = held.content[4:8]
            held.let_look()

        threads.append(threading.Thread(target=flush))
        threads[0].start()
        return machine.vcpu.port_exit(IN, steady.RTC_DATA)()

    machine.let_pass(0)
    script.append(machine.between(lambda: kernel_writes(page, steady.RTC, bytes([REGISTER_A]))))
    for _ in range(10):
        script.append(machine.vcpu.port_exit(IN, steady.RTC_DATA))
    script.append(hold)
    script.append(machine.between(lambda: read.append(page[DATA])))
    script.append(machine.between(machine.control.leave))
    machine.loop.run()
    threads[0].join(30)

    assert indices(page)[0] == indices(page)[1]
    assert read == [VALUE_OF_B]
