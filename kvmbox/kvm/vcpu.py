"""A virtual CPU: KVM_RUN, its shared page, registers, and the kick out of KVM_RUN.

The kick
--------
Another thread wants a vCPU thread to leave KVM_RUN and look at something. A signal alone is lost when it
comes just before KVM_RUN; `kvm_run.immediate_exit` alone is not looked at by a guest that runs already.
`kick` therefore stores immediate_exit first and then signals the thread. Whichever the moment: before the
kernel looks at immediate_exit, KVM_RUN returns EINTR at once; after that, the signal is pending and ends it.

The other half of the protocol is the callers': the kicker makes its request visible *before* `kick`, and
the vCPU thread, after KVM_RUN returned -EINTR, calls `clear_kick` *before* it looks for requests. A signal
that arrives after clear_kick costs one more -EINTR, which must be harmless.

There are two ways to have the signal end KVM_RUN and nothing else:

- Without a handler, which would belong to the whole process. The signal is blocked in the vCPU's thread, and
  KVM_SET_SIGNAL_MASK lets it through for as long as KVM_RUN runs. KVM_RUN then ends with EINTR and the signal
  stays pending, until `clear_kick` takes it (Documentation/virt/kvm/api.rst, 4.24). This is the default.
- With a handler that does nothing (`install_kick_signal`), where the process belongs to kvmbox. KVM then need
  not change the mask twice at each exit: 60 ns, 0.6 % of an exit on a host where exits cost 9.5 µs, and more
  where they cost 1 µs.

Threads
-------
KVM serialises the ioctls of one vCPU: `get_regs` in another thread blocks for as long as the guest runs.
So all methods but `kick` are for the vCPU's thread, or for when none is in `run`.
"""

from __future__ import annotations

import builtins
import ctypes
import errno
import mmap
import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from ctypes import byref
from functools import partial
from types import FrameType, TracebackType
from typing import Any, Final, Self, TypeVar

from kvmbox.base.errors import KvmError
from kvmbox.base.light_typing import signal
from kvmbox.kvm import ioctl as io
from kvmbox.kvm import uapi

KICK_SIGNAL: Final = signal.SIGRTMIN + 1
"""A real-time signal, so that it collides with no one's habit; SIGRTMIN itself is left to the embedder."""

RESET_RIP: Final = 0xFFF0
RESET_CS_BASE: Final = 0xFFFF_0000
"""Where a processor begins after a reset (Intel SDM volume 3, table 10-1)."""

SIGSET_SIZE: Final = 8
_MOST_CPUID_ENTRIES: Final = 256  # KVM_MAX_CPUID_ENTRIES of arch/x86/include/asm/kvm_host.h
_MSRS_AT_ONCE: Final = 255  # MAX_IO_MSRS of arch/x86/kvm/x86.c is 256
_SYS_TGKILL: Final = 234  # x86-64; glibc has a wrapper from 2.30 only, musl has none
_syscall: Final = io.libc["syscall"]
# SAFETY: integers only, each widened to the register that the kernel reads it from.
_syscall.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_long, ctypes.c_long)
_syscall.restype = ctypes.c_long

_StructureT = TypeVar("_StructureT", bound=ctypes.Structure)


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """The handler of KICK_SIGNAL: that KVM_RUN was interrupted is all that was wanted."""


def install_kick_signal() -> None:
    """Give KICK_SIGNAL a handler that does nothing: in the main thread, before any vCPU runs.

    For a process that is kvmbox's own. With `signal.set_wakeup_fd`, each kick writes a byte.
    """
    signal.signal(KICK_SIGNAL, _ignore)


