"""--rng, --virtio-console: virtio devices with the host's entropy, and with a stream of the console."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvmbox.devices.virtio.board import virtio_console, virtio_rng
from kvmbox.host.disk.entropy import ENTROPY, EntropyStore
from kvmbox.run.part import Opening, Part

if TYPE_CHECKING:
    from kvmbox.contract.device_spec import DeviceSpec
    from kvmbox.host.console.serial_backends import SerialSpec


class Virtio(Part):
    """The virtio devices of one run that are no disks."""

    def __init__(self, rng: bool = False, virtio_console: SerialSpec | None = None) -> None:
        self._rng = rng
        self._console = virtio_console

    def equip(self, opening: Opening) -> None:
        """See `Part`. Behind the disks, which are equipped before."""
        devices: list[DeviceSpec] = []
        if self._rng:
            devices.append(virtio_rng())
            opening.stores[ENTROPY] = EntropyStore()
        if self._console is not None:
            devices.append(virtio_console())
        opening.place_virtio(devices)


PART = Virtio
