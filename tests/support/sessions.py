"""What a command leaves behind: its orphans, whatever session they have made for themselves."""

from __future__ import annotations

import ctypes
import os
import select
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.family import children_of
from tests.support.waiting import PATIENCE_S

PR_SET_CHILD_SUBREAPER = 36


@contextmanager
def adoption() -> Iterator[list[int]]:
    """Orphans of what is started meanwhile become children of this process; the list has those that are left.

    The list is filled at the end. Nothing else may be started meanwhile.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    before = set(children_of(os.getpid()))
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")
    left: list[int] = []
    try:
        yield left
    finally:
        libc.prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
        # An orphan that has ended waits for its new parent, which is us. One that was killed may take a
        # moment to end. They are reaped as they end: the first process of a PID namespace is the last to.
        waiting = {os.pidfd_open(pid): pid for pid in set(children_of(os.getpid())) - before}
        ended = select.poll()
        for pidfd in waiting:
            ended.register(pidfd, select.POLLIN)
        while waiting and (ready := ended.poll(PATIENCE_S * 1000)):
            for pidfd, _ in ready:
                os.waitpid(waiting.pop(pidfd), 0)
                ended.unregister(pidfd)
                os.close(pidfd)
        for pidfd, pid in waiting.items():
            left.append(pid)
            os.close(pidfd)
