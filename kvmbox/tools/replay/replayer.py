"""Replay: send the recorded requests to new models, and compare their replies byte by byte.

The reply of a model depends only on its state, its input and the guest time in the request. So the same
requests give the same replies. If a reply differs, the models have changed since the recording, or depend on
something else.

Only the order within a channel matters, and the replay keeps the order of the file. If one device is
selected, its whole process gets its requests, because the devices of a process share deadlines. Only the
replies that concern the device are compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kvmbox.base.errors import RecordingError
from kvmbox.base.value_classes import Value
from kvmbox.parts.record.format import ChannelHeader, Record
from kvmbox.tools.replay.frames_as_text import reply_text, request_text, seconds, subject
from kvmbox.tools.replay.fresh_models import Backend, is_error
from kvmbox.tools.replay.select import DeviceChoice
from kvmbox.wire import protocol


class Difference(Value):
    """The first reply that is not what was recorded."""

    channel: ChannelHeader
    record: Record
    got: bytes
    why: str | None = None
    """Why there was no reply, where more is known."""

    def report(self) -> str:
        """Lines for a person."""
        request = protocol.decode_request(self.record.request)
        expected = reply_text(self.channel, request, self.record.reply)
        got = reply_text(self.channel, request, self.got)
        lines = [
            f"record {self.record.number} differs, at guest time {seconds(request.now)}: "
            f"{subject(self.channel, request)}",
            f"  request   {request_text(self.channel, request)}",
            f"  expected  {expected}",
            f"  got       {got}",
        ]
        if self.why is not None:
            lines.append(f"  because   {self.why}")
        if expected == got:
            lines += [f"  expected  {self.record.reply.hex()}", f"  got       {self.got.hex()}"]
        return "\n".join(lines)


@dataclass(slots=True)
class ReplayResult:
    """What a replay found. `driven` counts requests, `compared` replies; `last` is the largest guest time."""

    driven: int = 0
    compared: int = 0
    last: int = 0
    difference: Difference | None = None


def replay(
    records: Iterable[Record], channels: Sequence[ChannelHeader], choice: DeviceChoice, backend: Backend
) -> ReplayResult:
    """Drive `backend` with `records` up to the first reply that differs.

    Raises RecordingError where the recording's machine is not one that these models can be.
    """
    result = ReplayResult()
    handle = backend.handle
    hellos: dict[int, bytearray] = {}
    wanted = [index is not None for index in choice.by_channel]
    everything = all(index == -1 for index in choice.by_channel)
    for record in records:
        channel, request, expected = record.channel, record.request, record.reply
        if not wanted[channel]:
            continue
        got = handle(channel, request)
        result.driven += 1
        if request[0] == protocol.HELLO:
            hello = hellos.setdefault(channel, bytearray())
            _check_hello(channels[channel], record, hello, got)
        if everything or choice.concerns(record):
            result.compared += 1
            if got != expected:
                result.difference = Difference(channels[channel], record, got, backend.why(channel))
                break
        result.last = max(result.last, record.now)
    return result


def _check_hello(channel: ChannelHeader, record: Record, description: bytearray, got: bytes) -> None:
    """The board of a hello comes from the file: it must be one that this kvmbox can build.

    `description` is what the hello's parts before this one had.
    """
    request = protocol.decode_request(record.request)
    description += request.payload
    if len(description) < request.value >> 32:
        models = [device.model for device in channel.devices]  # there is more to come
    else:
        try:
            models = [name for name, _ in protocol.decode_board(bytes(description))]
        except protocol.FrameError:
            models = []
    if models != [device.model for device in channel.devices]:
        raise RecordingError(
            f"the recording cannot be replayed: record {record.number} greets devices "
            "that are not those of its header"
        )
    if not got or is_error(got):
        why = reply_text(channel, request, got)
        raise RecordingError(
            f"the recording cannot be replayed: device type '{channel.device_type}' does not start: {why}",
            hint="it was recorded by another version of kvmbox, or damaged",
        )
