"""How much memory a process and its descendants take.

PSS divides each page by the number of processes that map it, on the whole host: another Python that happens
to run makes every Python look smaller, the one that measures included. `alone` therefore counts, through
/proc/PID/pagemap, the page frames that the family maps, each once: what the same processes would take with
nobody to share with. It needs CAP_SYS_ADMIN; both need to be root, or the owner of dumpable processes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from kvmbox.tools.bench.child import MeasurementError

PAGE: Final = os.sysconf("SC_PAGESIZE")
_ENTRY: Final = 8
_PRESENT: Final = 1 << 63
_FRAME: Final = (1 << 55) - 1
_BATCH: Final = 1 << 16
_PROC: Final = Path("/proc")
_USER_END: Final = 1 << 47
"""vsyscall lies behind it, and has no page map."""


def family(pid: int) -> list[int]:
    """`pid` and all of its descendants."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir(_PROC):
        if entry.isdecimal():
            try:
                # Behind the name in parentheses: state, then the parent (proc_pid_stat(5)).
                parent = int((_PROC / entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, IndexError, ValueError):
                continue
            children.setdefault(parent, []).append(int(entry))
    found = [pid]
    for one in found:
        found += children.get(one, [])
    return found


def _each(pids: Iterable[int], read: Callable[[int], None]) -> None:
    """`read` each of them. One that has ended meanwhile takes nothing; MeasurementError for anything else."""
    alive = 0
    for pid in pids:
        try:
            read(pid)
        except (FileNotFoundError, ProcessLookupError):
            continue
        except (OSError, ValueError) as error:
            why = f"{error.strerror}; try as root" if isinstance(error, OSError) else str(error)
            raise MeasurementError(f"cannot read the memory of process {pid}: {why}") from error
        alive += 1
    if not alive:
        raise MeasurementError("the process has ended before its memory was read")


def parse_pss(rollup: str) -> int:
    """Bytes of PSS in the text of smaps_rollup; ValueError if it has none."""
    found = re.search(r"^Pss:\s+(\d+) kB$", rollup, re.MULTILINE)
    if found is None:
        raise ValueError("smaps_rollup without Pss")
    return int(found[1]) * 1024


def pss(pids: Iterable[int]) -> int:
    """Bytes of PSS of all of them. MeasurementError if it cannot be read."""
    found: list[int] = []
    _each(pids, lambda pid: found.append(parse_pss((_PROC / str(pid) / "smaps_rollup").read_text())))
    return sum(found)


def frames(entries: bytes) -> Iterator[int]:
    """The page frames of the entries that are present in RAM; 0 where the kernel hides the number."""
    for entry in memoryview(entries).cast("Q"):
        if entry & _PRESENT:
            yield entry & _FRAME


def _frames_of(pid: int) -> Iterator[int]:
    with (_PROC / str(pid) / "pagemap").open("rb", buffering=0) as pagemap:
        for line in (_PROC / str(pid) / "maps").read_text().splitlines():
            start, end = (int(text, 16) for text in line.split(maxsplit=1)[0].split("-"))
            if end > _USER_END:
                continue
            for first in range(start // PAGE, end // PAGE, _BATCH):
                count = min(_BATCH, end // PAGE - first)
                yield from frames(os.pread(pagemap.fileno(), count * _ENTRY, first * _ENTRY))


def alone(pids: Iterable[int]) -> int:
    """Bytes of the page frames that they map, each counted once. MeasurementError if it cannot be read."""
    seen: set[int] = set()
    _each(pids, lambda pid: seen.update(_frames_of(pid)))
    if 0 in seen:
        raise MeasurementError("page frame numbers are hidden; try as root")
    return len(seen) * PAGE
