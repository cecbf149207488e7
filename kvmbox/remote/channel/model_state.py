"""The state of a device's model, taken and given: SNAPSHOT and RESTORE requests by the main thread."""

from __future__ import annotations

from typing import Final

from kvmbox.base.errors import ProtocolError
from kvmbox.remote.channel.connection import Channel
from kvmbox.remote.channel.deadlines import REPLY_SLICES
from kvmbox.remote.channel.journal import MAX_SNAPSHOT
from kvmbox.wire import protocol
from kvmbox.wire.protocol import MAX_PAYLOAD

_ATTEMPTS: Final = 4
"""How often all parts are asked for, if the process is replaced in between: parts are of one process."""


def take_state(channel: Channel, device: int) -> bytes:
    """The snapshot of device number `device`. Raises DeviceProcessError."""
    for _ in range(_ATTEMPTS):
        state = _parts(channel, device)
        if state is not None:
            return state
    raise channel.fail(
        ProtocolError(channel.device_type, "broke the protocol: parts of a snapshot that do not fit together")
    )


def _parts(channel: Channel, device: int) -> bytes | None:
    state, size = b"", None
    while size is None or len(state) < size:
        total, payload = channel.request(
            protocol.SNAPSHOT, device=device, offset=len(state) // MAX_PAYLOAD, limit=MAX_SNAPSHOT
        )
        if size not in (None, total) or len(payload) != min(MAX_PAYLOAD, total - len(state)):
            return None
        state, size = state + payload, total
    return state


def give_state(channel: Channel, device: int, state: bytes, *, slices: int = REPLY_SLICES) -> bool:
    """Let the model of device number `device` go on as `state` says; returns whether it takes that.

    Raises DeviceProcessError.
    """
    for part in range(max(1, -(-len(state) // MAX_PAYLOAD))):
        piece = state[part * MAX_PAYLOAD : (part + 1) * MAX_PAYLOAD]
        good, _ = channel.request(
            protocol.RESTORE,
            device=device,
            value=len(state),
            offset=part,
            payload=piece,
            limit=1,
            slices=slices,
        )
        if not good:
            return False
    return True
