"""What runs in a device process in place of its models: one attack, then silence until the channel ends.

Under strict mode everything but read, write and exit is fatal, also what Python might do by itself: all is
imported before the jail, and nothing here opens, sleeps, or looks at the clock.
"""

from __future__ import annotations

import os

from kvmbox.tools.audit import payload_frames
from kvmbox.tools.audit.attacks import file_access, kernel, memory_calls, processes, sockets
from kvmbox.tools.audit.attacks import requests as channel_attacks

TYPE_CHECKING = False
if TYPE_CHECKING:
    import mmap
    from collections.abc import Callable
    from typing import Final

ENTRY: Final = "kvmbox.tools.audit.payload:main"


def _nothing(_given: dict[str, str]) -> bytes:
    """No attack: what shows that the payload itself does nothing that is forbidden."""
    return b"nothing"


ATTACKS: Final[dict[str, Callable[[dict[str, str]], bytes | None]]] = {
    name.replace("_", "-"): made
    for module in (file_access, sockets, processes, memory_calls, kernel, channel_attacks)
    for name, made in vars(module).items()
    if isinstance(made, type(_nothing)) and made.__module__ == module.__name__ and name[0] != "_"
}
ATTACKS["nothing"] = _nothing


def main(channel: int, reply: int | None = None, page: mmap.mmap | None = None) -> int:
    """Make the attack that is asked for. `reply` is the descriptor to answer on, if it is another."""
    answers = channel if reply is None else reply
    request = os.read(channel, payload_frames.MAXIMUM_REQUEST)
    if not request:
        return 0
    name, given = payload_frames.decode_request(request)
    if "answer" in given:  # the other descriptor is not the channel's, but one left open for this attack
        answers = int(given["answer"])
    channel_attacks.Ends.replies, channel_attacks.Ends.page = answers, page
    attack(channel, answers, name, given)
    return 0


def attack(channel: int, answers: int, name: str, given: dict[str, str], own_layers: int = 0) -> None:
    """Make attack `name`; `own_layers` (a mask) are those that the caller has taken by itself."""
    made = ATTACKS[name]
    os.write(answers, payload_frames.encode_frame(payload_frames.BEGUN, own_layers))
    try:
        frame = payload_frames.encode_frame(payload_frames.DONE, evidence=made(given) or b"")
    except payload_frames.Stopped as stopped:
        frame = payload_frames.encode_frame(
            payload_frames.STOPPED, stopped.number, stopped.call, stopped.evidence
        )
    os.write(answers, frame)
    os.read(channel, 1)  # what the attack holds is held until audit has looked at it
