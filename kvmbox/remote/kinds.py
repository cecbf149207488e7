"""The choice between the pure and the compiled hot path, for channels and transports: see `choice`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvmbox.choice import compiled, is_compiled, kind
from kvmbox.remote.channel import Channel
from kvmbox.remote.journal import Journal
from kvmbox.remote.transport import LinkedTransport

if TYPE_CHECKING:
    from kvmbox.remote.direct import DirectChannel


def channel_kind() -> type[Channel]:
    """The class of channels to processes."""
    return kind(Channel, "channel", "CompiledChannel")


def direct_channel_kind() -> type[DirectChannel]:
    """The class of channels to models in this process. Loads every model."""
    from kvmbox.remote.direct import DirectChannel

    return kind(DirectChannel, "direct", "CompiledDirectChannel")


def journal_kind() -> type[Journal]:
    """The class of journals."""
    return kind(Journal, "channel", "CompiledJournal")


def chosen(transport: type[LinkedTransport]) -> type[LinkedTransport]:
    """The transport of the same kind."""
    if not is_compiled():
        return transport
    found: type[LinkedTransport] = compiled("channel", "COMPILED_TRANSPORTS")[transport]
    return found
