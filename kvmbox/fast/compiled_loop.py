"""The run loop, the ring and the clock with their compiled halves: see `vmm`."""

from __future__ import annotations

import _thread
import os
import threading
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from kvmbox.fast.vmm import (
    AttentionCore,
    ChannelCore,
    Clock,
    LineCore,
    Lock,
    LoopCore,
    ReplayCore,
    RingCore,
    RouterCore,
    SourceCore,
)
from kvmbox.host.interrupt_lines import InterruptRouter, LineState, Source
from kvmbox.host.process.threads import start_thread
from kvmbox.host.time.deadline_timer import Timerfd
from kvmbox.host.time.guest_clock import GuestClock
from kvmbox.kvm import ioctl, uapi
from kvmbox.kvm.vcpu import Vcpu
from kvmbox.remote.bus.proxy import WINDOW_SIZES
from kvmbox.run.vcpu.coalesced_ring import (
    BYTE_TO_PORT,
    ENTRIES,
    ENTRY_SIZE,
    MOST_POSTED,
    RING_WORD,
    CoalescedRing,
    makes_pair,
)
from kvmbox.run.vcpu.exit_routes import ACCESS, MMIO_KIND_BITS, MMIO_KIND_MASK, Routes, Table, nobody
from kvmbox.run.vcpu.run_loop import MOST_RECENT, Made, VcpuLoop
from kvmbox.run.vcpu.run_state import Access, Attention, VcpuControl

if TYPE_CHECKING:
    from kvmbox.base.outcome import Outcome
    from kvmbox.remote.bus.proxy import DeviceProxy
    from kvmbox.remote.bus.routing import Bus


class CompiledClock(Clock, GuestClock):
    """Guest time that compiled code can read. It is always the host's monotonic clock."""

    def __init__(self) -> None:
        super().__init__()


class CompiledRing(RingCore, CoalescedRing):
    """A ring of which compiled code takes the only write along with a read, and gives writes to one latch."""

    def __init__(
        self,
        words64: memoryview,
        words32: memoryview,
        data: memoryview,
        zones: Mapping[int, tuple[DeviceProxy, int]],
        *,
        latches: Collection[int] = (),
        carries: bool = True,
        **rest: Any,
    ) -> None:
        lock = Lock()
        self.set_up(
            lock,
            zones,
            {port for port in zones if makes_pair(zones, port)},
            carries,
            entries=ENTRIES,
            entry_size=ENTRY_SIZE,
            byte_to_port=BYTE_TO_PORT,
            most_posted=MOST_POSTED,
        )
        for port in latches:
            device, _ = zones[port]
            path = device.fast_path(False, 1)
            if isinstance(getattr(path.access, "__self__", None), ChannelCore):
                self.latch(port, path.word)
        super().__init__(words64, words32, data, zones, latches=latches, carries=carries, lock=lock, **rest)

    def let_post(self, port: int, allowed: int) -> None:
        """See CoalescedRing."""
        super().let_post(port, allowed)
        CoalescedRing.let_post(self, port, allowed)

    def count_carried(self) -> None:
        """Let the devices count what compiled code has carried along. Thread-safe."""
        with self._lock:
            for device, count in self.take_carried():
                device.count(False, count)


class CompiledLine(LineCore, LineState):
    """A line that compiled code can raise and lower."""


class CompiledSource(SourceCore, Source):
    """A source that compiled code can raise."""

    slack = 500_000


class CompiledRouter(RouterCore, InterruptRouter):
    """Interrupt lines, and a thread that raises those whose rise has been announced, without the GIL."""

    line_kind = CompiledLine
    source_kind = CompiledSource
    pure_change = InterruptRouter.change

    def __init__(self, clock: CompiledClock) -> None:
        lock = Lock()
        super().__init__(lock)
        self.set_up(clock, lock, ioctl.KVM_IRQ_LINE)
        self._announcers: list[Source] = []
        self._timer: Timerfd | None = Timerfd(blocks=True)  # now: later the VMM may open nothing more
        self._lives = threading.Lock()
        """Held while there is the thread."""

    def rise_of(self, line: Callable[[int, int], None]) -> Source | None:
        """See InterruptRouter. The thread watches each source that has been asked for."""
        source = super().rise_of(line)
        if source is not None:
            self._announcers.append(source)
        return source

    def start(self, *, cpu: int | None, confine: Callable[[], None]) -> None:
        """See InterruptRouter."""
        assert self._timer is not None
        self.watch(self._announcers, self._timer.descriptor, -1 if cpu is None else cpu)
        self._lives.acquire()
        # `Thread.start` would wait until it runs: .6 ms.
        start = partial(_thread.start_new_thread, self._raise_lines, (cpu, confine))
        try:
            start_thread(start, "the thread that raises interrupt lines")
        except BaseException:
            self._lives.release()
            raise

    def _raise_lines(self, cpu: int | None, confine: Callable[[], None]) -> None:
        try:
            if cpu is not None:
                os.sched_setaffinity(0, {cpu})
            confine()
            self.raise_lines()
        finally:
            self._lives.release()

    def close(self) -> None:
        """See InterruptRouter."""
        if self._timer is None:
            return
        self.stop()
        if self._lives.acquire(timeout=1):
            self.unwatch()
            self._timer.close()
        self._timer = None


