"""What the code saves that is there only to be faster or smaller: runs with and without it, in pairs.

python tools/tricks.py                       # every trick
python tools/tricks.py bundle --pairs 100    # one of tools/tricks.toml, which says how to do without it

A pair is a run with the trick and one without it, in alternating order. Printed are medians: what the run
without it takes more, and what the run with it takes. Wall time and CPU time (of the process, and of children
that were waited for) are in ms, memory (PSS of all its processes while the guest spins) in MiB.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any, Final

PROJECT: Final = Path(__file__).resolve().parent.parent
TRICKS: Final = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
WHERE: Final = ("everywhere", "start", "late")
MIB_IN_KIB: Final = 1024
SPIN: Final = ("spin", "--timeout", "30")
"""A guest that is ended from outside, and uses no device."""
SETTLED_S: Final = 0.8

RUN: Final = """
import gc, os, sys
gc.disable()
everywhere, start, late = sys.argv[1:4]
del sys.argv[1:4]
from kvmbox.base import bytecode
exec(everywhere)
from kvmbox.cli import entry
exec(start)
spawn, work = os.posix_spawn, entry._work
def posix_spawn(path, words, *rest, **more):
    code = words[-1].replace("bytecode.use();", f"exec({everywhere!r}); bytecode.use();")
    return spawn(path, [*words[:-1], code], *rest, **more)
def changed_work():
    if late:
        bytecode.load("run")
        exec(late, {})
    return work()
os.posix_spawn, entry._work = posix_spawn, changed_work
entry.entry_point()
"""
"""The command `kvmbox`, changed."""

WARM: Final = """
import sys, time
exec(sys.argv[3])
from kvmbox.tools.warm.pool import WarmPool
with WarmPool(1) as pool:
    for _ in range(int(sys.argv[4])):
        time.sleep(0.1)  # what may be prepared is prepared meanwhile
        assert pool.submit({"image": "hello32"}).result().status == 0
"""


def started(trick: dict[str, Any], guest: tuple[str, ...], *, on: bool) -> subprocess.Popen[bytes]:
    """A run with the trick, or without it."""
    codes = ["" if on else trick.get(where, "") for where in WHERE]
    words = [WARM, *codes, str(trick["boots"])] if "boots" in trick else [RUN, *codes, "run", *guest]
    return subprocess.Popen(
        [sys.executable, "-c", *words, *([] if on else trick.get("options", []))],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        env=os.environ | ({} if on else trick.get("environment", {})),
        cwd=PROJECT,
    )


def times(trick: dict[str, Any], *, on: bool) -> tuple[float, ...]:
    """Wall and CPU time of a run that ends well."""
    began = time.monotonic()
    process = started(trick, tuple(trick.get("guest", ["hello32"])), on=on)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, "the run failed"
    return 1e3 * (time.monotonic() - began), 1e3 * (used.ru_utime + used.ru_stime)


def memory(trick: dict[str, Any], *, on: bool) -> tuple[float, ...]:
    """The PSS of a run and all its processes."""
    process = started(trick, SPIN, on=on)
    time.sleep(SETTLED_S)
    family, found = {process.pid}, 0
    for path in sorted(Path("/proc").glob("[0-9]*"), key=lambda one: int(one.name)):
        try:
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            if int(path.name) in family or parent in family:
                family.add(int(path.name))
                found += int((path / "smaps_rollup").read_text().partition("\nPss:")[2].split()[0])
        except (OSError, IndexError):  # it has ended
            pass
    process.terminate()
    process.wait()
    return (found / MIB_IN_KIB,)


def main() -> None:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(TRICKS))
    parser.add_argument("--pairs", type=int, default=40, help="for times")
    parser.add_argument("--memory", type=int, default=9, help="pairs for memory")
    asked = parser.parse_args()
    print(f"{'trick':18}{'wall ms':>9}{'CPU ms':>9}{'PSS MiB':>9}   of a run with it")
    for name in asked.names or TRICKS:
        trick, saved, usual = TRICKS[name], "", []
        for measure, count in ((times, asked.pairs), (memory, 0 if "boots" in trick else asked.memory)):
            found = []
            for number in range(count):
                pair = {on: measure(trick, on=on) for on in (number % 2 == 0, number % 2 != 0)}
                found.append((pair[True], pair[False]))
            for place in range(len(found[0][0]) if found else 0):
                saved += f"{statistics.median(off[place] - on[place] for on, off in found):9.2f}"
                usual.append(f"{statistics.median(on[place] for on, _ in found):.1f}")
        print(f"{name:18}{saved:27}   {', '.join(usual)}", flush=True)


if __name__ == "__main__":
    main()
