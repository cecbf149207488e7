"""Device processes that start in the midst of a run: those of devices that the guest had not used before.

`on_demand` says when that is. The thread that makes the first request orders the process, as a thread
that replaces a lost one does, and the main thread watches it from then on.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from kvmbox.errors import SandboxError
from kvmbox.lean import Value
from kvmbox.remote.spawner_client import DeviceProcess
from kvmbox.remote.transport import Link


class Member(Protocol):
    """One process of the machine: see `pool.PoolMember`."""

    process: Any
    link: Link | None


class Processes(Protocol):
    """All processes of the machine: see `pool.DevicePool`."""

    @property
    def members(self) -> Mapping[str, Member]:
        """By name."""
        ...

    def make_link(self) -> Link:
        """A link as the machine's design wants it."""
        ...

    def spawn(self, name: str, link: Link) -> DeviceProcess:
        """Ask for one more process."""
        ...

    def wait_for(self, process: DeviceProcess) -> None:
        """Wait until it is jailed."""
        ...


class Start(Value):
    """One start: when it began, in ns of the host's monotonic clock, and how long it took, in ns, until the
    process was jailed, or had `failed`.
    """

    at: int
    took: int
    failed: bool


def _nothing() -> None:
    """Do nothing."""


class ProcessStarts:
    """Implements `on_demand.Starts` for the channels of a pool."""

    def __init__(self, pool: Processes, news: threading.Event | None = None) -> None:
        """`news` is what a start sets for the main thread; a new event by default."""
        self.names: list[str] = []
        """The processes that start when they are needed."""
        self.made: dict[str, Start] = {}
        """The starts of those that were needed, in that order."""
        self.pause_time: Callable[[], None] = _nothing
        self.resume_time: Callable[[], None] = _nothing
        self._pool = pool
        self._wake: Callable[[], None] = _nothing
        self._news = news or threading.Event()

    def attend(
        self, *, pause_time: Callable[[], None], resume_time: Callable[[], None], wake: Callable[[], None]
    ) -> None:
        """Before the first request: what stops and continues guest time while a process starts, and what
        wakes the main thread when it has.
        """
        self.pause_time, self.resume_time, self._wake = pause_time, resume_time, wake

    def start(self, name: str) -> Link:
        """See Starts. On any thread."""
        began = time.monotonic_ns()
        failed = True
        try:
            link = self._started(name, self._pool.members[name])
            failed = False
            return link
        finally:
            self.made[name] = Start(began, time.monotonic_ns() - began, failed)
            self._news.set()
            self._wake()

    def _started(self, name: str, member: Member) -> Link:
        # In place of one that cannot even be ordered: whoever looks for it finds that it never was.
        member.process = DeviceProcess(name)
        link = self._pool.make_link()
        try:
            # Known before it is waited for: the main thread may have to kill it.
            member.process = process = self._pool.spawn(name, link)
            self._pool.wait_for(process)
        except SandboxError:
            link.close_vmm_end()
            raise
        member.link = link
        return link

    def take_news(self) -> bool:
        """Whether a process has started since the last call. By the main thread."""
        if not self._news.is_set():
            return False  # and nothing is cleared: a process may start just now
        self._news.clear()
        return True
