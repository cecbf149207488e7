"""The run loop, the ring and the clock with their compiled halves: see `accel.vmm`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kvmbox.accel.vmm import Clock, Lock, LoopCore, RingCore
from kvmbox.host.clock import GuestClock
from kvmbox.kvm import ioctl, uapi
from kvmbox.kvm.vcpu import Vcpu
from kvmbox.machine.coalescing import BYTE_TO_PORT, ENTRIES, ENTRY_SIZE, RING_WORD, CoalescedRing
from kvmbox.machine.run_loop import MMIO_KIND_BITS, MMIO_KIND_MASK, LoopEnd, VcpuLoop, nobody

if TYPE_CHECKING:
    from kvmbox.channel.proxy import DeviceProxy


class CompiledClock(Clock, GuestClock):
    """Guest time that compiled code can read. It is always the host's monotonic clock."""

    def __init__(self) -> None:
        super().__init__()


class CompiledRing(RingCore, CoalescedRing):
    """A ring whose only write compiled code takes along with a read."""

    def __init__(
        self,
        words64: memoryview,
        words32: memoryview,
        data: memoryview,
        zones: Mapping[int, tuple[DeviceProxy, int]],
        *,
        carries: bool = True,
        **rest: Any,
    ) -> None:
        lock = Lock()
        self.set_up(lock, zones, carries, entries=ENTRIES, entry_size=ENTRY_SIZE, byte_to_port=BYTE_TO_PORT)
        super().__init__(words64, words32, data, zones, carries=carries, lock=lock, **rest)

    def count_carried(self) -> None:
        """Let the devices count what compiled code has carried along. Thread-safe."""
        with self._lock:
            for device, count in self.take_carried():
                device.count(False, count)


class CompiledLoop(LoopCore, VcpuLoop):
    """A run loop whose routed exits are handled by compiled code."""

    def __init__(self, vcpu: Vcpu, *arguments: Any, **options: Any) -> None:
        super().__init__(vcpu, *arguments, **options)
        descriptor = vcpu.fileno()
        self.set_up(
            vcpu.bytes,
            descriptor,
            ioctl.KVM_RUN,
            vcpu.enter if descriptor < 0 else None,
            ring_word=RING_WORD,
            ring=self._ring,
            mmio_data=uapi.RUN_MMIO_DATA,
            io_exit=uapi.KVM_EXIT_IO,
            mmio_exit=uapi.KVM_EXIT_MMIO,
            nobody=nobody,
        )
        self._enter = self.enter_compiled

    def run(self) -> LoopEnd:
        """See VcpuLoop."""
        try:
            return super().run()
        finally:
            if isinstance(self._ring, CompiledRing):
                self._ring.count_carried()

    def _add_route(self, routes: dict[int, list[Any]], key: int, *what: Any) -> None:
        super()._add_route(routes, key, *what)
        if key in routes:
            self.learn(*self._split(routes, key), routes[key])

    def _add_unclaimed(self, key: int, is_read: bool, size: int) -> None:
        super()._add_unclaimed(key, is_read, size)
        if key in self._unclaimed:
            self.learn(*self._split(self._routes, key), self._routes[key])

    def _exits_of(self, routes: dict[int, list[Any]], key: int) -> int:
        return super()._exits_of(routes, key) + self.count_of(*self._split(routes, key))

    def _split(self, routes: dict[int, list[Any]], key: int) -> tuple[int, int | None]:
        """The key as compiled code has it: in two words."""
        if routes is self._routes:
            return key, None
        return key >> MMIO_KIND_BITS, key & MMIO_KIND_MASK
