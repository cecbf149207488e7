"""The window of a device, and the accesses to it, with their compiled halves: see `vmm`."""

from __future__ import annotations

from kvmbox.fast.compiled_channel import CompiledChannel
from kvmbox.fast.vmm import WindowAccessCore, WindowCore
from kvmbox.remote.channel.connection import Channel
from kvmbox.remote.channel.effect_calls import FollowUp
from kvmbox.remote.published.data_window import READS, DataWindow, Opening
from kvmbox.remote.published.medium import MediumAccess
from kvmbox.remote.published.window_access import WindowAccess
from kvmbox.wire.protocol import COMPLETE, request_word

_NOTHING = bytearray()


class CompiledWindow(WindowCore, DataWindow):
    """A window that the compiled loop looks into."""

    def hold(self, data: bytearray) -> None:
        """See DataWindow."""
        super().hold(data)
        self.look_at(data)

    def shut(self) -> None:
        """As `drop`, in fewer steps."""
        self._opening = None
        self.use = self.position = self.end = 0
        self._data = _NOTHING
        self.look_at(_NOTHING)

    def open(
        self,
        device: int,
        resource: int,
        medium: MediumAccess,
        tag: int,
        offset: int,
        size: int,
        to_guest: int,
    ) -> list[FollowUp]:
        """See DataWindow. Bytes of a file that are in memory are read at once."""
        if to_guest and size:
            descriptor = medium.file_now(offset, size)
            data = None if descriptor < 0 else self.filled(descriptor, offset, size)
            if data is not None:
                medium.was_read(size)
                opening = self._opening = Opening(device, resource, medium, tag, offset, size, to_guest)
                self._data = data
                self.look_at(data)
                self.position, self.end, self.use = 0, size, READS
                return self.begun(opening)
        return super().open(device, resource, medium, tag, offset, size, to_guest)


class CompiledWindowAccess(WindowAccessCore, WindowAccess):
    """Accesses to a window, of which the last one that reads is compiled."""

    pure_access = WindowAccess.access

    def __init__(self, channel: Channel, index: int, window: DataWindow) -> None:
        super().__init__(channel, index, window)
        if isinstance(channel, CompiledChannel) and isinstance(window, CompiledWindow):
            self.set_up(channel, window, window.register, request_word(COMPLETE, index, 0))
