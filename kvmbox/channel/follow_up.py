"""What an accepted effect calls, and the requests that the call may ask for. Pure.

Some effects are questions: the answer goes back to the same device process as a request of its own, a
*follow-up*. The channel sends follow-ups under the lock of the request whose reply asked for them, in order,
right after that reply is in the journal; each is journaled, recorded and rescued like any other request. The
value of the guest's access stays that of its own reply.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

MAX_FOLLOW_UPS: Final = 16
"""How many follow-ups one request may cause, those of its follow-ups included."""


class FollowUp(NamedTuple):
    """A request to the process whose reply asked for it; the fields are those of `protocol.Request`."""

    kind: int
    device: int
    value: int = 0
    offset: int = 0
    payload: bytes = b""


class Application(NamedTuple):
    """An effect that was found good: `apply(*arguments)` is what it does.

    `follow_ups` is how many requests that call asks for at most; it returns them as a list. With 0, what it
    returns is not looked at.
    """

    apply: Callable[..., Any]
    arguments: tuple[Any, ...] = ()
    follow_ups: int = 0
