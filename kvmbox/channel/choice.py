"""The choice between the pure and the compiled hot path, for channels and transports: see `accel`."""

from __future__ import annotations

from kvmbox.accel.choice import is_compiled
from kvmbox.channel.channel import Channel
from kvmbox.channel.transport import LinkedTransport


def channel_kind() -> type[Channel]:
    """The class of channels to processes."""
    if not is_compiled():
        return Channel
    from kvmbox.channel.compiled import CompiledChannel

    return CompiledChannel


def chosen(transport: type[LinkedTransport]) -> type[LinkedTransport]:
    """The transport of the same kind."""
    if not is_compiled():
        return transport
    from kvmbox.channel.compiled import COMPILED_TRANSPORTS

    return COMPILED_TRANSPORTS[transport]
