"""A CPU quota is found in either version of cgroups, on the process's own level or above."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvmbox.tools.audit.accounting import cpu_limited

PID = 7


def make(tmp_path: Path, membership: str, files: dict[str, str]) -> bool:
    (tmp_path / "proc" / str(PID)).mkdir(parents=True)
    (tmp_path / "proc" / str(PID) / "cgroup").write_text(membership)
    for name, text in files.items():
        path = tmp_path / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return cpu_limited(PID, proc=tmp_path / "proc", cgroups=tmp_path / "cgroup")


@pytest.mark.parametrize(
    ("membership", "files", "limited"),
    [
        ("0::/a/b\n", {"a/b/cpu.max": "50000 100000\n"}, True),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n"}, False),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "100 100000\n"}, True),
        ("0::/a/b\n", {"other/cpu.max": "100 100000\n"}, False),
        ("0::/a/b\n", {"a/b/cpu.max": ""}, False),
        ("2:cpu,cpuacct:/x\n", {"cpu,cpuacct/x/cpu.cfs_quota_us": "5000\n"}, True),
        ("2:cpu:/x\n", {"cpu/x/cpu.cfs_quota_us": "-1\n"}, False),
        ("2:memory:/x\n", {"cpu/x/cpu.cfs_quota_us": "5000\n"}, False),
        ("0::/\n", {}, False),
    ],
)
def test_cpu_quota_is_found_where_it_is(
    tmp_path: Path, membership: str, files: dict[str, str], limited: bool
) -> None:
    assert make(tmp_path, membership, files) is limited


def test_cpu_quota_of_a_process_that_is_gone_is_none(tmp_path: Path) -> None:
    assert not cpu_limited(PID, proc=tmp_path, cgroups=tmp_path)
