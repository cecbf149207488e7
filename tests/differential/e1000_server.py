"""`kvmbox qtest` with a PCI bus and an e1000 on it, which it has no option for. Nobody is at the other end of
the wire; in loopback its frames come back before the access that sends them is over.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from kvmbox.base.memory import GuestMemory
from kvmbox.cli.main import entry_point
from kvmbox.contract.device_spec import DeviceSpec
from kvmbox.devices.e1000.board import e1000_net
from kvmbox.devices.pc_board import BoardOptions, whole_board
from kvmbox.devices.pci.board import with_pci
from kvmbox.parts.net.gathering import GatheringPort
from kvmbox.remote.channel.connection import Channel
from kvmbox.tools.qtest import bare_machine, start_server
from kvmbox.tools.qtest.device_services import QtestHost

MAC: Final = "02:6b:76:00:00:01"
PORT: Final = GatheringPort("net0")
DEVICE: Final = e1000_net(0, bytes.fromhex(MAC.replace(":", "")))


class Host(QtestHost):
    """Who hears what is to be done with a frame."""

    def output(self, stream: str) -> Callable[[bytes], None]:
        """See QtestHost."""
        return PORT.hear if stream == PORT.name else super().output(stream)


class Machine(bare_machine.BareMachine):
    """See the module."""

    def __init__(
        self, board: Sequence[DeviceSpec], memory: GuestMemory, irq_changed: Callable[[int, int], None]
    ) -> None:
        super().__init__(board, memory, irq_changed, {PORT.name: PORT})

    def connect(self, channel: Channel, devices: Sequence[DeviceSpec]) -> None:
        """See `BareMachine`."""
        super().connect(channel, devices)
        for index, device in enumerate(devices):
            if device.name == DEVICE.name:
                self.place = channel, index

    def write_memory(self, address: int, data: bytes) -> None:
        """See `BareMachine`."""
        super().write_memory(address, data)
        if PORT.incoming:
            PORT.has_room = True
            PORT.feed(*self.place)


def board(options: BoardOptions) -> list[DeviceSpec]:
    """That of qtest, with the bus."""
    return with_pci([*whole_board(options), DEVICE])


if __name__ == "__main__":
    for module, name, ours in (
        (start_server, "whole_board", board),
        (start_server, "BareMachine", Machine),
        (bare_machine, "QtestHost", Host),
    ):
        setattr(module, name, ours)
    entry_point()
