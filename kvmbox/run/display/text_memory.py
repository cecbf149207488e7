"""Whether a guest has used its text screen. Nothing that looks at a screen is loaded for a guest without."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kvmbox.base import layout
from kvmbox.base.memory import GuestMemory
from kvmbox.contract.names import VBE, VGA
from kvmbox.remote.channel.connection import Channel
from kvmbox.remote.process.device_pool import DevicePool

if TYPE_CHECKING:
    from kvmbox.run.machine.device_set import Devices

UNUSED: Final = (bytes(layout.TEXT_SCREEN_SIZE), b" \x07" * (layout.TEXT_SCREEN_SIZE // 2))
"""The memory of a guest that does not use it, and as the built-in BIOS leaves it."""


def place_of(pool: DevicePool, name: str = VGA) -> tuple[Channel, int]:
    """The channel of the VGA's process, and the number there of the VGA, or of its other device `name`."""
    return next(
        (pool.channel(device_type), index)
        for device_type, index, device in pool.places()
        if device.name == name
    )


def is_unused(memory: GuestMemory, devices: Devices) -> bool:
    """Whether the guest has written no text, and has not used the VGA."""
    if memory.read(layout.TEXT_SCREEN, layout.TEXT_SCREEN_SIZE) not in UNUSED:
        return False
    if devices.pool.design.has_processes:
        return not any(place_of(devices.pool, name)[0].is_started for name in (VGA, VBE))
    # Models that have no process are there from the beginning.
    return not any(proxy.reads or proxy.writes for proxy in devices.proxies if proxy.name in (VGA, VBE))
