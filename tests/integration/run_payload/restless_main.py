"""`kvmbox` in which each exit finds the ring of coalesced writes just being flushed, as the main thread does.

Usage: restless_main.py ARGUMENTS-OF-KVMBOX... For tests that no access of a guest overtakes what is flushed.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from kvmbox.channel.proxy import DeviceProxy
from kvmbox.cli.entry import entry_point
from kvmbox.kvm.vcpu import Vcpu
from kvmbox.machine import main_loop as supervisor
from kvmbox.machine.coalescing import CoalescedRing
from kvmbox.machine.run_loop import LoopEnd, VcpuLoop

flush_run = DeviceProxy.flush_run


class RestlessLoop(VcpuLoop):
    """A run loop whose KVM_RUN, with writes in the ring, returns when a flush has begun to give them."""

    def __init__(self, vcpu: Vcpu, *arguments: Any, ring: CoalescedRing, **options: Any) -> None:
        super().__init__(vcpu, *arguments, ring=ring, **options)
        self._waiting_ring = ring
        self._go, self._begun = threading.Semaphore(0), threading.Event()
        self._ended = False
        self._met = 0
        enter = vcpu.enter

        def enter_and_meet_a_flush() -> int:
            result: int = enter()
            if ring.pending:
                self._begun.clear()
                self._go.release()
                self._begun.wait()
            return result

        vars(vcpu)["enter"] = enter_and_meet_a_flush
        # Here, not in `run`: the vCPU thread, once it is confined, may not make threads.
        self._flusher = threading.Thread(target=self._flush, daemon=True)
        self._flusher.start()

    def _flush(self) -> None:
        def begin(proxy: DeviceProxy, offset: int, data: bytes) -> None:
            if threading.current_thread() is self._flusher:
                self._met += 1
                self._begun.set()
                time.sleep(0)  # the vCPU thread's turn
            flush_run(proxy, offset, data)

        setattr(DeviceProxy, "flush_run", begin)  # noqa: B010 - mypy minds an assignment
        while True:
            self._go.acquire()
            if self._ended:
                return
            self._waiting_ring.flush()
            self._begun.set()  # also if the main thread itself was just flushing

    def run(self) -> LoopEnd:
        try:
            return super().run()
        finally:
            self._ended = True
            self._go.release()
            self._flusher.join()
            assert self._met, "no exit met a flush"


vars(supervisor)["VcpuLoop"] = RestlessLoop

if __name__ == "__main__":
    entry_point()
