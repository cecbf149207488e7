"""The channel to models in this process (`--sandbox none`) with its compiled half: see `compiled`."""

from __future__ import annotations

from kvmbox.fast.channel import CompiledChannel
from kvmbox.fast.vmm import DirectCore
from kvmbox.remote.direct import DirectChannel, DirectTransport
from kvmbox.remote.transport import Transport


class CompiledDirectChannel(DirectCore, CompiledChannel, DirectChannel):
    """A channel whose accesses call their model from compiled code."""

    def _reach_by(self, transport: Transport) -> None:
        super()._reach_by(transport)
        if isinstance(transport, DirectTransport):
            self.calls(transport.server)
