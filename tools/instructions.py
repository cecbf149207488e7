#!/usr/bin/env python3
"""How many instructions kvmbox's own process executes between two KVM_RUNs, counted by valgrind.

    python tools/instructions.py        # a minute or two

Exits are replayed from memory, as `kvmbox bench --exit none` does it, so no KVM is needed. The count for an
access hardly differs from run to run, on a busy host too. The instructions of device processes and of the
kernel are not among them. Over `shm` the count would depend on how long the VMM spins.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from kvmbox.tools.bench.replay_script import ACCESSES
from kvmbox.tools.bench.replayed import path_to

IPCS: Final = ("none", "pipe", "socketpair")
TIMES: Final = 2000
MARK: Final = "getppid"
"""callgrind writes what it has counted whenever this function of libc is called."""


def replay() -> None:
    """What runs under valgrind: a count for the accesses, once and twice as often, of each kind."""
    contexts = [path_to(ipc) for ipc in IPCS]
    for path in [context.__enter__() for context in contexts]:
        for access in ACCESSES:
            path.time(access, TIMES)  # caches of the interpreter, routes
            for times in (TIMES, 2 * TIMES):
                os.getppid()
                path.time(access, times)
                os.getppid()
    os._exit(0)  # valgrind knows no pidfd_send_signal, by which processes are ended


def counts(folder: Path) -> list[int]:
    """What was counted in front of each mark."""
    files = sorted(folder.glob("out.*"), key=lambda file: int(file.suffix[1:]))
    return [
        int(line.split()[1])
        for file in files
        for line in file.read_text().splitlines()
        if line.startswith("totals:")
    ]


def table(found: Sequence[int]) -> Iterator[str]:
    """The lines of the table, of the counts in front of four marks for each access."""
    yield f"{'instructions of the VMM for one':35}" + "".join(f"{ipc:>12}" for ipc in IPCS)
    for row, access in enumerate(ACCESSES):
        places = [4 * (column * len(ACCESSES) + row) for column in range(len(IPCS))]
        cells = [(found[at + 3] - found[at + 1]) / TIMES for at in places]
        yield f"{access.title:35}" + "".join(f"{cell:12.0f}" for cell in cells)


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as name:
        options = ("--tool=callgrind", f"--dump-before={MARK}", f"--callgrind-out-file={name}/out")
        command = ["valgrind", "--quiet", *options, sys.executable, __file__, "replay"]
        subprocess.run(command, check=True, env={**os.environ, "PYTHONHASHSEED": "0"})
        print(*table(counts(Path(name))), sep="\n")


if __name__ == "__main__":
    replay() if sys.argv[1:] else main()
