"""Whether a cgroup bounds the CPU time of a process: the one bound that no layer of the sandbox gives."""

from __future__ import annotations

from pathlib import Path
from typing import Final

CGROUPS: Final = Path("/sys/fs/cgroup")


def cpu_limited(pid: int, *, proc: Path = Path("/proc"), cgroups: Path = CGROUPS) -> bool:
    """Whether process `pid`, or a cgroup above it that can be seen here, has a CPU quota (v1 or v2)."""
    try:
        lines = (proc / str(pid) / "cgroup").read_text().splitlines()
    except OSError:
        return False
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            places = ((cgroups, "cpu.max"), (cgroups / "unified", "cpu.max"))
        elif "cpu" in controllers.split(","):
            places = ((cgroups / "cpu", "cpu.cfs_quota_us"), (cgroups / controllers, "cpu.cfs_quota_us"))
        else:
            continue
        if any(_limited_on_the_way(root, path, name) for root, name in places):
            return True
    return False


def _limited_on_the_way(root: Path, path: str, name: str) -> bool:
    here = root / path.lstrip("/")
    while here != root.parent:
        try:
            quota = (here / name).read_text().split()[0]
        except (OSError, IndexError):
            quota = "max"
        if quota not in ("max", "-1"):
            return True
        here = here.parent
    return False
