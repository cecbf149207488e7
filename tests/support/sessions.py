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
        for pid in set(children_of(os.getpid())) - before:
            # An orphan that has ended waits for its new parent, which is us. One that was killed may take a
            # moment to end.
            pidfd = os.pidfd_open(pid)
            ended = select.poll()
            ended.register(pidfd, select.POLLIN)
            if ended.poll(PATIENCE_S * 1000):
                os.waitpid(pid, 0)
            else:
                left.append(pid)
            os.close(pidfd)
