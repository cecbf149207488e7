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
    version = protocol.VERSION
    for part in hello_of(devices):
        version, _ = channel.request(
            protocol.HELLO,
            value=part.value,
            offset=part.offset,
            payload=part.payload,
            limit=0xFFFF_FFFF,
            **options,
        )
        if version != protocol.VERSION:
            break
    return version


def hello_of(devices: Sequence[DeviceSpec]) -> list[protocol.Request]:
    """The HELLO requests of a process with these devices."""
    return protocol.hello_requests([(device.model, _parameters_of(device)) for device in devices])


def _parameters_of(device: DeviceSpec) -> dict[str, int | bytes]:
    source: dict[str, int | bytes] = {protocol.SOURCE: device.source} if device.source else {}
    return source | dict(device.parameters)
