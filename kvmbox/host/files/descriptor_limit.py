"""How many descriptors this process may have: raised as far as kvmbox needs, or refused in words."""

from __future__ import annotations

import resource
from typing import Final

from kvmbox.base.errors import StartError

NEEDED: Final = 128
"""A channel, a pidfd and a listener for each device process, doorbells, the virtual machine, files."""

REMEDY: Final = f"raise the limit: 'ulimit -n {NEEDED}', or LimitNOFILE= of a systemd unit"


def allow_enough() -> None:
    """Raise the soft limit to NEEDED. StartError if the hard limit is below that."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < NEEDED:
        if not enough()[0]:
            raise StartError(f"kvmbox may open {hard} files, and needs {NEEDED}", hint=REMEDY)
        resource.setrlimit(resource.RLIMIT_NOFILE, (NEEDED, hard))


def enough() -> tuple[bool, str]:
    """Whether there are enough, and how many, for `kvmbox doctor`."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        return True, "any number"
    return hard >= NEEDED, f"{hard} may be open, {NEEDED} are needed"
