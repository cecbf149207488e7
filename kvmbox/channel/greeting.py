"""The first request on a channel: which models to make, and which protocol is spoken.

Apart from `direct`, because a VMM whose models run elsewhere has no business to load them.
"""

from __future__ import annotations

from collections.abc import Sequence

from kvmbox.board import DeviceSpec
from kvmbox.channel.channel import Channel
from kvmbox.wire import protocol


def greet(channel: Channel, devices: Sequence[DeviceSpec], **options: int) -> int:
    """Say hello: the models of `devices` are made. Returns the protocol version of the other side."""
    version, _ = channel.request(
        protocol.HELLO,
        value=protocol.VERSION,
        payload=board_description(devices),
        limit=0xFFFF_FFFF,
        **options,
    )
    return version


def board_description(devices: Sequence[DeviceSpec]) -> bytes:
    """The payload of HELLO."""
    return protocol.encode_board([(device.model, dict(device.parameters)) for device in devices])
