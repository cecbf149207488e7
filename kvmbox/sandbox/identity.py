"""The user and group id of the sandbox when kvmbox is started as root: numbers that own nothing.

Each VMM has a number of its own, so that its device processes are strangers to those of another VMM as they
are to every user of the host: made from the VMM's pid, in a range that systemd's list of user ids
(UIDS-GIDS) leaves to nobody. Where a container maps only a part of all ids, "nobody" has to do.
"""

from __future__ import annotations

import os

from kvmbox.sandbox import layers, linux

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

FIRST_ID: Final = 0x7000_0000
"""Pids are below 2**22, and nothing is given out from here to 0x7FFE_0000."""

NOBODY: Final = 65534
NOT_ROOT: Final = "kvmbox was not started as root"


def candidates(vmm_pid: int) -> tuple[int, int]:
    """The ids to try, best first."""
    return FIRST_ID + vmm_pid, NOBODY


def change(vmm_pid: int, without: int) -> None:
    """Become a user and a group of that number, in no other group. Raises OSError.

    Every capability is gone from what can be had again before the id changes, unless `without` has
    layers.CAPABILITIES: afterwards that takes a right which a plain user does not have. The death signal
    and the dumpable flag are cleared by this: set them later.
    """
    if os.geteuid() != 0:
        raise OSError(NOT_ROOT)
    if not without & layers.CAPABILITIES:
        linux.bound_capabilities()
    _call("setgroups", lambda: os.setgroups(()))
    *others, last = candidates(vmm_pid)
    for number in others:
        try:
            _become(number)
        except OSError:
            continue  # EINVAL: not mapped in this user namespace
        return
    _become(last)


def _become(number: int) -> None:
    _call("setresgid", lambda: os.setresgid(number, number, number))
    _call("setresuid", lambda: os.setresuid(number, number, number))


def _call(name: str, call: Callable[[], None]) -> None:
    try:
        call()
    except OSError as error:
        raise OSError(error.errno, f"{name}: {error.strerror}") from error
