"""Guest time stands still, as the guest does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from kvmbox.run.builder import Devices
from kvmbox.wire import protocol


@contextmanager
def timeless(devices: Devices, rearm: Callable[[], None]) -> Iterator[None]:
    """Guest time stands still. No line is raised ahead, and models know of every deadline that has been.

    `rearm` is called when the clock has stopped, and when it goes on. Raises DeviceProcessError.
    """
    clock = devices.clock
    clock.pause()
    rearm()
    try:
        for channel in devices.pool.channels:
            if channel.deadline <= clock.now():
                channel.request(protocol.ADVANCE)
        yield
    finally:
        clock.resume()
        rearm()
