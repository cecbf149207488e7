"""A virtio network device (VIRTIO 1.2, 5.1): two queues that the VMM connects to a wire of the host.

Theory of operation
-------------------
Queue 0 has the chains that wait for received frames, queue 1 the frames to send. Before each frame is a
header. It says nothing but how many chains a received frame has taken, as there are no offloads.

What is to be done with a chain follows from the features that the driver has accepted, and is the same for
all chains. So the model says it once, with `Connect`, and no chain and no frame comes here: the VMM moves the
frames between the wire and the rings. What a registration of features, a reset or a queue that is none means,
is decided here as for other virtio devices.

Without a control queue, a device receives every frame (5.1.6.5), and the driver filters them.
"""

from __future__ import annotations

import struct

from kvmbox.contract.bulk_data import Connect
from kvmbox.devices.virtio.mmio import F_VERSION_1, VirtioMmio

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from kvmbox.contract.bulk_data import Chain

RECEIVED: Final = 0
SENT: Final = 1

F_MAC: Final = 1 << 5
F_MRG_RXBUF: Final = 1 << 15
F_STATUS: Final = 1 << 16

LINK_UP: Final = 1

LEAST_FRAME: Final = 14
"""The header of Ethernet: two addresses, and a type."""
MOST_FRAME: Final = 1518
"""A header with a VLAN tag, and 1500 bytes."""
MOST_CHAINS: Final = 16
"""How many chains a received frame may take: one that needs more is lost."""

_WIRE: Final = 0
"""The one medium of the device."""
_COUNT_AT: Final = 10
"""Where the header has the number of chains, behind flags and offloads; a legacy header may end there."""
_HEADER_SIZE: Final = 12
_CONFIG: Final = struct.Struct("<6sH")  # address, status


class VirtioNet(VirtioMmio):
    """See the module. `mac` is the address of the interface: 6 bytes.

    >>> from kvmbox.devices.virtio.mmio import CONFIG, DEVICE_ID
    >>> net = VirtioNet(mac=bytes.fromhex("026b76000001"))
    >>> net.read(0, DEVICE_ID, 4), hex(net.read(0, CONFIG, 2))
    (1, '0x6b02')
    """

    __slots__ = ()

    device_id: int = 1
    queue_count: int = 2
    magic: bytes = b"VNT\x03"

    def __init__(self, *, mac: bytes) -> None:
        super().__init__(features=F_MAC | F_MRG_RXBUF | F_STATUS, space=_CONFIG.pack(mac, LINK_UP))

    def _wanted(self, index: int) -> None:
        has_count = self._features & (F_VERSION_1 | F_MRG_RXBUF)
        header = _HEADER_SIZE if has_count else _COUNT_AT
        is_received = int(index == RECEIVED)
        count_at = _COUNT_AT if is_received and has_count else 0
        chains = MOST_CHAINS if self._features & F_MRG_RXBUF else 1
        self._effects.append(Connect(index, is_received, _WIRE, header, count_at, chains))

    def _take(self, index: int, chain: Chain) -> None:
        """None comes from a queue that is connected."""
        self._use(chain.handle, 0)
