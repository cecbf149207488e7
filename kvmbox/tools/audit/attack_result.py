"""How one attack ended, in values and in words, and which layer that was the doing of."""

from __future__ import annotations

import enum
import errno
import signal
from collections.abc import Mapping
from typing import Final

from kvmbox.base.value_classes import Value
from kvmbox.jail import layers
from kvmbox.jail.linux import SECCOMP_MODE_STRICT


class Ended(enum.Enum):
    """The ways in which an attack can end. The values are those of the JSON report."""

    FINISHED = "finished"
    """Every system call that it made succeeded; whether it got anything by that is another question."""
    REFUSED = "refused"
    """The VMM's channel took none of it: no layer's doing, but that of its checks."""
    FAILED = "errno"
    FORBIDDEN = "forbidden"
    """A call that the filter holds; the process was killed."""
    KILLED = "signal"
    EXITED = "exit"
    SILENT = "silent"
    """Neither an answer nor a death in time."""
    UNBEGUN = "unbegun"
    """It died before it began: the payload's fault, not the sandbox's merit."""


class Result(Value):
    """One attack in one device process.

    `call` is the system call that ended it, `number` its errno, the signal or the exit status; `layers` were
    in force, `effective` says whether the attack got what it was after, as seen from outside. `pid` is the
    process as audit sees it.
    """

    ended: Ended
    layers: int
    effective: bool = False
    call: str = ""
    number: int = 0
    evidence: bytes = b""
    pid: int = 0

    @property
    def manner(self) -> tuple[Ended, str, int]:
        """What two results have in common that were stopped by the same thing."""
        return self.ended, self.call, self.number

    def __str__(self) -> str:
        after = f" after {self.evidence.decode(errors='replace')}" if self.evidence else ""
        match self.ended:
            case Ended.FINISHED:
                return "succeeded" if self.effective else "came to nothing"
            case Ended.REFUSED:
                return self.evidence.decode(errors="replace")
            case Ended.FAILED if self.number == 0:
                return f"{self.call}: {self.evidence.decode(errors='replace')}"
            case Ended.FAILED:
                return f"{self.call}: {errno.errorcode.get(self.number, self.number)}{after}"
            case Ended.FORBIDDEN:
                return f"killed at {self.call}"
            case Ended.KILLED:
                return f"killed by {_signal_name(self.number)}"
            case Ended.EXITED:
                return "succeeded" if self.effective else f"exited with status {self.number}"
            case Ended.SILENT:
                return "no answer in time"
            case Ended.UNBEGUN:
                return "never began"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


class ProbeVerdict(enum.Enum):
    """What a result means. The values are those of the JSON report, and what tables show."""

    CONTAINED = "contained"
    ESCAPED = "ESCAPED"
    OPEN = "not contained"
    """Known and documented: no layer claims to stop this."""
    IMPOSSIBLE = "not possible here"
    """Not even without any layer: nothing is proved by its being stopped."""
    INAPPLICABLE = "not applicable"
    """The seccomp mode does not claim to stop it."""
    UNCLEAR = "UNCLEAR"
    """Neither success nor a layer's doing: nobody may call that contained."""


BAD: Final = frozenset({ProbeVerdict.ESCAPED, ProbeVerdict.UNCLEAR})
"""The verdicts that fail an audit."""

# Errors that only a resource limit of the device process gives, by call where others can give it too.
_LIMIT_ERRORS: Final = {
    (errno.EMFILE, ""),
    (errno.EFBIG, ""),
    (errno.EAGAIN, "fork"),
    (errno.EAGAIN, "clone3"),
    (errno.ENOMEM, "mmap"),
    (errno.ENOMEM, "io_uring_setup"),  # its memory is locked
}


def direct_layers(result: Result, seccomp: int) -> int:
    """The layer, as a bit, whose doing `result` is beyond doubt, or 0. `seccomp` is the mode in force."""
    if result.ended is Ended.FORBIDDEN:
        return layers.SECCOMP
    if result.layers & layers.VMM_SECCOMP and (
        (result.ended is Ended.FAILED and result.number == errno.ENOSYS)
        or (result.ended is Ended.KILLED and result.number == signal.SIGSYS)
    ):
        return layers.VMM_SECCOMP
    if result.ended is Ended.KILLED and result.layers & layers.SECCOMP:
        deadly = {signal.SIGSYS}
        if seccomp == SECCOMP_MODE_STRICT:
            deadly |= {signal.SIGKILL, signal.SIGSEGV}  # the latter is RDTSC's
        return layers.SECCOMP if result.number in deadly else 0
    if result.ended is Ended.FAILED:
        if {(result.number, ""), (result.number, result.call)} & _LIMIT_ERRORS:
            return layers.RLIMITS & result.layers
        if result.number == errno.EBADF and result.call == "write":
            return layers.CLOSED_DESCRIPTORS & result.layers
    return 0


def stopped_by(result: Result, seccomp: int, alone: Mapping[int, Result]) -> int:
    """The layers, as a mask, each of which stops the attack in this very manner. 0: none is known to.

    `alone` holds, by layer, how the attack ended with that layer and no other.
    """
    direct = direct_layers(result, seccomp)
    if direct or result.effective or result.ended is Ended.REFUSED:
        return direct
    return sum(
        layer
        for layer, other in alone.items()
        if layer & result.layers and not other.effective and other.manner == result.manner
    )


def without_dependents(stoppers: int, below: Mapping[int, int]) -> int:
    """`stoppers` without those that had another of them beside them when they were tried alone.

    `below` holds, by layer, the mask of those that come with it.
    """
    return sum(layer for layer in layers.NAMES if layer & stoppers and not below.get(layer, 0) & stoppers)
