"""The choice between the pure and the compiled hot path, for channels and transports: `base.compiled`."""

from __future__ import annotations

from kvmbox.base.compiled import compiled, is_compiled, kind
from kvmbox.remote.channel.connection import Channel
from kvmbox.remote.channel.journal import Journal
from kvmbox.remote.transport.interface import LinkedTransport


def channel_kind() -> type[Channel]:
    """The class of channels."""
    return kind(Channel, "channel", "CompiledChannel")


def journal_kind() -> type[Journal]:
    """The class of journals."""
    return kind(Journal, "channel", "CompiledJournal")


def chosen(transport: type[LinkedTransport]) -> type[LinkedTransport]:
    """The transport of the same kind."""
    if not is_compiled():
        return transport
    found: type[LinkedTransport] = compiled("channel", "COMPILED_TRANSPORTS")[transport]
    return found