class Vcpu:
    """One virtual CPU and its shared page. A context manager; `Vm.close` closes it too."""

    bytes: memoryview
    """The mapping as unsigned bytes: kvm_run, then the PIO page, then the coalesced ring."""
    words32: memoryview
    """The mapping as unsigned 32-bit words: [2] is exit_reason, [9] the count of a PIO exit."""
    words64: memoryview
    """The mapping as unsigned 64-bit words: [4] packs direction, size, port and count of a PIO exit."""

    def __init__(self, descriptor: int, index: int, mmap_size: int) -> None:
        """Take over the vCPU `descriptor` that KVM_CREATE_VCPU gave; it is closed if mapping it fails."""
        self.index = index
        self._descriptor = descriptor
        self._kick_lock = threading.Lock()
        self._thread_id: int | None = None
        self._masks = False
        self.last_regs: uapi.kvm_regs | None = None
        """The general registers when they were last set or read, but for those of a reset."""
        self.last_sregs: uapi.kvm_sregs | None = None
        """The same of the special registers."""
        try:
            # SAFETY: the kernel's own pages, as long as the mapping lives; the views below are released
            # before it is closed, so no view ever points at unmapped memory.
            self._mapping = mmap.mmap(
                descriptor, mmap_size, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ | mmap.PROT_WRITE
            )
        except OSError as error:
            os.close(descriptor)
            raise KvmError(f"cannot map kvm_run of vCPU {index}: {error.strerror}") from error
        # The kernel writes these pages during the guest's life: no child of ours shall see them.
        self._mapping.madvise(mmap.MADV_DONTFORK)
        self.bytes = memoryview(self._mapping)
        self.words32 = self.bytes.cast("I")
        self.words64 = self.bytes.cast("Q")
        # Arguments are converted to C here, once: a call of `enter` allocates nothing.
        self._c_descriptor = ctypes.c_int(descriptor)
        self.enter = partial(
            io.raw_ioctl, self._c_descriptor, ctypes.c_ulong(io.KVM_RUN), ctypes.c_void_p(None)
        )
        """KVM_RUN with nothing around it, for the run loop: negative if it failed, see ctypes.get_errno."""

    # --- Running and kicking ---------------------------------------------------------------------------

    def run(self) -> int:
        """KVM_RUN: 0 if the guest exited (look at exit_reason), else the negative errno. Never raises.

        -EINTR: kicked, or any signal. -EAGAIN: an application processor got INIT or SIPI; run again.
        Others (-EFAULT: guest touched memory whose host page cannot be had) end the guest. Releases the GIL.
        """
        return 0 if self.enter() >= 0 else -ctypes.get_errno()

    def fileno(self) -> int:
        """The descriptor, for who runs the vCPU by other means than `run`; -1 once closed."""
        return self._descriptor

    @property
    def immediate_exit(self) -> bool:
        """While set, `run` completes a pending I/O or MMIO exit and returns -EINTR before any guest code."""
        return self.bytes[uapi.RUN_IMMEDIATE_EXIT] != 0

    @immediate_exit.setter
    def immediate_exit(self, value: bool) -> None:
        self.bytes[uapi.RUN_IMMEDIATE_EXIT] = 1 if value else 0

    def bind_thread(self) -> None:
        """Make the calling thread the one that `kick` signals; call it before the first `run`.

        Without `install_kick_signal`, KICK_SIGNAL stays blocked in the thread afterwards. KvmError if KVM
        refuses the mask.
        """
        self._masks = signal.getsignal(KICK_SIGNAL) is not _ignore
        if not self._masks:
            # A thread inherits its creator's mask, and a blocked signal would end no KVM_RUN.
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {KICK_SIGNAL})
        else:
            self._let_kicks_through()
        with self._kick_lock:
            self._thread_id = threading.get_native_id()

    def _let_kicks_through(self) -> None:
        # Blocked in this thread but for KVM_RUN: whenever a kick arrives, no default action ends the process.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {KICK_SIGNAL})
        blocked = sum(1 << number - 1 for number in before - {KICK_SIGNAL})
        mask = uapi.kvm_signal_mask(SIGSET_SIZE)(SIGSET_SIZE)
        mask.sigset[:] = blocked.to_bytes(SIGSET_SIZE, "little")
        self._set(io.KVM_SET_SIGNAL_MASK, mask)

    def unbind_thread(self) -> None:
        """No thread runs this vCPU any more; `kick` only sets immediate_exit."""
        with self._kick_lock:
            self._thread_id = None

    def kick(self) -> None:
        """Make the bound thread's `run`, now or the next one, return -EINTR. Any thread; see the module.

        Does nothing once the vCPU is closed.
        """
        with self._kick_lock:
            if self._descriptor < 0:
                return
            self.immediate_exit = True
            thread_id = self._thread_id
            if thread_id is None:
                return
            # tgkill, not pthread_kill: should the thread be gone without unbind_thread, the kernel says
            # ESRCH. It must not be gone: another thread of this process may have got its number.
            # EAGAIN: the user's queue of real-time signals is full (RLIMIT_SIGPENDING). A queue full of kicks
            # ends KVM_RUN anyway; for a queue full of others' signals, immediate_exit ends the next one.
            if _syscall(_SYS_TGKILL, os.getpid(), thread_id, KICK_SIGNAL) < 0:
                number = ctypes.get_errno()
                if number not in (errno.ESRCH, errno.EAGAIN):
                    raise OSError(number, os.strerror(number), "tgkill")

    def clear_kick(self) -> None:
        """Take a kick back. By the vCPU's thread, *before* it looks at what it was kicked for."""
        self.immediate_exit = False
        # A real-time signal is queued once for each kick. If one is left, KVM_RUN ends at once.
        while self._masks and signal.sigtimedwait({KICK_SIGNAL}, 0) is not None:
            pass

    def show_rip(self) -> None:
        """From now on each exit stores the general registers in kvm_run (needs KVM_CAP_SYNC_REGS)."""
        self.bytes[uapi.RUN_VALID_REGS] = uapi.KVM_SYNC_X86_REGS

    # --- State -------------------------------------------------------------------------------------------

    def _get(self, request: int, structure: type[_StructureT]) -> _StructureT:
        value = structure()
        io.kvm_call(self._doing("read", structure), self._descriptor, request, byref(value))
        return value

    def _set(self, request: int, value: ctypes.Structure) -> None:
        io.kvm_call(self._doing("set", type(value)), self._descriptor, request, byref(value))

    def _doing(self, verb: str, structure: type[ctypes.Structure]) -> str:
        return f"{verb} {structure.__name__} of vCPU {self.index}"

    def get_regs(self) -> uapi.kvm_regs:
        """The general registers, a copy."""
        regs = self._get(io.KVM_GET_REGS, uapi.kvm_regs)
        if regs.rip != RESET_RIP:
            self.last_regs = regs
        return regs

    def set_regs(self, regs: uapi.kvm_regs) -> None:
        """Set all general registers."""
        self._set(io.KVM_SET_REGS, regs)
        self.last_regs = regs

    def get_sregs(self) -> uapi.kvm_sregs:
        """The segment, table and control registers, a copy."""
        sregs = self._get(io.KVM_GET_SREGS, uapi.kvm_sregs)
        if sregs.cs.base != RESET_CS_BASE:
            self.last_sregs = sregs
        return sregs

    def set_sregs(self, sregs: uapi.kvm_sregs) -> None:
        """Set all of them; also injects the vector whose bit is set in `interrupt_bitmap`."""
        self._set(io.KVM_SET_SREGS, sregs)
        self.last_sregs = sregs

    def get_sregs2(self) -> uapi.kvm_sregs2:
        """The same with the PDPTEs of PAE paging (needs KVM_CAP_SREGS2)."""
        return self._get(io.KVM_GET_SREGS2, uapi.kvm_sregs2)

    def set_sregs2(self, sregs: uapi.kvm_sregs2) -> None:
        """Set them. Nothing is injected: see `set_vcpu_events`."""
        self._set(io.KVM_SET_SREGS2, sregs)

    def get_xsave(self, size: int) -> builtins.bytes:
        """All extended state, x87 and SSE included, as XSAVE stores it; `size` is `Vm.xsave_size`."""
        request = io.KVM_GET_XSAVE if size == ctypes.sizeof(uapi.kvm_xsave) else io.KVM_GET_XSAVE2
        return builtins.bytes(self._get(request, uapi.kvm_xsave_area(size)))

    def set_xsave(self, state: builtins.bytes) -> None:
        """Set what `get_xsave` gave. XCR0 and CPUID come first: they say what may be in it."""
        self._set(io.KVM_SET_XSAVE, uapi.kvm_xsave_area(len(state)).from_buffer_copy(state))

    def get_xcrs(self) -> uapi.kvm_xcrs:
        """The extended control registers."""
        return self._get(io.KVM_GET_XCRS, uapi.kvm_xcrs)

    def set_xcrs(self, xcrs: uapi.kvm_xcrs) -> None:
        """Set them."""
        self._set(io.KVM_SET_XCRS, xcrs)

    def get_fpu(self) -> uapi.kvm_fpu:
        """x87 and SSE registers."""
        return self._get(io.KVM_GET_FPU, uapi.kvm_fpu)

    def set_fpu(self, fpu: uapi.kvm_fpu) -> None:
        """Set x87 and SSE registers."""
        self._set(io.KVM_SET_FPU, fpu)

    def get_lapic(self) -> uapi.kvm_lapic_state:
        """The local APIC (needs `Vm.create_irqchip` before the vCPU was made)."""
        return self._get(io.KVM_GET_LAPIC, uapi.kvm_lapic_state)

    def set_lapic(self, lapic: uapi.kvm_lapic_state) -> None:
        """Set the local APIC."""
        self._set(io.KVM_SET_LAPIC, lapic)

    def get_debugregs(self) -> uapi.kvm_debugregs:
        """DR0-DR3, DR6, DR7."""
        return self._get(io.KVM_GET_DEBUGREGS, uapi.kvm_debugregs)

    def set_debugregs(self, debugregs: uapi.kvm_debugregs) -> None:
        """Set DR0-DR3, DR6, DR7."""
        self._set(io.KVM_SET_DEBUGREGS, debugregs)

    def get_vcpu_events(self) -> uapi.kvm_vcpu_events:
        """What is pending or being delivered: exception, interrupt, NMI, SMI."""
        return self._get(io.KVM_GET_VCPU_EVENTS, uapi.kvm_vcpu_events)

    def set_vcpu_events(self, events: uapi.kvm_vcpu_events) -> None:
        """Set them; `events.flags` says which of the optional members count."""
        self._set(io.KVM_SET_VCPU_EVENTS, events)

    def get_mp_state(self) -> int:
        """KVM_MP_STATE_RUNNABLE, _HALTED, …"""
        return int(self._get(io.KVM_GET_MP_STATE, uapi.kvm_mp_state).mp_state)

    def set_mp_state(self, state: int) -> None:
        """Set it, for example to KVM_MP_STATE_RUNNABLE on a reset."""
        self._set(io.KVM_SET_MP_STATE, uapi.kvm_mp_state(state))

    def set_cpuid(self, entries: Sequence[uapi.kvm_cpuid_entry2]) -> None:
        """What the guest's CPUID instruction answers; before the first `run`."""
        leaves = uapi.kvm_cpuid2(max(len(entries), uapi.USUAL_CPUID_ENTRIES))(len(entries))
        leaves.entries[: len(entries)] = list(entries)
        self._set(io.KVM_SET_CPUID2, leaves)

    def get_cpuid(self) -> list[uapi.kvm_cpuid_entry2]:
        """What CPUID answers since `set_cpuid`: KVM may have changed what it was given."""
        leaves = uapi.kvm_cpuid2(_MOST_CPUID_ENTRIES)()
        leaves.nent = _MOST_CPUID_ENTRIES
        doing = self._doing("read", type(leaves))
        io.kvm_call(doing, self._descriptor, io.KVM_GET_CPUID2, byref(leaves))
        return list(leaves.entries[: leaves.nent])

    def tsc_khz(self) -> int:
        """Rate of the guest's time-stamp counter in kHz. KvmError where KVM does not tell."""
        return io.kvm_call(f"read the TSC rate of vCPU {self.index}", self._descriptor, io.KVM_GET_TSC_KHZ)

    def get_msrs(self, indices: Iterable[int]) -> dict[int, int]:
        """Index → value of these model-specific registers, up to the first that KVM cannot read."""
        wanted = list(indices)
        msrs = self._msrs((index, 0) for index in wanted)
        count = io.kvm_call(f"read MSRs of vCPU {self.index}", self._descriptor, io.KVM_GET_MSRS, byref(msrs))
        return {int(entry.index): int(entry.data) for entry in msrs.entries[:count]}

    def get_readable_msrs(self, indices: Sequence[int]) -> dict[int, int]:
        """Index → value of those among `indices` that KVM can read."""
        found: dict[int, int] = {}
        start = 0
        while start < len(indices):
            read = self.get_msrs(indices[start : start + _MSRS_AT_ONCE])
            found |= read
            start += len(read)
            if len(read) < _MSRS_AT_ONCE:
                start += 1  # the one that stopped it, or the end
        return found

    def set_msrs(self, values: Mapping[int, int]) -> None:
        """Set model-specific registers; KvmError names the first that KVM refuses."""
        msrs = self._msrs(values.items())
        count = io.kvm_call(f"set MSRs of vCPU {self.index}", self._descriptor, io.KVM_SET_MSRS, byref(msrs))
        if count < len(values):
            refused = list(values)[count]
            raise KvmError(f"cannot set MSR {refused:#x} of vCPU {self.index}: KVM refuses it")

    @staticmethod
    def _msrs(pairs: Iterable[tuple[int, int]]) -> Any:
        entries = [uapi.kvm_msr_entry(index, 0, data) for index, data in pairs]
        msrs = uapi.kvm_msrs(len(entries))()
        msrs.nmsrs = len(entries)
        msrs.entries[:] = entries
        return msrs

    def translate(self, linear: int) -> int | None:
        """Guest-physical address of guest-linear `linear` (paging, not segmentation); None if unmapped."""
        translation = uapi.kvm_translation(linear)
        with suppress(OSError):
            io.ioctl(self._descriptor, io.KVM_TRANSLATE, byref(translation))
            if translation.valid:
                return int(translation.physical_address)
        return None

    # --- End ---------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Unmap and close. The thread must have left `run`. Harmless if repeated.

        BufferError if somebody still holds a slice of a view: the descriptor is closed all the same.
        """
        with self._kick_lock:
            if self._descriptor < 0:
                return
            descriptor, self._descriptor = self._descriptor, -1
            self._c_descriptor.value = -1
            self._thread_id = None
            os.close(descriptor)
            for view in (self.words64, self.words32, self.bytes):
                view.release()
            self._mapping.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
