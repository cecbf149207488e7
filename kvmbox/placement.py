"""Which CPU the vCPU thread and its device processes share.

A request to a process on the same CPU costs one switch there and one back; across CPUs each side has to be
woken, which costs several times as much (docs/adr: CPU placement). So both sides of a machine share one
CPU, and machines spread over the CPUs that the caller was given.

Machines find each other without a daemon or a file: a machine claims a CPU by binding an abstract Unix
socket, whose name is gone when its owner is. Another user could claim names as well; that costs a machine
its better place, and nothing else.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from typing import Final

from kvmbox.errors import UsageError

MAX_SHARERS: Final = 64
"""How many machines may count on one CPU before placement gives up counting."""


@dataclass(slots=True)
class Placement:
    """`cpu` is the number of the shared CPU, or None where the kernel's scheduler decides."""

    cpu: int | None
    _claim: socket.socket | None = None

    def close(self) -> None:
        """Give the claim back. Idempotent."""
        if self._claim is not None:
            self._claim.close()
            self._claim = None


def place(choice: str) -> Placement:
    """`choice` is "auto", "none" or a CPU number; UsageError if it is none of these or not ours to use."""
    allowed = sorted(os.sched_getaffinity(0))
    if choice == "none":
        return Placement(None)
    if choice == "auto":
        return _claim_one(allowed)
    if not choice.isdecimal():
        raise UsageError(f"--pin '{choice}' is neither auto, none nor a CPU number")
    if int(choice) not in allowed:
        raise UsageError(
            f"--pin {choice}: this process may not run on CPU {choice}",
            hint=f"allowed: {', '.join(map(str, allowed))}",
        )
    return Placement(int(choice))


def _claim_one(allowed: list[int]) -> Placement:
    # All CPUs with no machine first, then those with one, and so on.
    for sharers in range(MAX_SHARERS):
        for cpu in allowed:
            claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            try:
                claim.bind(f"\0kvmbox/cpu{cpu}/{sharers}")
            except OSError:
                claim.close()
                continue
            return Placement(cpu, claim)
    return Placement(allowed[0])
