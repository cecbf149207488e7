#!/usr/bin/env python3
"""Would a virtio-like ring between the VMM and a device process pay? An experiment, by interleaved pairs.

`ring_or_mailbox.c` has a split virtqueue and the mailbox of `--ipc shm`, both in C, so that nothing but the
link differs. A guest's access needs its reply before the vCPU goes on: that is depth 1. Greater depths are
what batching could give if accesses could wait. `run` is what kvmbox does with those that can: many bytes in
one request. Each round runs all ways, every second one in reverse, and the ratios are of one round.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import tempfile
from pathlib import Path
from typing import Final

SOURCE: Final = Path(__file__).with_suffix(".c")
DEPTHS: Final = (1, 4, 16, 64)
PLACES: Final = (("two CPUs, both look", 1, 400_000), ("one CPU, doorbells", 0, 20_000))


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9, help="(default: %(default)s)")
    parser.add_argument("--work-ns", type=int, default=0, help="of the device, per request (default: 0)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        program = f"{directory}/ring_or_mailbox"
        compiler = os.environ.get("CC", "cc").split()
        subprocess.run([*compiler, "-O2", "-Wall", "-o", program, str(SOURCE)], check=True)
        for place, spins, requests in PLACES:
            print(f"{place}; ns per request, medians of {given.rounds} rounds, and ratios to the mailbox")
            for depth in DEPTHS:
                print(row(program, depth, spins, requests, given.work_ns, given.rounds), flush=True)
    return 0


def row(program: str, depth: int, spins: int, requests: int, work_ns: int, rounds: int) -> str:
    """One depth."""
    ways = ("mailbox", "ring", "run")
    times: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(rounds):
        for way in ways if number % 2 else ways[::-1]:
            command = [program, way, *map(str, (depth, spins, requests, work_ns))]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            times[way].append(float(done.stdout))
    ratio = {
        way: statistics.median(
            one / mailbox for one, mailbox in zip(times[way], times["mailbox"], strict=True)
        )
        for way in ways
    }
    cells = [f"{way} {statistics.median(times[way]):8.0f} ({ratio[way]:.2f})" for way in ways]
    return f"  depth {depth:2}: " + "  ".join(cells)


if __name__ == "__main__":
    raise SystemExit(main())