class CompiledAttention(AttentionCore, Attention):
    """What compiled code checks at each exit."""


class CompiledRoutes(Routes):
    """Routes that compiled code learns, and takes."""

    def __init__(self, core: LoopCore, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._core = core

    def _put(self, table: Table, key: int, route: list[Any]) -> None:
        super()._put(table, key, route)
        self._core.learn(*self._split(table, key), route)

    def outdate(self) -> None:
        """See Routes."""
        super().outdate()
        self._core.stale = 1

    def forget(self) -> None:
        """See Routes."""
        self._core.stale = 0
        super().forget()
        self._core.forget_all()

    def port_exit(self, word: int, what: Access, count: int) -> None:
        """See Routes. A string instruction that a window or a steady value may serve takes the route of a
        single access.
        """
        super().port_exit(word, what, count)
        direction, port, size = what
        if count > 1 and (one := word & ACCESS | 1 << 32) not in self.by_port:
            mapping = self.ports.find_all(port, size)
            has_window = mapping is not None and getattr(mapping.direct, "window", None) is not None
            if mapping is not None and (size in WINDOW_SIZES if has_window else direction == "in"):
                self._add(self.by_port, one, mapping, what)

    def _accesses_of(self, table: Table, key: int) -> int:
        return super()._accesses_of(table, key) + self._core.more_of(*self._split(table, key))

    def _exits_of(self, table: Table, key: int) -> int:
        return super()._exits_of(table, key) + self._core.count_of(*self._split(table, key))

    def _steady_of(self, table: Table, key: int) -> int:
        return super()._steady_of(table, key) + self._core.steady_of(*self._split(table, key))

    def _split(self, table: Table, key: int) -> tuple[int, int | None]:
        """The key as compiled code has it: in two words."""
        if table is self.by_port:
            return key, None
        return key >> MMIO_KIND_BITS, key & MMIO_KIND_MASK


class CompiledLoop(LoopCore, VcpuLoop):
    """A run loop whose routed exits are handled by compiled code."""

    attention_kind = CompiledAttention

    def __init__(self, control: VcpuControl, vcpu: Vcpu, *arguments: Any, **options: Any) -> None:
        super().__init__(control, vcpu, *arguments, **options)
        descriptor = vcpu.fileno()
        self.set_up(
            vcpu.bytes,
            descriptor,
            ioctl.KVM_RUN,
            vcpu.enter if descriptor < 0 else None,
            attention=control.attention,
            ring_word=RING_WORD,
            ring=self._ring,
            mmio_data=uapi.RUN_MMIO_DATA,
            io_exit=uapi.KVM_EXIT_IO,
            mmio_exit=uapi.KVM_EXIT_MMIO,
            nobody=nobody,
            most_recent=MOST_RECENT,
            sync_rip=uapi.RUN_SYNC_RIP,
        )
        self._enter = self.enter_compiled
        self._remember = self.remember

    def outdated(self) -> None:
        """Compiled code has found that the routes are stale."""
        self.routes.forget()

    def run(self) -> Outcome | None:
        """See VcpuLoop."""
        try:
            return super().run()
        finally:
            if isinstance(self._ring, CompiledRing):
                self._ring.count_carried()

    def _new_routes(self, ports: Bus, mmio: Bus, ring: CoalescedRing | None) -> Routes:
        return CompiledRoutes(self, ports, mmio, ring)

    @property
    def recent(self) -> list[Made]:
        """See VcpuLoop."""
        return self.remembered()


class ReplayedLoop(ReplayCore, CompiledLoop):
    """A run loop whose exits come from memory: see `tools.bench.replayed`."""
