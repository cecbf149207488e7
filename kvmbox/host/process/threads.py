"""The start of a thread, which the host may refuse, and what a refusal of memory comes from."""

from __future__ import annotations

import mmap
import resource
from collections.abc import Callable
from typing import Final

from kvmbox.base.errors import KvmboxError

BYTES_PER_MIB: Final = 1 << 20

ADDRESS_SPACE: Final = resource.getrlimit(resource.RLIMIT_AS)[0]
"""The limit of address space in bytes, or RLIM_INFINITY. A confined VMM may not ask for it."""


ROOM: Final = 10 * BYTES_PER_MIB
"""What a thread takes of the address space until it runs: a stack of 8 MiB, and its first objects."""


def start_thread(start: Callable[[], object], what: str) -> None:
    """Start a thread by `start`; errors call it `what`. Raises KvmboxError if the host has no room for it."""
    try:
        if ADDRESS_SPACE != resource.RLIM_INFINITY:
            # A thread that has a stack and no more dies unseen, and `start` waits for it for ever.
            mmap.mmap(-1, ROOM).close()
        start()
    except OSError as error:
        raise KvmboxError(f"cannot start {what}: {error.strerror}", hint=why_no_memory()) from error
    except RuntimeError as error:
        raise KvmboxError(f"cannot start {what}: {error}", hint=why_no_thread()) from error


def why_no_thread(address_space: int = ADDRESS_SPACE) -> str:
    """The limit that most likely refuses a thread, as a hint."""
    return why_no_memory(address_space) or (
        "the limit of threads may be reached: look at ulimit -u and at pids.max of the cgroup"
    )


def why_no_memory(address_space: int = ADDRESS_SPACE) -> str | None:
    """The limit that refuses memory to this process alone, as a hint; None if there is none."""
    if address_space == resource.RLIM_INFINITY:
        return None
    limit = f"address space is limited to {address_space // BYTES_PER_MIB} MiB (ulimit -v)"
    return f"{limit}: raise the limit, or ask for less with --memory"
