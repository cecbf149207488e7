"""A stand-in for the VMM: a process that confines itself as a run does, and in one of its threads the
payload.

It begins as a device process with no layer at all, which is as free as the VMM is at first. What it takes
then is what the VMM takes, by the same functions: the scope of signals, `confine_main`, and `confine_vcpu`
in the thread that stands for the vCPU's. Whoever has taken over a thread of the VMM is in the place of the
attack.
"""

from __future__ import annotations

import os
import sys
import threading

from kvmbox.jail import layers
from kvmbox.sandbox import scope, vmm
from kvmbox.tools.audit import payload, payload_frames

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

ENTRY: Final = "kvmbox.tools.audit.substitute_process:main"
MAIN: Final = "vmm-main"
VCPU: Final = "vmm-vcpu"
NEVER_S: Final = 1e6
"""A switch interval, in s, after which no attack is still running."""

THREADS: Final = (MAIN, VCPU)
"""The names of the VMM's threads, as `kvmbox policy` has them."""


def main(channel: int) -> int:
    """Make the attack that is asked for, in the thread that the request names, without the layers (a mask)
    that it names.
    """
    request = os.read(channel, payload_frames.MAXIMUM_REQUEST)
    if not request:
        return 0
    name, given = payload_frames.decode_request(request)
    without = int(given["without"])
    if not without & layers.VMM_SCOPES:
        scope.OWN.take()
    confinement = vmm.confine_main(without=without)
    if given["thread"] == MAIN:
        payload.attack(channel, channel, name, given, confinement.applied)
        return 0

    # An attack forks by a raw system call, and a child has only the thread that forked: if this thread
    # held the interpreter's lock at that moment, the child would wait for the lock for ever. No thread is
    # made to give up the lock; so the attack begins when this thread gives it up, to wait for the end.
    sys.setswitchinterval(NEVER_S)
    begin = threading.Lock()
    begin.acquire()

    def be_vcpu() -> None:
        begin.acquire()
        vmm.confine_vcpu(confinement)
        payload.attack(channel, channel, name, given, confinement.applied)

    thread = threading.Thread(target=be_vcpu)
    thread.start()
    begin.release()
    thread.join()
    return 0
