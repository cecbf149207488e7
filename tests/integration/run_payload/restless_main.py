"""`kvmbox` in which each exit finds the ring of coalesced writes just being flushed, as the main thread does.

Usage: restless_main.py ARGUMENTS-OF-KVMBOX... For tests that no access of a guest overtakes what is flushed.
"""

from __future__ import annotations

import sys
import threading
import time
from contextlib import suppress
from types import FrameType
from typing import Any, cast

from kvmbox.base.errors import DeviceProcessError
from kvmbox.base.outcome import Outcome
from kvmbox.cli.entry import entry_point
from kvmbox.kvm.vcpu import Vcpu
from kvmbox.remote.bus.proxy import DeviceProxy
from kvmbox.run.loop import main_loop
from kvmbox.run.machine.loop_implementations import loop_kind
from kvmbox.run.vcpu.coalesced_ring import CoalescedRing
from kvmbox.run.vcpu.run_state import VcpuControl


class Flusher:
    """A thread that flushes the ring when it is told to, beside the main thread."""

    def __init__(self, ring: CoalescedRing) -> None:
        self.met = 0
        self._ring = ring
        self._go, self._begun = threading.Semaphore(0), threading.Event()
        self._ended = False
        self._thread = threading.Thread(target=self._flush, daemon=True)
        self._thread.start()

    def begin(self) -> None:
        """Return when a flush has begun to give what is in the ring."""
        self._begun.clear()
        self._go.release()
        self._begun.wait()

    def end(self) -> None:
        """End the thread."""
        self._ended = True
        self._go.release()
        self._thread.join()

    def _flush(self) -> None:
        sys.setprofile(self._watch)
        while True:
            self._go.acquire()
            if self._ended:
                return
            with suppress(DeviceProcessError):  # the ring keeps it, and raises it for the vCPU thread, too
                self._ring.flush()
            self._begun.set()  # also if the main thread itself was just flushing

    def _watch(self, frame: FrameType, event: str, _argument: object) -> None:
        if event == "call" and frame.f_code is DeviceProxy.flush_run.__code__:
            self.met += 1
            self._begun.set()
            time.sleep(0)  # the vCPU thread's turn


class RestlessVcpu:
    """A vCPU whose KVM_RUN, with writes in the ring, returns when a flush has begun to give them."""

    def __init__(self, vcpu: Vcpu, ring: CoalescedRing, flusher: Flusher) -> None:
        self._vcpu = vcpu
        self._ring = ring
        self._flusher = flusher

    def __getattr__(self, name: str) -> Any:
        return getattr(self._vcpu, name)

    def fileno(self) -> int:
        """None: compiled code must not call KVM_RUN by itself."""
        return -1

    def enter(self) -> int:
        """See Vcpu."""
        result: int = self._vcpu.enter()
        if self._ring.pending:
            self._flusher.begin()
        return result


_Loop: Any = loop_kind()


class RestlessLoop(_Loop):  # type: ignore[misc]  # the pure one or the compiled one, as the run chooses
    """The run loop of a restless vCPU."""

    def __init__(
        self, control: VcpuControl, vcpu: Vcpu, *arguments: Any, ring: CoalescedRing, **options: Any
    ) -> None:
        # Here, not in `run`: the vCPU thread, once it is confined, may not make threads.
        self.flusher = Flusher(ring)
        restless = cast(Vcpu, RestlessVcpu(vcpu, ring, self.flusher))
        super().__init__(control, restless, *arguments, ring=ring, **options)

    def run(self) -> Outcome | None:
        try:
            end: Outcome | None = super().run()
            return end
        finally:
            self.flusher.end()
            assert self.flusher.met, "no exit met a flush"


if __name__ == "__main__":
    vars(main_loop)["loop_kind"] = lambda: RestlessLoop
    entry_point()
