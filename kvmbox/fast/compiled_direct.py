"""The transport to models in this process (`--sandbox none`), compiled in part: see `compiled_channel`."""

from __future__ import annotations

from kvmbox.fast.vmm import DirectEnd
from kvmbox.remote.transport.direct import DirectTransport


class CompiledDirectTransport(DirectEnd, DirectTransport):
    """Calls the models."""
