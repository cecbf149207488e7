"""The call of an accepted effect, and the requests that this call may cause. Pure.

Some effects ask for data. The answer is a new request to the same device process, a *follow-up*. The channel
sends follow-ups in order, under the lock of the request whose reply had the effect, after the reply is in the
journal. Each follow-up is journaled, recorded and rescued like any other request. The value of the guest's
access is the value of the first reply.

A device with queues may want more than that (`queues`). What it asks for can wait: it becomes a request when
its turn comes, and if there is no room for it then, the main thread goes on with it later.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeAlias

MAX_FOLLOW_UPS: Final = 20
"""How many follow-ups one request may cause, those of its follow-ups included."""


class FollowUp(NamedTuple):
    """A request to the process whose reply asked for it; the fields are those of `protocol.Request`."""

    kind: int
    device: int
    value: int = 0
    offset: int = 0
    payload: bytes = b""
    size: int = 0


class Posted(FollowUp):
    """One that may come with the next request: its device does nothing but what the guest can read."""


Application = tuple[Callable[..., Any], tuple[Any, ...], int]
"""An effect that was found good: what it calls, with which arguments, and how many follow-ups the call asks
for at most. It returns them as a list; with 0, what it returns is not looked at. (A plain tuple: one is made
for each effect.)
"""

CAN_WAIT: Final = -1
"""Instead of that number: the call returns what `CanWait` describes, and nothing else."""

CanWait: TypeAlias = Callable[[bool], FollowUp | None]
"""Called with whether there is room for one more follow-up: gives the next one, or None. What is left
without room takes care of itself.
"""
