"""What paced UARTs still hold when the guest has ended."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final

from kvmbox.run.builder import Devices
from kvmbox.run.timeless import timeless
from kvmbox.wire import protocol

MAX_STEPS: Final = 256
"""More deadlines than the transmit FIFOs and time-outs of all UARTs can have."""


def drain(devices: Devices, talkers: Collection[str], rearm: Callable[[], None]) -> None:
    """Send the characters that the UARTs of `talkers` still hold, without real waiting. For `rearm` see
    `timeless`. Raises DeviceProcessError.
    """
    with timeless(devices, rearm):
        _drain(devices, talkers)


def _drain(devices: Devices, talkers: Collection[str]) -> None:
    for channel in devices.pool.channels:
        if channel.device_type not in talkers:
            continue
        for _ in range(MAX_STEPS):
            if channel.failure is not None or channel.deadline == protocol.NO_DEADLINE:
                break
            devices.clock.skip_to(channel.deadline)
            channel.request(protocol.ADVANCE)
