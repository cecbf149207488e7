"""The run loop of a vCPU: KVM_RUN, read kvm_run, route, ask the device, complete, and again.

The cost. With hardware virtualization the exit itself takes about 1 µs, and the request to the device process
is most of the rest. So the loop reads kvm_run through memoryviews that were cast once. One dictionary, whose
key is the packed (direction, size, port, count) word of the exit, leads directly to the channel's `access`
and its arguments (`exit_routes`). Between two KVM_RUNs of a byte-wide port exit there are four reads of
kvm_run, one dictionary lookup, one list unpacked, the count, and the call. This takes some 0.3 µs, besides
`access` and the foreign function call of KVM_RUN itself (0.5 µs). Memory-mapped accesses have another
dictionary.

If KVM's ring holds earlier writes, deliver them first (`coalesced_ring`).

After a pause, the loop announces its next exit to the main thread before it handles the exit
(`announces_exit`). This allows the main thread to sleep longer. It costs other exits nothing, because the
loop enters the guest through another function meanwhile.

The loop ends when the outcome is decided, when the guest asked for a reset, or when KVM or a device process
failed. `attention` is all that the loop checks between exits: `run_state` does what it asks for.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Callable
from ctypes import get_errno
from functools import partial
from typing import TYPE_CHECKING, Final

from kvmbox.base.errors import UnknownExitError
from kvmbox.base.light_typing import Enum
from kvmbox.base.outcome import Outcome
from kvmbox.kvm import uapi
from kvmbox.kvm.vcpu import Vcpu
from kvmbox.remote.bus.routing import Bus
from kvmbox.run.vcpu.coalesced_ring import RING_WORD, CoalescedRing
from kvmbox.run.vcpu.exit_routes import (
    MMIO_KIND_BITS,
    MMIO_KIND_MASK,
    Routes,
    known_value,
    memory_access,
    port_access,
)
from kvmbox.run.vcpu.run_state import OBSERVE, Access, Attention, VcpuControl

if TYPE_CHECKING:
    from kvmbox.kvm import exits
    from kvmbox.run.vcpu.stop_report import ReadMemory, Reporter

_EXIT_REASON: Final = 2  # index into 32-bit words of kvm_run
_IO_WORD: Final = 4  # index into 64-bit words: direction, size, port and count of a port exit
_IO_DATA_OFFSET: Final = 5
_MMIO_ADDRESS: Final = 4  # the same words of a memory-mapped exit; between them lie the eight bytes of data
_MMIO_KIND: Final = 6
_MMIO_DATA: Final = uapi.RUN_MMIO_DATA
_KVM_EXIT_IO: Final = uapi.KVM_EXIT_IO
_KVM_EXIT_MMIO: Final = uapi.KVM_EXIT_MMIO
_VALID_REGS: Final = uapi.RUN_VALID_REGS
_SYNC_RIP: Final = uapi.RUN_SYNC_RIP // 8
_SAME_HALVES: Final = 0x1_0000_0001
"""What divides a 64-bit word if its halves are equal: first and last of an empty ring."""

MOST_RECENT: Final = 32
"""How many accesses the loop remembers, for the report of a crash."""

Made = tuple[Access, int | None]
"""An access that was made, and the value that was read or written: None for a string instruction."""


class ExitAction(Enum):
    """What an exit filter answers."""

    HANDLE = "the loop handles the exit"
    IGNORE = "the guest goes on, as if there had been no exit"
    STOP = "the vCPU stops, and then the guest goes on"
    CRASH = "the vCPU stops, and then the loop handles the exit"


ExitFilter = Callable[[int, "exits.Exit"], ExitAction]
"""Is asked, on the thread of a vCPU, about a rare exit of the CPU of a number."""


def _new_reporter(vcpu: Vcpu, read_memory: ReadMemory, is_pvm: bool, name: str | None) -> Reporter:
    # Not loaded where the guest ends well.
    from kvmbox.run.vcpu.stop_report import Reporter

    return Reporter(vcpu, read_memory, is_pvm, name)


class VcpuLoop:
    """Runs one vCPU. `routes` counts its exits, for any thread."""

    attention_kind: type[Attention] = Attention

    def __init__(
        self,
        control: VcpuControl,
        vcpu: Vcpu,
        ports: Bus,
        mmio: Bus,
        *,
        read_memory: ReadMemory,
        ring: CoalescedRing | None = None,
        decide: Callable[[Outcome], object] = lambda outcome: None,
        is_pvm: bool = False,
        name: str | None = None,
        exit_filter: Callable[[exits.Exit], ExitAction | None] | None = None,
    ) -> None:
        """`ring` has the writes that KVM coalesced, if it does. `decide` hears the outcome if the loop itself
        has one. `is_pvm` tells what a refused instruction means. `name` is that of the CPU, if there are
        several. `exit_filter` is asked about each rare exit, if there is one; the loop handles what it says
        nothing about.
        """
        self._control = control
        self.routes: Final = self._new_routes(ports, mmio, ring)
        self._ring = ring
        self._vcpu = vcpu
        self._enter: Callable[[], int] = vcpu.enter
        if ports.watch(self.routes.outdate) | mmio.watch(self.routes.outdate):
            self._enter = self._enter_and_recheck
        self._reporter = partial(_new_reporter, vcpu, read_memory, is_pvm, name)
        self._exit_filter = exit_filter
        self._decide = decide
        self._recent: deque[Made] = deque(maxlen=MOST_RECENT)
        self._remember: Callable[[Made], object] = self._recent.append
        if vcpu.bytes[_VALID_REGS]:
            self._remember = self._remember_with_rip
        self.last_rip = 0
        """RIP at the last access to a device, at that instruction or behind it; 0 if KVM does not show it."""
        self._observed: Access | None = None  # the access that KVM has to complete, if it is to be shown
        self.outcome: Outcome | None = None

    def _new_routes(self, ports: Bus, mmio: Bus, ring: CoalescedRing | None) -> Routes:
        return Routes(ports, mmio, ring)

    @property
    def recent(self) -> list[Made]:
        """The last accesses that were made, the newest last. The vCPU must stand still, or have ended."""
        return list(self._recent)

    def _remember_with_rip(self, made: Made) -> None:
        self.last_rip = self._vcpu.words64[_SYNC_RIP]
        self._recent.append(made)

    def run(self) -> Outcome | None:
        """Run the guest until something ends it. Returns the outcome if the loop itself has one, and None if
        it was asked to leave. Raises DeviceProcessError, UnknownExitError.
        """
        try:
            self._run()
            if self.outcome is not None:
                # Before the drain, which may wait for another vCPU: that one may wait for this decision.
                self._decide(self.outcome)
            if self._ring is not None:
                self._ring.drain()
            return self.outcome
        finally:
            self.routes.count_accesses()

    def _run(self) -> None:
        vcpu, attention, ring = self._vcpu, self._control.attention, self._ring
        enter, remember = self._enter, self._remember
        words32, words64, data = vcpu.words32, vcpu.words64, vcpu.bytes
        by_port, by_address = self.routes.by_port, self.routes.by_address
        while True:
            status = enter()
            if status == 0:
                reason = words32[_EXIT_REASON]
                if reason == _KVM_EXIT_IO:
                    route = by_port.get(words64[_IO_WORD])
                    position = words64[_IO_DATA_OFFSET]
                elif reason == _KVM_EXIT_MMIO:
                    kind = words64[_MMIO_KIND] & MMIO_KIND_MASK
                    route = by_address.get(words64[_MMIO_ADDRESS] << MMIO_KIND_BITS | kind)
                    position = _MMIO_DATA
                else:
                    route, position = None, 0
                if route is not None:
                    route[0] += 1
                    _, access, word, offset, limit, size, is_read, guarded, device, what, steady, _ = route
                    value = 0
                    waits = guarded and words64[RING_WORD] % _SAME_HALVES  # the ring is not empty
                    known = None
                    if steady is not None and steady.entries:
                        known = known_value(steady, word, offset, device, ring if waits else None)
                        route[-1] += known is not None
                    if known is None and waits:
                        assert ring is not None
                        if is_read:
                            word, value = ring.carry_along(device, word)
                        else:
                            ring.drain()
                    if is_read:
                        value = access(word, offset, value, limit) if known is None else known
                        if size == 1:
                            data[position] = value
                        else:
                            data[position : position + size] = value.to_bytes(size, "little")
                    elif size == 1:
                        value = data[position]
                        access(word, offset, value, 0)
                    else:
                        value = int.from_bytes(data[position : position + size], "little")
                        access(word, offset, value, 0)
                    remember((what, value))
                elif reason == _KVM_EXIT_IO:
                    self._port_exit(words64[_IO_WORD], position)
                elif self._rare_exit():
                    return
            elif status < 0:
                self._no_exit(get_errno())
            if attention.bits:
                # KVM_RUN that was interrupted has completed the exit before; after an exit it is still to do.
                if self._pay_attention(is_settled=status < 0):
                    return
                enter = self._enter_and_announce if self._control.announces_exit else self._enter

    def _no_exit(self, number: int) -> None:
        """KVM_RUN has returned an error. EINTR is a kick. Raises UnknownExitError."""
        if number == errno.EINTR:
            self.routes.interruptions += 1
            self._vcpu.clear_kick()
            # The main thread does not wait for a process that has to start: see `Watch.flush_writes`.
            if self._ring is not None and self._ring.waits_for_start:
                self._ring.drain()
            return
        self.routes.unrouted += 1
        # A start-up IPI is EAGAIN for once. The first CPU that gets nothing else never runs: RLIMIT_NPROC
        # refuses a thread of KVM's own.
        stuck = self._vcpu.index == 0 and self.routes.guest_exits == self.routes.unrouted > 1000
        if number != errno.EAGAIN or stuck:
            raise UnknownExitError(f"KVM_RUN failed: {os.strerror(number)}")

    def _enter_and_recheck(self) -> int:
        """Enter the guest of a machine whose buses may change meanwhile."""
        result: int = self._vcpu.enter()
        if self.routes.stale:
            self.routes.forget()
        return result

    def _enter_and_announce(self) -> int:
        result = self._enter_and_recheck()
        if result >= 0:
            self._control.announce()
        return result

    def _pay_attention(self, *, is_settled: bool) -> bool:
        """Do what `attention` asks for: see `VcpuControl.obey`. Return whether the loop must end."""
        # In this order: a request that comes after the clearing kicks again, one before it is seen now.
        self._vcpu.clear_kick()
        if is_settled and self._observed is not None:
            observed, self._observed = self._observed, None
            self.routes.interruptions -= 1  # KVM_RUN has returned for the observer alone
            self._control.show(observed)
        return self._control.obey(None if is_settled else self._settle)

    def _settle(self) -> None:
        # The next KVM_RUN completes the exit, and returns before any guest code (api.rst, 5).
        self._vcpu.immediate_exit = True
        self._observed = None
        if self._control.attention.bits & OBSERVE:
            words64 = self._vcpu.words64
            reason = self._vcpu.words32[_EXIT_REASON]
            if reason == _KVM_EXIT_IO:
                self._observed = port_access(words64[_IO_WORD])
            elif reason == _KVM_EXIT_MMIO:
                self._observed = memory_access(words64[_MMIO_ADDRESS], words64[_MMIO_KIND])

    # --- Exits without a route ------------------------------------------------------------------------------

    def _port_exit(self, word: int, position: int) -> None:
        """A port exit without a route: the first of its kind, a string instruction, or an unclaimed port."""
        if self._ring is not None:
            self._ring.drain()
        what = direction, port, size = port_access(word)
        is_read, count = direction == "in", word >> 32
        data = self._vcpu.bytes
        if size not in (1, 2, 4) or position + size * count > len(data):
            raise UnknownExitError(f"KVM reports a port exit of {count} × {size} bytes, which cannot be")
        self.routes.port_exit(word, what, count)
        ports = self.routes.ports
        end = position + size * count
        value = None
        if count == 1 and is_read:
            value = ports.read(port, size)
            data[position:end] = value.to_bytes(size, "little")
        elif count == 1:
            value = int.from_bytes(data[position:end], "little")
            ports.write(port, size, value)
        elif is_read:
            data[position:end] = ports.read_string(port, size, count)
        else:
            ports.write_string(port, size, bytes(data[position:end]))
        self._remember((what, value))

    def _memory_exit(self, found: exits.MmioExit) -> None:
        """A memory-mapped access without a route."""
        address, length = found.address, found.length
        kind = self._vcpu.words64[_MMIO_KIND] & MMIO_KIND_MASK
        what = memory_access(address, kind)
        self.routes.memory_exit(address, kind, what)
        if found.is_write:
            value = int.from_bytes(found.data[:length], "little")
            self.routes.mmio.write(address, length, value)
        else:
            value = self.routes.mmio.read(address, length)
            end = _MMIO_DATA + length
            self._vcpu.bytes[_MMIO_DATA:end] = value.to_bytes(8, "little")[:length]
        self._remember((what, value))

    def _rare_exit(self) -> bool:
        """Any other exit than a port exit. Return whether the exit ends the run."""
        self.routes.unrouted += 1
        if self._ring is not None:
            self._ring.drain()
        from kvmbox.kvm import exits  # which a guest of port accesses alone does not need

        found = exits.decode_exit(self._vcpu.bytes)
        action = (self._exit_filter and self._exit_filter(found)) or ExitAction.HANDLE
        if action is ExitAction.IGNORE:
            return False
        if action is not ExitAction.HANDLE:
            # KVM has nothing to complete: the exit was between two instructions, or the guest's end.
            self._vcpu.clear_kick()
            # Asked to leave meanwhile, the loop does so, whatever the exit was.
            if self._control.stop() or action is ExitAction.STOP:
                return False
        match found:
            case exits.MmioExit():
                self._memory_exit(found)
            case exits.IntrExit() | exits.HltExit():
                pass
            case exits.ShutdownExit():
                self.outcome = self._reporter().triple_fault()
            case _:
                raise self._reporter().failure(found)
        return self.outcome is not None
