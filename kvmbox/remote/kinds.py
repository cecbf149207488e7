"""The choice between the pure and the compiled hot path, for channels and transports: see `fast`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvmbox.choice import is_compiled
from kvmbox.remote.channel import Channel
from kvmbox.remote.journal import Journal
from kvmbox.remote.transport import LinkedTransport

if TYPE_CHECKING:
    from kvmbox.remote.direct import DirectChannel


def channel_kind() -> type[Channel]:
    """The class of channels to processes."""
    if not is_compiled():
        return Channel
    from kvmbox.fast.channel import CompiledChannel

    return CompiledChannel


def direct_channel_kind() -> type[DirectChannel]:
    """The class of channels to models in this process. Loads every model."""
    if not is_compiled():
        from kvmbox.remote.direct import DirectChannel

        return DirectChannel
    from kvmbox.fast.direct import CompiledDirectChannel

    return CompiledDirectChannel


def journal_kind() -> type[Journal]:
    """The class of journals."""
    if not is_compiled():
        return Journal
    from kvmbox.fast.channel import CompiledJournal

    return CompiledJournal


def chosen(transport: type[LinkedTransport]) -> type[LinkedTransport]:
    """The transport of the same kind."""
    if not is_compiled():
        return transport
    from kvmbox.fast.channel import COMPILED_TRANSPORTS

    return COMPILED_TRANSPORTS[transport]
