"""Where the vCPUs of a guest are that does not end: samples of RIP, taken when --timeout has run out."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from kvmbox.kvm import uapi
from kvmbox.machine.vcpu_thread import VcpuThread
from kvmbox.outcome import Decision, Outcome

SAMPLES: Final = 20
INTERVAL: Final = 0.01
"""Seconds between two samples: 200 ms for all of them."""

SHOWN: Final = 4
_RFLAGS_IF: Final = 1 << 9

Sample = tuple[int, bool, bool]
"""RIP as a linear address, whether interrupts are on, whether the vCPU is in HLT."""


class Profile:
    """The samples of each vCPU, by its number."""

    def __init__(self) -> None:
        self.samples: dict[int, list[Sample]] = {}

    def take(self, threads: Sequence[VcpuThread], *, pause: Callable[[float], None] = time.sleep) -> None:
        """Take one sample of each vCPU that pauses within the interval."""
        alive = [thread for thread in threads if thread.is_alive]
        for thread in alive:
            thread.pause()
        pause(INTERVAL)
        for thread in alive:
            if thread.is_paused:
                self._sample(thread)
            thread.resume()

    def _sample(self, thread: VcpuThread) -> None:
        vcpu = thread.vcpu
        try:
            regs, sregs, state = vcpu.get_regs(), vcpu.get_sregs(), vcpu.get_mp_state()
        except OSError:  # a sample is lost, and the report tells of the others
            return
        linear = regs.rip if sregs.cs.l else sregs.cs.base + regs.rip
        halted = state == uapi.KVM_MP_STATE_HALTED
        self.samples.setdefault(vcpu.index, []).append((linear, bool(regs.rflags & _RFLAGS_IF), halted))

    def lines(self, name_of: Callable[[int], str]) -> list[str]:
        """The profile in words: where each vCPU was, most often first."""
        found = []
        for number, samples in sorted(self.samples.items()):
            who = f"CPU {number}" if len(self.samples) > 1 else "The CPU"
            count = len(samples)
            found.append(f"{who}, {count} samples in {SAMPLES * INTERVAL * 1000:.0f} ms:")
            where = Counter((name_of(pc) or f"{pc:#x}", on, halted) for pc, on, halted in samples)
            for (name, interrupts_on, halted), hits in where.most_common(SHOWN):
                doing = "halted" if halted else "running"
                state = "on" if interrupts_on else "off"
                found.append(f"  {100 * hits // count:3} % {name}, {doing}, interrupts {state}")
        return found


class Hang:
    """The end of a guest whose time is over."""

    def __init__(self) -> None:
        self.profile: Profile | None = None
        self.looking = False
        """Whether samples are being taken: the vCPUs must not be made to leave."""

    def time_out(self, outcome: Outcome, decision: Decision, threads: Sequence[VcpuThread]) -> None:
        """Decide the outcome, and then look where the guest is, which goes on meanwhile."""
        self.looking = True
        try:
            if decision.decide(outcome):
                self.profile = Profile()
                for _ in range(SAMPLES if any(thread.is_alive for thread in threads) else 0):
                    self.profile.take(threads)
        finally:
            self.looking = False
