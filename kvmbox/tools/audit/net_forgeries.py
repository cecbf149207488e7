"""What a taken-over process of a network interface asks for, and the wire that it is at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from kvmbox.contract.bulk_data import ChainTransfer
from kvmbox.contract.device_spec import DeviceSpec
from kvmbox.contract.model import Effect, MemoryRead, MemoryWrite
from kvmbox.devices.virtio.board import place_virtio, virtio_net
from kvmbox.parts.net.port import PLACE_SHIFT, Port
from kvmbox.parts.net.wires import Wire

FRAME_SIZE: Final = 60
"""Of the only frame that is offered."""


def frame_effects(handle: int, readable: int, writable: int, secret: int) -> Mapping[str, tuple[str, Effect]]:
    """By the names of their probes, with what each tries.

    A chain has these lengths; memory at `secret` is not published.
    """
    # fmt: off
    return {
        "frame-memory-read": ("read guest memory, as a network interface", MemoryRead(1, [(secret, 64)])),
        "frame-memory-write": ("write guest memory, as a network interface",
            MemoryWrite(secret, b"taken over", 0)),
        "frame-sent-beyond": ("send guest memory behind a buffer as a frame",
            ChainTransfer(handle, 0, 0, 0, 2 * readable, 0)),
        "frame-put-beyond": ("put a frame behind a buffer",
            ChainTransfer(handle, 0, 0, writable - 1, FRAME_SIZE, 1)),
        "frame-void": ("send a buffer that it has given back", ChainTransfer(handle, 0, 0, 0, readable, 0)),
        "frame-other-wire": ("send a buffer on a wire of somebody else's",
            ChainTransfer(handle, 1, 0, 0, readable, 0)),
        "frame-not-offered": ("put a frame into a buffer that it is not offered",
            ChainTransfer(handle, 0, 1 << PLACE_SHIFT, 0, FRAME_SIZE, 1)),
        "frame-longer": ("read behind the end of a frame", ChainTransfer(handle, 0, 0, 0, FRAME_SIZE + 1, 1)),
    }
    # fmt: on


def net_devices() -> Sequence[DeviceSpec]:
    """The interface, as a run has it."""
    return place_virtio([virtio_net(0, bytes(6))])


class NotingPort(Port):
    """A port with one frame for the guest, and a wire that keeps what was sent."""

    def __init__(self) -> None:
        super().__init__("net0", _Noting())
        self.incoming.append(b"F" * FRAME_SIZE)

    @property
    def sent(self) -> Sequence[bytes]:
        """The frames on the wire."""
        wire = self.wire
        assert isinstance(wire, _Noting)
        return wire.sent


class _Noting(Wire):
    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def send(self, frame: bytes) -> bool:
        """See Wire."""
        self.sent.append(frame)
        return True
