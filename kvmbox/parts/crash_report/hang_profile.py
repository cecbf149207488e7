"""Where the vCPUs of a guest are that does not end: samples of RIP, taken when --timeout has run out."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from kvmbox.run.vcpu.handle import VcpuThread

if TYPE_CHECKING:
    from kvmbox.explain.sampler import Sample

SAMPLES: Final = 20
INTERVAL: Final = 0.01
"""Seconds between two samples: 200 ms for all of them."""

SHOWN: Final = 4


class HangProfile:
    """The samples of each vCPU, by its number."""

    def __init__(self) -> None:
        self.samples: dict[int, list[Sample]] = {}

    @classmethod
    def of(cls, threads: Sequence[VcpuThread], *, pause: Callable[[float], None] = time.sleep) -> HangProfile:
        """The profile of vCPUs that still run."""
        profile = cls()
        for _ in range(SAMPLES if any(thread.is_alive for thread in threads) else 0):
            profile.take(threads, pause=pause)
        return profile

    def take(self, threads: Sequence[VcpuThread], *, pause: Callable[[float], None] = time.sleep) -> None:
        """Take one sample of each vCPU that pauses within the interval."""
        from kvmbox.explain.sampler import sample

        alive = [thread for thread in threads if thread.is_alive]
        for thread in alive:
            thread.pause()
        pause(INTERVAL)
        for thread in alive:
            found = sample(thread) if thread.is_paused else None
            if found is not None:
                self.samples.setdefault(thread.vcpu.index, []).append(found)
            thread.resume()

    def lines(self, name_of: Callable[[int], str]) -> list[str]:
        """The profile in words: where each vCPU was, most often first."""
        from kvmbox.explain.sampler import IN_WORDS

        found = []
        for number, samples in sorted(self.samples.items()):
            who = f"CPU {number}" if len(self.samples) > 1 else "The CPU"
            count = len(samples)
            found.append(f"{who}, {count} samples in {SAMPLES * INTERVAL * 1000:.0f} ms:")
            where = Counter(
                (name_of(one.pc) or f"{one.pc:#x}", one.interrupts_on, one.doing) for one in samples
            )
            for (name, interrupts_on, doing), hits in where.most_common(SHOWN):
                state = "on" if interrupts_on else "off"
                found.append(f"  {100 * hits // count:3} % {name}, {IN_WORDS[doing]}, interrupts {state}")
        return found
