#!/usr/bin/env python3
"""How many instructions kvmbox's own process executes between two KVM_RUNs, counted by valgrind.

    python tools/instructions.py           # a minute or two
    python tools/instructions.py --peer    # QEMU as well: some five minutes more, and needs /dev/kvm

Exits are replayed from memory, as `kvmbox bench --exit none` does it, so no KVM is needed. The count for an
access hardly differs from run to run, on a busy host too. The instructions of device processes and of the
kernel are not among them. Over `shm` the count would depend on how long the VMM spins.

QEMU runs the same accesses of the guest `bench` under valgrind. All of its threads are counted.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from kvmbox.boot import bundled
from kvmbox.tools.bench import peer
from kvmbox.tools.bench.replay_script import ACCESSES
from kvmbox.tools.bench.replayed import path_to

IPCS: Final = ("none", "pipe", "socketpair")
TIMES: Final = 2000
PEER_WORDS: Final = (
    "inb_from_device",
    "thr_polled",
    "thr_only",
    "debugcon",
    "rtc_read",
    "inl_from_device",
    "outb_to_device",
    "thr_irq",
    "thr_irq",
)
"""The tests of the guest `bench` that make these accesses, in the order of `ACCESSES`."""

MARK: Final = "getppid"
"""callgrind writes what it has counted whenever this function of libc is called."""


def replay() -> None:
    """What runs under valgrind: a count for the accesses, once and twice as often, of each kind."""
    contexts = [path_to(ipc) for ipc in IPCS]
    for path in [context.__enter__() for context in contexts]:
        for access in ACCESSES:
            path.play(access, TIMES)  # caches of the interpreter, routes
            for times in (TIMES, 2 * TIMES):
                os.getppid()
                path.play(access, times)
                os.getppid()
    os._exit(0)  # valgrind knows no pidfd_send_signal, by which processes are ended


def counts(folder: Path) -> list[int]:
    """What was counted in front of each mark, and behind the last one."""
    files = sorted(folder.glob("out*"), key=lambda file: int(file.suffix[1:] or sys.maxsize))
    return [
        int(line.split()[1])
        for file in files
        for line in file.read_text().splitlines()
        if line.startswith("totals:")
    ]


def count(command: Sequence[str], *options: str, status: int = 0) -> list[int]:
    """Run `command` under callgrind; it has to end with `status`."""
    with tempfile.TemporaryDirectory() as name:
        callgrind = (
            "valgrind",
            "--tool=callgrind",
            f"--callgrind-out-file={name}/out",
            f"--log-file={name}/log",
        )
        environment = {**os.environ, "PYTHONHASHSEED": "0"}
        words = [*callgrind, *options, *command]
        try:
            done = subprocess.run(words, stdout=subprocess.DEVNULL, env=environment, check=False)
        except OSError as error:
            sys.exit(f"cannot start valgrind: {error.strerror}")
        if done.returncode != status:
            sys.exit(f"{command[0]} ended with status {done.returncode} under valgrind, not {status}")
        return counts(Path(name))


def columns(found: Sequence[int]) -> Iterator[list[float]]:
    """The counts of each ipc, an access after the other: each is of those in front of four marks."""
    each = [(found[at + 3] - found[at + 1]) / TIMES for at in range(0, len(found) - 3, 4)]
    for first in range(0, len(each), len(ACCESSES)):
        yield each[first:][: len(ACCESSES)]


def column_of_qemu() -> Iterator[float]:
    """The counts of QEMU: each is the difference of two runs of the guest."""
    for word in PEER_WORDS:
        once, twice = (
            sum(count(peer.command(str(bundled.find("bench")), [f"{word}={times}"]), status=peer.ENDED))
            for times in (TIMES, 2 * TIMES)
        )
        yield (twice - once) / TIMES


def table(found: Sequence[tuple[str, Sequence[float]]]) -> Iterator[str]:
    """The lines of the table, of columns with their names."""
    yield f"{'instructions of the VMM for one':40}" + "".join(f"{name:>12}" for name, _ in found)
    for row, access in enumerate(ACCESSES):
        yield f"{access.title:40}" + "".join(f"{cells[row]:12.0f}" for _, cells in found)


def main(arguments: Sequence[str]) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer", action="store_true", help="count QEMU's instructions as well")
    with_peer = parser.parse_args(arguments).peer
    marked = count([sys.executable, __file__, "replay"], f"--dump-before={MARK}")
    found = list(zip(IPCS, columns(marked), strict=True))
    if with_peer:
        found.append(("QEMU", list(column_of_qemu())))
    print(*table(found), sep="\n")


if __name__ == "__main__":
    replay() if sys.argv[1:] == ["replay"] else main(sys.argv[1:])
