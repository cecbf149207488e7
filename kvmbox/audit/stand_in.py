"""A stand-in for the VMM: a process that confines itself as a run does, and in one of its threads the
payload.

It begins as a device process with no layer at all, which is as free as the VMM is at first. What it takes
then is what the VMM takes, by the same functions: the scope of signals, `confine_main`, and `confine_vcpu`
in the thread that stands for the vCPU's. Whoever has taken over a thread of the VMM is in the place of the
attack.
"""

from __future__ import annotations

import os
import threading

from kvmbox.audit import payload, wire
from kvmbox.sandbox import layers, scope, vmm

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

ENTRY: Final = "kvmbox.audit.stand_in:main"
MAIN: Final = "vmm-main"
VCPU: Final = "vmm-vcpu"
THREADS: Final = (MAIN, VCPU)
"""The names of the VMM's threads, as `kvmbox policy` has them."""


def main(channel: int) -> int:
    """Make the attack that is asked for, in the thread that the request names, without the layers (a mask)
    that it names.
    """
    request = os.read(channel, wire.MAXIMUM_REQUEST)
    if not request:
        return 0
    name, given = wire.decode_request(request)
    without = int(given["without"])
    if not without & layers.VMM_SCOPES:
        scope.OWN.take()
    confinement = vmm.confine_main(without=without)
    if given["thread"] == MAIN:
        payload.attack(channel, channel, name, given, confinement.applied)
        return 0

    def be_vcpu() -> None:
        vmm.confine_vcpu(confinement)
        payload.attack(channel, channel, name, given, confinement.applied)

    thread = threading.Thread(target=be_vcpu)
    thread.start()
    thread.join()
    return 0
