"""The window of a device with its compiled half: see `vmm`."""

from __future__ import annotations

from kvmbox.fast.vmm import WindowCore
from kvmbox.remote.window import DataWindow


class CompiledWindow(WindowCore, DataWindow):
    """A window that the compiled loop looks into."""

    def hold(self, data: bytearray) -> None:
        """See DataWindow."""
        super().hold(data)
        self.look_at(data)
