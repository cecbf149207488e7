"""The fuzzer: hostile frames by the million. `make fuzz` runs it; `python -m tests.fuzz.run --help`.

The frames are dealt to targets in chunks, each with a seed of its own, and each with a fresh target: so a
fault is had again by the chunk's seed alone. It stops at the first fault, with status 1.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from tests.fuzz.frames import Liar
from tests.fuzz.lives import LivesTarget, RingTarget, SnapshotTarget
from tests.fuzz.plants import PLANTS, SOUND, Parts
from tests.fuzz.targets import Fault, RealTarget, SharedTarget, StreamTarget

CHUNK: Final = 2_000
TARGETS: Final[dict[str, tuple[int, Callable[[Parts], Any]]]] = {
    "stream": (400, StreamTarget),
    "shared": (400, SharedTarget),
    "lives": (130, LivesTarget),
    "snapshot": (40, SnapshotTarget),
    "ring": (20, RingTarget),
    "socketpair": (4, lambda parts: RealTarget(parts, "socketpair")),
    "pipe": (4, lambda parts: RealTarget(parts, "pipe")),
    "shm": (2, lambda parts: RealTarget(parts, "shm")),
}
"""Of a thousand frames, how many each target gets, and what makes it."""


def fuzz(target: str, frames: int, seed: int, parts: Parts = SOUND) -> tuple[int, int]:
    """Give `frames` frames to a fresh target; how many there were, and how many it accepted. Raises Fault."""
    made = TARGETS[target][1](parts)
    liar = Liar(seed)
    try:
        for number in range(frames):
            try:
                made.step(liar)
            except Fault as fault:
                raise Fault(f"{target}, seed {seed}, frame {number}: {fault}") from fault
    finally:
        made.close()
    return made.frames, made.accepted


def deal(frames: int, targets: Sequence[str]) -> dict[str, int]:
    """How many frames each target gets."""
    shares = {name: TARGETS[name][0] for name in targets}
    return {name: -(-frames * share // sum(shares.values())) for name, share in shares.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("--frames", type=int, default=200_000, help="how many (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=time.time_ns() & 0xFFFF_FFFF)
    parser.add_argument("--target", choices=TARGETS, action="append", help="only this one; may be repeated")
    parser.add_argument("--plant", choices=PLANTS, help="a bug to be found")
    options = parser.parse_args(arguments)
    began = time.monotonic()
    total = 0
    print(f"seed {options.seed}", flush=True)
    try:
        parts = PLANTS[options.plant].parts if options.plant else SOUND
        for name, count in deal(options.frames, options.target or list(TARGETS)).items():
            done, accepted, seconds = _campaign(name, count, options.seed, parts)
            total += done
            print(
                f"{name:<12}{done:>10} frames {accepted:>10} accepted {seconds:>8.1f} s "
                f"{done / max(seconds, 1e-9):>8.0f}/s",
                flush=True,
            )
    except Fault as fault:
        print(f"FAULT: {fault}", flush=True)
        return 1
    seconds = time.monotonic() - began
    print(f"{total} frames in {seconds:.0f} s, {total / seconds:.0f}/s: no fault")
    return 0


def _campaign(name: str, frames: int, seed: int, parts: Parts) -> tuple[int, int, float]:
    began = time.monotonic()
    done = accepted = dealt = 0
    while dealt < frames:
        size = min(CHUNK, frames - dealt)
        chunk = fuzz(name, size, seed, parts)
        dealt += size
        done += chunk[0]
        accepted += chunk[1]
        seed = seed * 6_364_136_223_846_793_005 + 1_442_695_040_888_963_407 & (1 << 64) - 1
    return done, accepted, time.monotonic() - began


if __name__ == "__main__":
    sys.exit(main())
