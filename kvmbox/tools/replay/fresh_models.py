"""Fresh models for a replay: in this process, or in device processes jailed as those of a run are.

Both answer raw request frames with raw reply frames; b"" is a process that died or hung without an answer,
now or earlier.
"""

from __future__ import annotations

import os
import select
from collections.abc import Sequence
from typing import Protocol

from kvmbox.base.errors import DeviceGoneError
from kvmbox.jail.server import DeviceServer, error_frame
from kvmbox.parts.record.format import MAX_REPLY, ChannelHeader
from kvmbox.remote.channel.deadlines import REPLY_SLICES, WAIT_SLICE_MS
from kvmbox.remote.process.device_pool import DevicePool
from kvmbox.wire import protocol


class Backend(Protocol):
    """Where the models of a replay run."""

    def handle(self, channel: int, request: bytes) -> bytes:
        """The reply of the channel's models to `request`."""

    def why(self, channel: int) -> str | None:
        """Why there was no reply, where more is known than that."""

    def close(self) -> None:
        """End what was started. Idempotent."""


class InProcess:
    """`--sandbox none`: as fast as the models are, and with a debugger's view of them."""

    def __init__(self, channels: Sequence[ChannelHeader]) -> None:
        self._servers: list[DeviceServer | None] = [
            # A recording may come from a stranger: what it brings along runs in a jail or not at all.
            DeviceServer(takes_source=False)
            for _ in channels
        ]

    def handle(self, channel: int, request: bytes) -> bytes:
        """As `jail.server.serve` answers: a model that raises sends its error, and is gone."""
        server = self._servers[channel]
        if server is None:
            return b""
        try:
            return server.handle(request)
        except Exception as error:  # noqa: BLE001 - whatever a model raises is its answer
            self._servers[channel] = None
            return error_frame(int.from_bytes(request[4:8], "little"), error)

    def why(self, _channel: int) -> str | None:
        """A model that raised has said why itself."""
        return None

    def close(self) -> None:
        """Nothing was started."""


class InProcesses:
    """`--sandbox process`: one jailed device process per channel."""

    def __init__(self, channels: Sequence[ChannelHeader], wanted: Sequence[bool]) -> None:
        """Start a process for each of the `channels` that is `wanted`. Raises SandboxError.

        This process and those move to one CPU: asking and answering alternate, and across CPUs a request
        costs several times as much (docs/adr/links.md).
        """
        from kvmbox.host.process.cpu_placement import place
        from kvmbox.sandbox.seccomp import device_filter

        self._placement = place("auto")
        self._found_affinity = os.sched_getaffinity(0)
        self._pool = DevicePool()
        self._types = [channel.device_type for channel in channels]
        try:
            board = [
                device
                for channel, want in zip(channels, wanted, strict=True)
                if want
                for device in channel.devices
            ]
            self._pool.launch(board, device_filter(), cpu=self._placement.cpu)
            self._pool.wait_ready()
        except BaseException:
            self.close()
            raise
        if self._placement.cpu is not None:
            os.sched_setaffinity(0, {self._placement.cpu})
        self._polls: dict[int, select.poll] = {}
        self._gone: dict[int, str] = {}

    def handle(self, channel: int, request: bytes) -> bytes:
        """One exchange with the process. One that dies or does not answer is killed, and stays dead."""
        if channel in self._gone:
            return b""
        member = self._pool.members[self._types[channel]]
        assert member.link is not None
        (descriptor,) = member.link.vmm
        poll = self._polls.get(channel)
        if poll is None:
            poll = self._polls[channel] = select.poll()
            poll.register(descriptor, select.POLLIN)
        try:
            os.write(descriptor, request)
            # Slices are counted, as a channel does: a replay that was suspended has not waited.
            if any(poll.poll(WAIT_SLICE_MS) for _ in range(REPLY_SLICES)):
                reply = os.read(descriptor, MAX_REPLY)
                if reply:
                    return reply
        except OSError:
            pass  # it died: no different from not answering
        # Before it is killed: the spawner tells how it died, or the listener on what it called.
        error = self._pool.explain(DeviceGoneError(member.device_type, "did not answer"))
        self._gone[channel] = str(error)
        self._pool.kill(member.device_type)
        return b""

    def why(self, channel: int) -> str | None:
        """How the process died."""
        return self._gone.get(channel)

    def close(self) -> None:
        """No process is left, and this thread may run where it could."""
        os.sched_setaffinity(0, self._found_affinity)
        self._pool.close()
        self._placement.close()


def is_error(reply: bytes) -> bool:
    """Whether a reply is a model's last words."""
    return reply[:1] == bytes([protocol.ERROR])
