"""HELLO, the first request on a channel: the models to create, and the version of the protocol.

This is not in `direct`, because a VMM whose models run elsewhere should not load the models.
"""

from __future__ import annotations

from collections.abc import Sequence

from kvmbox.contract.device_spec import DeviceSpec
from kvmbox.remote.channel.connection import Channel
from kvmbox.wire import protocol


def greet(channel: Channel, devices: Sequence[DeviceSpec], **options: int) -> int:
    """Send HELLO, which creates the models of `devices`. Return the protocol version of the other side."""
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
