"""The processes of one running kvmbox: the spawner and the device processes."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from tests.support.waiting import wait_readable

DEVICE_TYPES = ("uart",)


def children_of(pid: int) -> list[int]:
    """The process ids of the children of `pid`."""
    found = []
    for name in os.listdir("/proc"):
        with suppress(OSError):
            if name.isdecimal() and parent_of(int(name)) == pid:
                found.append(int(name))
    return found


def parent_of(pid: int) -> int:
    """The process id of the parent of `pid`, which there must be."""
    # Field 4 of stat, after the name in parentheses (proc_pid_stat(5)).
    return int(Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()[1])


def descendants_of(pid: int) -> list[int]:
    """The process ids of the children of `pid`, and of theirs."""
    found = children_of(pid)
    return found + [below for child in found for below in descendants_of(child)]


def pidfds_of(pids: Iterable[int]) -> list[int]:
    """Of those that are still there: the first stage of a spawner ends while others are looked at."""
    found = []
    for pid in pids:
        with suppress(ProcessLookupError):
            found.append(os.pidfd_open(pid))
    return found


def title_of(pid: int) -> str:
    """What a process calls itself; empty if there is no such process any more."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().partition(b"\0")[0].decode()
    return ""


def device_processes(vmm: int) -> dict[int, str]:
    """The children of the one spawner of `vmm`, each with its name: "uart", "standby", …

    Those that are gone are left out.
    """
    # What gives files of the run their names, or removes them, is a child, too, and has none.
    (spawner,) = [pid for pid in children_of(vmm) if children_of(pid)]
    titles = {pid: title_of(pid) for pid in children_of(spawner)}
    return {pid: title.removeprefix("kvmbox: ") for pid, title in titles.items() if title}


class Family:
    """The spawner and device processes of one running kvmbox: taken once its guest runs."""

    def __init__(self, vmm: int) -> None:
        self.devices = {name: pid for pid, name in device_processes(vmm).items()}
        self.spawner = parent_of(self.devices["uart"])
        assert sorted(self.devices) == sorted(DEVICE_TYPES)
        self._pidfds = [os.pidfd_open(pid) for pid in (self.spawner, *self.devices.values())]

    def assert_gone(self) -> None:
        """All of them are dead and reaped: of a zombie, the pidfd could still be signalled."""
        for pidfd in self._pidfds:
            try:
                signal.pidfd_send_signal(pidfd, 0)
            except ProcessLookupError:
                continue
            raise AssertionError("a process outlived the run")

    def wait_dead(self) -> None:
        """Wait until all of them have exited, reaped or not."""
        for pidfd in self._pidfds:
            wait_readable(pidfd, "the death of a process of the run")

    def close(self) -> None:
        """Close the pidfds."""
        for pidfd in self._pidfds:
            os.close(pidfd)
