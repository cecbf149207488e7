"""The start of a process at the first use of its devices: see `on_demand`. Loaded when that comes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kvmbox.base.errors import DeviceProcessError, SandboxError
from kvmbox.remote.channel.connection import Channel
from kvmbox.remote.channel.deadlines import START_SLICES
from kvmbox.remote.process.late_starts import ProcessStarts
from kvmbox.remote.transport.interface import Opens


def start(
    channel: Channel, starts: ProcessStarts, told: Sequence[bytes], expected: Callable[[bytes], bytes]
) -> None:
    """Connect `channel` to its process, and tell that what was `told` when there was none. Its replies
    must be the `expected` ones. Under the lock of the channel. Raises DeviceProcessError and TransportError.
    """
    survival = channel.survival
    # The watchdog counts how long a process takes to answer. The start has a limit of its own.
    waiting, channel.waiting = channel.waiting, 0
    survival.being_connected = True
    starts.pause_time()
    try:
        channel.connect(_started(channel, starts))
        for sent in told:
            frame = channel.transport.exchange(sent, START_SLICES)
            if frame != expected(sent):
                raise channel.refuse(sent, frame)
    finally:
        starts.resume_time()
        survival.being_connected = False
        channel.waiting = waiting


def _started(channel: Channel, starts: ProcessStarts) -> Opens:
    name = channel.device_type
    try:
        return starts.start(name)
    except SandboxError as error:
        why = str(error).removeprefix(f"cannot start device process '{name}': ")
        lost = DeviceProcessError(name, f"did not start when it was needed: {why}", hint=error.hint)
        raise channel.fail(lost) from error
