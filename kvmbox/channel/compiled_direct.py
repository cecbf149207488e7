"""The channel to models in this process (`--sandbox none`) with its compiled half: see `compiled`."""

from __future__ import annotations

from kvmbox.accel.vmm import DirectCore
from kvmbox.channel.compiled import CompiledChannel
from kvmbox.channel.direct import DirectChannel, DirectTransport
from kvmbox.channel.transport import Transport


class CompiledDirectChannel(DirectCore, CompiledChannel, DirectChannel):
    """A channel whose accesses call their model from compiled code."""

    def _reach_by(self, transport: Transport) -> None:
        super()._reach_by(transport)
        if isinstance(transport, DirectTransport):
            self.calls(transport.server)
