"""Which instructions make the exits of a guest: for --stats and --json.

Counting would cost every exit a look at the registers. So a sample is taken: the first exits of a boot, and
then a burst of exits in a row, ten times a second. A burst stands for all exits since the one before, so a
guest that changes what it does is shown in the right proportions.

The run loop shows an exit when KVM has completed its instruction: RIP is behind the instruction then,
whether KVM or its emulator has made the access.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from kvmbox.base.symbol_file import SymbolFile
from kvmbox.explain import symbols
from kvmbox.explain.sampler import sample
from kvmbox.host.time.guest_clock import GuestClock
from kvmbox.run.loop.vcpu_pause import Visitor
from kvmbox.run.machine.one_boot import Boot
from kvmbox.run.part import Part, Standing
from kvmbox.run.vcpu.handle import VcpuThread
from kvmbox.run.vcpu.run_state import Access

if TYPE_CHECKING:
    from kvmbox.run.result.run_result import Draft

FIRST: Final = 64
"""How many exits at the start of a boot are looked at."""

BURST: Final = 16
"""How many exits in a row are looked at later."""

INTERVAL: Final = 0.1
"""Seconds between two bursts."""

MOST_SOURCES: Final = 1024
"""How many sources each boot of a vCPU has at most, as the guest decides how many there are."""

MOST_LISTED: Final = 32
LONGEST_PLACE: Final = 120

Source = tuple[str, int, int, int]
"""An access as the run loop tells it, and the linear address behind the instruction that made it."""


class Observer:
    """Looks at exits of one vCPU. Called by its thread; `again` and `is_over` are for the main thread."""

    def __init__(self, thread: VcpuThread) -> None:
        self.exits: dict[Source, float] = {}
        """How many exits each source has made, estimated."""
        self.looked_at = 0
        self.stood_for = 0
        """How many exits the bursts so far stand for."""
        self._thread = thread
        self._burst: list[Source] = []
        self._left = FIRST

    def __call__(self, access: Access) -> bool:
        """See `vcpu_state.Observer`."""
        found = sample(self._thread)
        if found is not None:
            self._burst.append((*access, found.pc))
        if self._left > 1:
            self._left -= 1
            return True
        self.finish()
        self._left = 0
        return False

    @property
    def total(self) -> int:
        """The exits so far, whether they were looked at or not."""
        return self._thread.loop.routes.guest_exits

    @property
    def is_over(self) -> bool:
        """Whether the burst is over. A guest that makes no exits does not end one, and is not disturbed."""
        return self._left == 0

    def again(self) -> None:
        """Look at the next exits."""
        if self._thread.is_alive:
            self._left = BURST
            self._thread.observe(self)

    def finish(self) -> None:
        """Count what the burst has so far."""
        burst, self._burst = self._burst, []
        if not burst:
            return
        total = self.total
        each = (total - self.stood_for) / len(burst)
        self.stood_for = total
        self.looked_at += len(burst)
        for source in burst:
            if source in self.exits or len(self.exits) < MOST_SOURCES:
                self.exits[source] = self.exits.get(source, 0.0) + each


class ExitSampler(Part, Visitor):
    """Takes the sample of all boots of a run. It needs no standstill, only the main loop's turns."""

    def __init__(self, *, sample_exits: bool = True, now: Callable[[], float] = time.monotonic) -> None:
        """`sample_exits` is why the part is here. `now` gives seconds."""
        del sample_exits
        self._now = now
        self._symbols: Sequence[SymbolFile] = ()
        self._observers: list[Observer] = []
        self._present: list[Observer] = []
        self._next = 0.0

    def attach(self, machine: Standing) -> None:
        """See Part."""
        self._symbols = machine.source.symbols
        machine.loop.standstill.admit(self)

    def boot_begins(self, boot: Boot) -> None:
        """See Visitor."""
        self._next = self._now() + INTERVAL
        self._present = [Observer(thread) for thread in boot.vcpus]
        self._observers += self._present
        for thread, observer in zip(boot.vcpus, self._present, strict=True):
            thread.observe(observer)

    def tick(self, _clock: GuestClock) -> None:
        """See Visitor."""
        now = self._now()
        if now >= self._next:
            self._next = now + INTERVAL
            for observer in self._present:
                if observer.is_over:
                    observer.again()

    def wake_in(self, _clock: GuestClock) -> float | None:
        """See Visitor."""
        waits = any(observer.is_over for observer in self._present)
        return max(0.0, self._next - self._now()) if waits else None

    def report(self, draft: Draft) -> None:
        """See Part."""
        draft.facts["exit_sources"] = self.sources(self._symbols)

    def sources(self, files: Sequence[SymbolFile]) -> dict[str, Any]:
        """After the end: the sources with the most exits, the first one first. `files` name the addresses."""
        exits: dict[Source, float] = {}
        for observer in self._observers:
            observer.finish()
            for source, count in list(observer.exits.items()):
                exits[source] = exits.get(source, 0.0) + count
        first = sorted(exits.items(), key=lambda item: (-item[1], item[0]))[:MOST_LISTED]
        tables = [symbols.read(one.data, one.base) for one in files] if first else []
        whole = sum(observer.stood_for for observer in self._observers)
        return {
            "exits": sum(observer.total for observer in self._observers),
            "sampled": sum(observer.looked_at for observer in self._observers),
            "sources": [
                {
                    "share": round(count / whole, 4) if whole else 0.0,
                    "access": access,
                    "address": address,
                    "size": size,
                    "rip": rip,
                    "place": _place(rip, tables),
                }
                for (access, address, size, rip), count in first
            ],
        }


def _place(rip: int, tables: Sequence[symbols.Symbols]) -> str | None:
    """The function and the offset of `rip`, which is behind the instruction, maybe in the next function."""
    for table in tables:
        found = table.at(rip - 1)
        if found is not None:
            text = str(found.behind(1))
            return text if len(text) <= LONGEST_PLACE else f"…{text[1 - LONGEST_PLACE :]}"
    return None


PART = ExitSampler
