"""A vCPU that the test plays: exits in, completions out."""

from __future__ import annotations

import ctypes
import errno
import struct
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Final

from kvmbox.base.errors import KvmError
from kvmbox.kvm import uapi

DATA: Final = 0x1000
"""Where the data of port exits lies: the page behind kvm_run."""

IN, OUT = uapi.KVM_EXIT_IO_IN, uapi.KVM_EXIT_IO_OUT
RFLAGS_IF: Final = 1 << 9


class FakeVcpu:
    """Plays a script: each step sets kvm_run up and gives what the kernel returns, an error as its negative.

    After the script it behaves as a halted guest does: `enter` sleeps until somebody kicks.
    """

    def __init__(self) -> None:
        self.index = 0
        self.page = bytearray(0x3000)
        self.bytes = memoryview(self.page)
        self.words32 = self.bytes.cast("I")
        self.words64 = self.bytes.cast("Q")
        self.script: list[Callable[[], int]] = []
        self.runs = 0
        self._kicked = threading.Event()
        self.mp_state = uapi.KVM_MP_STATE_RUNNABLE
        self.rflags = RFLAGS_IF
        self.nmi = SimpleNamespace(pending=0, injected=0, masked=0)
        self.smi = SimpleNamespace(pending=0)
        self.ioapic = uapi.kvm_ioapic_state()
        self.gone = False
        self.immediate_exit = False
        self.completed = 0
        """How often KVM_RUN has only completed the exit before."""

    def port_exit(self, direction: int, port: int, byte: int = 0xEE, count: int = 1) -> Callable[[], int]:
        """A step: `count` accesses of one byte to `port` exit. `byte` is where their data is."""

        def play() -> int:
            struct.pack_into("<I", self.page, uapi.RUN_EXIT_REASON, uapi.KVM_EXIT_IO)
            struct.pack_into("<BBHIQ", self.page, 32, direction, 1, port, count, DATA)
            self.page[DATA] = byte
            return 0

        return play

    def enter(self) -> int:
        self.runs += 1
        if self.immediate_exit:
            self.completed += 1
            status = -errno.EINTR
        elif self.script:
            status = self.script.pop(0)()
        else:
            assert self._kicked.wait(30), "nobody kicks, and the loop waits"
            status = -errno.EINTR
        if status < 0:
            ctypes.set_errno(-status)
            return -1
        return status

    def fileno(self) -> int:
        return -1

    @property
    def kicked(self) -> bool:
        return self._kicked.is_set()

    def kick(self) -> None:
        self._kicked.set()

    def clear_kick(self) -> None:
        self.immediate_exit = False
        self._kicked.clear()

    def get_mp_state(self) -> int:
        return self.mp_state

    def get_regs(self) -> uapi.kvm_regs:
        if self.gone:
            raise KvmError("cannot read kvm_regs of vCPU 0: ioctl KVM_GET_REGS: Input/output error")
        return uapi.kvm_regs(rip=0x7C00, rflags=self.rflags)

    def get_sregs(self) -> uapi.kvm_sregs:
        return uapi.kvm_sregs()

    def get_vcpu_events(self) -> SimpleNamespace:
        return SimpleNamespace(nmi=self.nmi, smi=self.smi)

    def get_lapic(self) -> uapi.kvm_lapic_state:
        return uapi.kvm_lapic_state()

    def translate(self, linear: int) -> int | None:
        return linear if linear < 0x7C08 else None
