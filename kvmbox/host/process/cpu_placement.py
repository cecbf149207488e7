"""The choice of the CPU that the first vCPU thread and the device processes share.

A request to a process on the same CPU costs one switch there and one switch back. Across CPUs each side has
to be woken, which costs several times as much (docs/adr: CPU placement). So both sides of a machine share one
CPU, and several machines use different CPUs of those that the caller may use.

Machines coordinate without a daemon or a file. A machine claims a CPU by binding an abstract Unix socket,
whose name disappears with its owner. Another user could claim names as well. Then a machine only gets a worse
CPU.

Further vCPUs are not bound. The kernel's scheduler runs one that computes where there is room, and pulls one
that asks devices towards their CPU. Bound to CPUs of their own, two vCPUs that both ask devices took 2 to 3
times as long (docs/adr: processors).

With shared memory a device process spins on another CPU, a spare one. No spare CPU is claimed: the kernel's
scheduler chooses one that is idle, and a spinner that is not alone there goes back
(`remote.process.spin_permits`).
"""

from __future__ import annotations

import _socket as socket  # the module of that name adds enumerations, and 1.5 ms to import them
import os
from typing import Final

from kvmbox.base.errors import UsageError

MAX_SHARERS: Final = 64
"""How many machines may count on one CPU before placement gives up counting."""


class Placement:
    """`cpu` is the number of the shared CPU, None where the kernel's scheduler decides, and `spares` are the
    others. `allowed` is how many CPUs there are to decide between, `vcpus` how many vCPUs the machine has.
    """

    def __init__(
        self, cpu: int | None, allowed: list[int], vcpus: int, claim: socket.socket | None = None
    ) -> None:
        self.cpu = cpu
        self.vcpus = vcpus
        self.spares = frozenset(allowed) - {cpu}
        self.allowed = len(allowed)
        self._claim = claim

    @property
    def has_room_to_spin(self) -> bool:
        """Whether there is a CPU for more than the vCPUs."""
        return self.allowed > self.vcpus

    def close(self) -> None:
        """Give the claim back. Idempotent."""
        if self._claim is not None:
            self._claim.close()
            self._claim = None


def place(choice: str, vcpus: int = 1) -> Placement:
    """Place a machine with so many vCPUs. `choice` is "auto", "none" or a CPU number; UsageError if it is
    none of these or not ours to use.
    """
    allowed = sorted(os.sched_getaffinity(0))
    if choice == "none":
        return Placement(None, allowed, vcpus)
    if choice == "auto":
        return _claim_one(allowed, vcpus)
    if not choice.isdecimal():
        raise UsageError(f"--pin '{choice}' is neither auto, none nor a CPU number")
    if int(choice) not in allowed:
        raise UsageError(
            f"--pin {choice}: this process may not run on CPU {choice}",
            hint=f"allowed: {', '.join(map(str, allowed))}",
        )
    return Placement(int(choice), allowed, vcpus)


def _claim_one(allowed: list[int], vcpus: int) -> Placement:
    # All CPUs with no machine first, then those with one, and so on.
    for sharers in range(MAX_SHARERS):
        for cpu in allowed:
            claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            try:
                claim.bind(f"\0kvmbox/cpu{cpu}/{sharers}")
            except OSError:
                claim.close()
                continue
            return Placement(cpu, allowed, vcpus, claim)
    return Placement(allowed[0], allowed, vcpus)
