"""Virtio devices on the board, without their place or at their addresses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from kvmbox.base import layout
from kvmbox.base.errors import UsageError
from kvmbox.contract.device_spec import (
    AddressRange,
    DeviceSpec,
    Grant,
    Input,
    Irq,
    Medium,
    Output,
    Parameter,
    Queues,
)
from kvmbox.contract.names import VIRTIO_CONSOLE, VIRTIO_RNG

ENTROPY: Final = Medium("entropy", 1 << 62)
"""Random bytes of the host, as many as are read."""


def _virtio(
    name: str, device_type: str, model: str, parameters: Mapping[str, Parameter], *grants: Grant
) -> DeviceSpec:
    """A virtio device without its place: see `place_virtio`."""
    return DeviceSpec(
        name,
        device_type,
        model,
        parameters=parameters,
        grants=grants,
        natural_sizes=frozenset({2, 4}),
        on_demand=True,
    )


def virtio_blk(number: int, medium: Medium, *, serial: bytes = b"") -> DeviceSpec:
    """Virtio disk `number`, whose sectors are those of `medium`."""
    parameters: dict[str, Parameter] = {
        "sectors": medium.size // layout.SECTOR_SIZE,
        "read_only": int(not medium.writable),
        "serial": serial,
    }
    return _virtio(f"virtio-blk-{number}", "vblk", "virtio_blk", parameters, Queues(1), medium)


def virtio_rng() -> DeviceSpec:
    """The virtio entropy device."""
    return _virtio(VIRTIO_RNG, "vrng", "virtio_rng", {}, Queues(1), ENTROPY)


def virtio_console() -> DeviceSpec:
    """The virtio console."""
    streams = Output(VIRTIO_CONSOLE), Input(VIRTIO_CONSOLE)
    return _virtio(VIRTIO_CONSOLE, "vcon", "virtio_console", {}, Queues(2), *streams)


def virtio_net(number: int, mac: bytes) -> DeviceSpec:
    """Virtio network interface `number`, with this address. Its wire is the store of its name."""
    from kvmbox.devices.virtio.net import MOST_FRAME

    wire = Medium(f"net{number}", 1 << 62, writable=True, max_bytes=MOST_FRAME)
    return _virtio(
        f"virtio-net-{number}", "vnet", "virtio_net", {"mac": mac}, Queues(2), wire, Input(wire.name)
    )


def virtio_places(board: Sequence[DeviceSpec]) -> tuple[tuple[int, int], ...]:
    """(address, interrupt line) of each virtio device of a board."""
    return tuple((one.mmio[0].first, one.irqs[0]) for one in board if one.granted(Queues) and one.mmio)


def place_virtio(devices: Sequence[DeviceSpec], board: Sequence[DeviceSpec] = ()) -> list[DeviceSpec]:
    """Virtio devices at their addresses and on their lines, behind those that `board` has.

    Raises UsageError if there are too many.
    """
    first, most = len(virtio_places(board)), len(layout.VIRTIO_IRQS)
    if first + len(devices) > most:
        raise UsageError(
            f"{first + len(devices)} virtio devices, and there is room for {most}",
            hint="give fewer of --disk …,on=virtio, --net, --rng and --virtio-console",
        )
    return [
        DeviceSpec(
            **device.as_dict()
            | {
                "mmio": (AddressRange(layout.VIRTIO_BASE + number * layout.VIRTIO_SIZE, layout.VIRTIO_SIZE),),
                "grants": (Irq(layout.VIRTIO_IRQS[number]), *device.grants),
            }
        )
        for number, device in enumerate(devices, first)
    ]
