"""Export to the Chrome trace event format (JSON), which ui.perfetto.dev and chrome://tracing open.

One process "kvmbox", one thread a channel. A request has a moment of guest time but no duration, since guest
time is all that is recorded: each is an instant event ("i") on its channel's thread. Interrupt lines are
counter tracks ("C") of their level. `ts` is microseconds with three decimals, so no nanosecond is lost.
Memory stays bounded: events are written as they come.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, Final, TextIO

from kvmbox.contract.model import HostOutput, IrqLine
from kvmbox.parts.record.format import ChannelHeader, Record
from kvmbox.tools.replay.frames_as_text import reply_text, request_text, subject
from kvmbox.tools.replay.select import DeviceChoice
from kvmbox.tools.replay.trace_summary import effects_of, line_name
from kvmbox.wire import protocol

PROCESS: Final = 1


def export(
    records: Iterable[Record], channels: Sequence[ChannelHeader], choice: DeviceChoice, out: TextIO
) -> int:
    """Write what concerns `choice` to `out`; returns the number of records. Raises OSError of `out`."""
    out.write('{"displayTimeUnit":"ns","traceEvents":[\n')
    out.write(_line({"ph": "M", "pid": PROCESS, "name": "process_name", "args": {"name": "kvmbox"}}))
    for index, channel in enumerate(channels):
        if choice.by_channel[index] is not None:
            thread = {"ph": "M", "pid": PROCESS, "tid": index + 1}
            out.write(",\n" + _line(thread | {"name": "thread_name", "args": {"name": channel.device_type}}))
            out.write(",\n" + _line(thread | {"name": "thread_sort_index", "args": {"sort_index": index}}))
    count = 0
    try:
        for record in records:
            if choice.concerns(record):
                count += 1
                _write_record(out, channels[record.channel], record)
    finally:
        # A recording that is damaged further on still leaves a file that opens.
        out.write("\n]}\n")
    return count


def _write_record(out: TextIO, channel: ChannelHeader, record: Record) -> None:
    request = protocol.decode_request(record.request)
    time = f"{request.now // 1000}.{request.now % 1000:03d}"
    event = {
        "ph": "i",
        "s": "t",
        "pid": PROCESS,
        "tid": record.channel + 1,
        "cat": channel.device_type,
        "name": f"{subject(channel, request)}: {request_text(channel, request)}",
        "args": {"record": record.number, "reply": reply_text(channel, request, record.reply)},
    }
    out.write(f",\n{_line(event, time)}")
    for index, effect in effects_of(record.reply):
        match effect:
            case IrqLine(pin, level):
                counter = {
                    "ph": "C",
                    "pid": PROCESS,
                    "name": line_name(channel, index, pin),
                    "args": {"level": level},
                }
                out.write(f",\n{_line(counter, time)}")
            case HostOutput(data):
                shown = data.decode("utf-8", "replace")
                text = event | {"name": f"output {shown!r}", "args": {"record": record.number}}
                out.write(f",\n{_line(text, time)}")
            case _:
                pass


def _line(event: dict[str, Any], time: str | None = None) -> str:
    text = json.dumps(event, separators=(",", ":"))
    # A float has 53 bits: the digits are put in as they are.
    return text if time is None else f'{text[:-1]},"ts":{time}}}'
