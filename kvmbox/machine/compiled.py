"""The run loop and the clock with their compiled halves: see `accel.vmm`."""

from __future__ import annotations

from typing import Any

from kvmbox.accel.vmm import Clock, LoopCore
from kvmbox.host.clock import GuestClock
from kvmbox.kvm import ioctl, uapi
from kvmbox.kvm.vcpu import Vcpu
from kvmbox.machine.coalescing import RING_WORD
from kvmbox.machine.run_loop import MMIO_KIND_BITS, MMIO_KIND_MASK, VcpuLoop, nobody


class CompiledClock(Clock, GuestClock):
    """Guest time that compiled code can read. It is always the host's monotonic clock."""

    def __init__(self) -> None:
        super().__init__()


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
            mmio_data=uapi.RUN_MMIO_DATA,
            io_exit=uapi.KVM_EXIT_IO,
            mmio_exit=uapi.KVM_EXIT_MMIO,
            nobody=nobody,
        )
        self._enter = self.enter_compiled

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
