"""Device processes that are taken over, by the million: `python -m tests.fuzz.taken_over --frames 1000000`.

`disk` and `net` are virtio devices whose queues a hostile guest makes up, walked by compiled code where it is
built (`virtio_processes`); `vga` and `pci` are in `bus_processes`, `e1000`, without compiled code, in
`descriptors`.
A frame is one reply of the process (of `e1000` an effect), and a case one layout of the rings. They come in
chunks, each with a seed of its own. What takes a minute of CPU time for a thousand cases, or half an hour,
counts as a hang.
"""

from __future__ import annotations

import argparse
import faulthandler
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, Protocol

from tests.fuzz.bus_processes import PciTarget, VgaTarget
from tests.fuzz.descriptors import E1000Target
from tests.fuzz.targets import Fault
from tests.fuzz.virtio_processes import VirtioTarget
from tests.support.halves import Half, built_halves

HANG_S: Final = 60
CHUNK: Final = 50_000


class Target(Protocol):
    """A process, and who has to stand it."""

    refused: int

    @property
    def frames(self) -> int:
        """What it has sent."""

    def step(self) -> None:
        """One case. Raises Fault."""

    def close(self) -> None:
        """Give back what the kernel gave."""


TARGETS: Final[dict[str, Callable[[int, Half], Target]]] = {
    "disk": lambda seed, half: VirtioTarget(seed, half, is_net=False),
    "net": lambda seed, half: VirtioTarget(seed, half, is_net=True),
    "e1000": E1000Target,
    "vga": VgaTarget,
    "pci": PciTarget,
}


def _watch(seconds: int) -> None:
    """From now on, nothing may take so long; 0: all is over."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    if seconds:
        with suppress(OSError):
            faulthandler.dump_traceback_later(30 * seconds, exit=True)
    else:
        faulthandler.cancel_dump_traceback_later()


def fuzz(name: str, frames: int, seed: int, half: Half) -> tuple[Target, int]:
    """At least so many frames of a target, and how many cases that were. Raises Fault."""
    target, cases = TARGETS[name](seed, half), 0
    try:
        while target.frames < frames:
            if cases % 1000 == 0:
                _watch(HANG_S)
            target.step()
            cases += 1
    except Exception as error:
        raise Fault(f"{name}, seed {seed}, case {cases}: {error!r}") from error
    finally:
        _watch(0)
        target.close()
    return target, cases


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="taken_over", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=100_000, help="of each target (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=time.time_ns() & 0xFFFF_FFFF)
    parser.add_argument("--target", choices=TARGETS, action="append", help="only this one; may be repeated")
    given = parser.parse_args(arguments)
    half = built_halves()[-1]
    with suppress(OSError):  # a test captures stderr
        faulthandler.register(signal.SIGPROF, chain=True)  # which ends the process
    how = "compiled" if half.is_compiled else "pure"
    for name in given.target or TARGETS:
        began, seed = time.monotonic(), given.seed
        frames = cases = refused = 0
        while frames < given.frames:
            try:
                target, done = fuzz(name, min(CHUNK, given.frames - frames), seed, half)
            except Fault as fault:
                print(f"FAULT: {fault}", flush=True)
                return 1
            frames, cases, refused, seed = (
                frames + target.frames,
                cases + done,
                refused + target.refused,
                seed + 1,
            )
        what = f"{frames} frames in {cases} cases, {refused} refused, {time.monotonic() - began:.0f} s"
        print(f"{name} ({how}), seed {given.seed}: {what}: no fault", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
