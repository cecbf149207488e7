"""An Intel 82540EM as a PCI function: its registers in memory, and IOADDR and IODATA in ports."""

from __future__ import annotations

import struct

from kvmbox.contract.device_spec import DeviceSpec, Input, Medium, Output, Queues
from kvmbox.contract.pci_function import MSI, Bar, PciFunction, Piece
from kvmbox.contract.pci_grants import Intx
from kvmbox.devices.e1000.model import IOADDR, MOST_CHAINS, REGISTERS_SIZE


class DescriptorRings(Queues):
    """`Queues` that are the rings of an Intel 82540EM: the first one receives, the second one sends."""

    vmm = "e1000.vmm"


_IDS = (0x8086, 0x100E, 0x1AF4, 0x1100)
_PORTS = 64
_USED_PORTS = 8
_MSI = struct.pack("<BBHQH", MSI, 0, 0x80, 0, 0)  # with an address of 64 bits


def e1000_net(number: int, mac: bytes, source: bytes = b"") -> DeviceSpec:
    """Network interface `number`, with this address. Its wire is the store of its name, which also hears what
    is to be done with a frame before it is sent. `source` is the text of its model, for its process.
    """
    wire = Medium(f"net{number}", 1 << 62, writable=True, max_bytes=1 << 16)
    return DeviceSpec(
        f"e1000-{number}",
        "e1000",
        "E1000",
        parameters={"mac": mac},
        grants=(
            Intx(),
            DescriptorRings(2, max_size=1 << 16, max_chains=MOST_CHAINS),
            wire,
            Input(wire.name),
            Output(wire.name),
        ),
        natural_sizes=frozenset({4, 8}),
        source=source,
        on_demand=True,
        pci=PciFunction(
            _IDS,
            0x020000,
            (
                Bar(REGISTERS_SIZE, (Piece(0, REGISTERS_SIZE, 0),)),
                Bar(_PORTS, (Piece(0, _USED_PORTS, IOADDR),), is_io=True),
            ),
            capabilities=(_MSI,),
            revision=3,
        ),
    )
