"""The decoy: a process of audit's own, unconfined as the VMM, for attacks to be aimed at.

It holds one secret three times, in its environment, in its memory and behind a descriptor; tells where, as
one line; writes SIGNALLED for each SIGUSR1; and leaves when its stdin ends or whoever started it is gone.
It answers a byte on stdin with ANSWER, behind the signals that were sent before that byte: so nobody has to
guess how long a signal takes.
"""

from __future__ import annotations

import ctypes
import os
import select

from kvmbox.jail import linux

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

VARIABLE: Final = "KVMBOX_AUDIT"
SIGUSR1: Final = 10
SYS_PRCTL: Final = 157
PR_SET_PTRACER: Final = 0x5961_6D61
ANY_PROCESS: Final = 0xFFFF_FFFF_FFFF_FFFF
SIGNALLED: Final = b"!"
ANSWER: Final = b"."


def main(parent_pid: int) -> None:
    """The life of the decoy."""
    linux.die_with_parent(parent_pid)
    # Where Yama lets only parents trace, the attack must not fail for that reason.
    linux.raw_syscall(SYS_PRCTL, PR_SET_PTRACER, ANY_PROCESS)
    secret = os.environb[VARIABLE.encode()]
    held = ctypes.create_string_buffer(secret, len(secret))
    descriptor = os.memfd_create("secret")
    os.write(descriptor, secret)
    os.lseek(descriptor, 0, os.SEEK_SET)
    linux.block_signals(SIGUSR1)
    signals = linux.signal_descriptor(SIGUSR1)
    # SAFETY: the address of a buffer that lives as long as this function.
    os.write(1, b"%d %d\n" % (ctypes.addressof(held), descriptor))
    poller = select.poll()
    poller.register(0, select.POLLIN)  # first: a signal that came before the byte is then seen with it
    poller.register(signals, select.POLLIN)
    while True:
        ready = dict(poller.poll())
        if signals in ready:
            os.read(signals, linux.SIGNALFD_SIGINFO_SIZE)
            os.write(1, SIGNALLED)
        if 0 in ready:
            if not os.read(0, 1):
                return
            os.write(1, ANSWER)
