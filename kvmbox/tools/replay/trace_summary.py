"""What a recording tells about a run: counts by device and register, host bytes, interrupts by line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from kvmbox.contract.model import Effect, HostOutput, IrqLine
from kvmbox.parts.record.format import ChannelHeader, Record
from kvmbox.tools.replay.frames_as_text import ACCESSES, device_of, moment, place_of, seconds
from kvmbox.tools.replay.lanes import DEVICE, LINE, PROCESS, Lanes
from kvmbox.tools.replay.select import DeviceChoice
from kvmbox.wire import protocol
from kvmbox.wire.access_blocks import BLOCKS, Block
from kvmbox.wire.effects import decode_effects
from kvmbox.wire.protocol import HEADER, KIND_NAMES, FrameError


@dataclass(slots=True)
class Span:
    """How often something happened, with how many bytes, and when first and last (ns of guest time)."""

    count: int = 0
    size: int = 0
    first: int = 0
    last: int = 0

    def add(self, now: int, size: int = 0) -> None:
        """It happened once more."""
        self.first = min(self.first, now) if self.count else now
        self.last = max(self.last, now)
        self.count += 1
        self.size += size


@dataclass(slots=True)
class LineCount:
    """An interrupt output: rising edges, those folded into another, and the level that was left."""

    raised: Span = field(default_factory=Span)
    lowered: int = 0
    coalesced: int = 0


@dataclass(slots=True)
class Summary:
    """Keys start with the channel's index. `accesses`: device, offset, kind; `others`: device or -1, kind."""

    channels: Sequence[ChannelHeader]
    records: Span = field(default_factory=Span)
    accesses: dict[tuple[int, int, int, int], Span] = field(default_factory=dict)
    others: dict[tuple[int, int, int], Span] = field(default_factory=dict)
    output: dict[tuple[int, int], Span] = field(default_factory=dict)
    lines: dict[tuple[int, int, int], LineCount] = field(default_factory=dict)
    unanswered: int = 0


def effects_of(reply: bytes) -> list[tuple[int, Effect]]:
    """The effects in a reply; none for a frame that no VMM accepts."""
    if len(reply) <= HEADER.size or reply[0] == protocol.ERROR:
        return []
    try:
        return decode_effects(reply[3], reply[HEADER.size :])[0]
    except FrameError:
        return []


def is_accepted(reply: bytes) -> bool:
    """Whether a reply is one at all, and not a model's last words."""
    return len(reply) >= HEADER.size and reply[0] != protocol.ERROR


def summarise(
    records: Iterable[Record],
    channels: Sequence[ChannelHeader],
    choice: DeviceChoice,
    lanes: Lanes | None = None,
) -> Summary:
    """Count what concerns `choice`; `lanes` has the same over time."""
    summary = Summary(channels)
    for record in records:
        if not choice.concerns(record):
            continue
        channel, now = record.channel, record.now
        kind, device, size = record.request[:3]
        summary.records.add(now)
        if lanes is not None:
            lanes.add((PROCESS, channel, 0, 0), now)
        if kind in ACCESSES:
            made = accesses_of(record, kind, size)
            if lanes is not None:
                lanes.add((DEVICE, channel, device, 0), now, len(made))
            for offset, way, width in made:
                key = (channel, device, offset, way)
                span = summary.accesses.get(key)
                if span is None:
                    span = summary.accesses[key] = Span()
                span.add(now, width)
        else:
            single = device_of(channels[channel], protocol.decode_request(record.request)) is not None
            other = summary.others.setdefault((channel, device if single else -1, kind), Span())
            other.add(now, len(record.request) - HEADER.size)
        if not is_accepted(record.reply):
            summary.unanswered += 1
        for index, effect in effects_of(record.reply):
            _count_effect(summary, channel, index, effect, now)
            if lanes is not None and isinstance(effect, IrqLine) and effect.level:
                lanes.add((LINE, channel, index, effect.pin), now)
    return summary


def accesses_of(record: Record, kind: int, size: int) -> list[tuple[int, int, int]]:
    """(offset, READ or WRITE, bytes) of each access that the guest made with one request."""
    request = record.request
    offset = int.from_bytes(request[24:28], "little")
    if kind == protocol.WRITE_RUN:
        return [(offset, protocol.WRITE, 1)] * (len(request) - HEADER.size)
    if kind == protocol.INDEXED_READ:
        register = int.from_bytes(request[20:24], "little")
        return [(register, protocol.WRITE, 1), (offset, protocol.READ, size)]
    if kind in BLOCKS:
        return [(one.offset, one.kind, one.size) for one in made_of(record)]
    return [(offset, kind, size)]


def made_of(record: Record) -> list[protocol.Request]:
    """The accesses of a block that its reply says were made; all of them without a reply that can be read."""
    block = Block(protocol.decode_request(record.request))
    made = block.count
    reply = record.reply
    if is_accepted(reply):
        try:
            _, behind = decode_effects(reply[3], reply[HEADER.size :])
            value = int.from_bytes(reply[16:24], "little")
            made, _ = block.outcome(value, behind, has_effects=bool(reply[3]))
        except FrameError:
            pass
    return [block.single(number) for number in range(made)]


def _count_effect(summary: Summary, channel: int, index: int, effect: Effect, now: int) -> None:
    match effect:
        case IrqLine(pin, level, coalesced):
            line = summary.lines.setdefault((channel, index, pin), LineCount())
            line.coalesced += coalesced
            if level:
                line.raised.add(now)
            else:
                line.lowered += 1
        case HostOutput(data):
            summary.output.setdefault((channel, index), Span()).add(now, len(data))
        case _:
            pass


def device_name(channel: ChannelHeader, index: int) -> str:
    """The name of a device by its index, whatever the index."""
    return channel.devices[index].name if 0 <= index < len(channel.devices) else f"device {index}"


def line_name(channel: ChannelHeader, index: int, pin: int) -> str:
    """What an interrupt output is wired to: "IRQ 4 (COM1)"."""
    irqs = channel.devices[index].irqs if index < len(channel.devices) else ()
    wire = f"IRQ {irqs[pin]}" if pin < len(irqs) else f"pin {pin}"
    return f"{wire} ({device_name(channel, index)})"


Table = tuple[Sequence[str], Sequence[Sequence[str]]]
"""The titles of columns, and rows."""


def format_summary(summary: Summary) -> str:
    """The summary as a page of text."""
    return "\n".join([*headline(summary), *(line for table in tables(summary) for line in _table(*table))])


def headline(summary: Summary) -> list[str]:
    """What all of it is, in one or two lines."""
    records = summary.records
    first, last = (moment(now, 1000, records.last) for now in (records.first, records.last))
    lines = [f"{records.count} records, guest time {first} to {last}"]
    if summary.unanswered:
        lines.append(f"{summary.unanswered} of them without a reply that could be accepted")
    return lines


def tables(summary: Summary) -> tuple[Table, Table, Table, Table]:
    """Accesses, other requests, output, and interrupts."""
    channels = summary.channels
    accesses = [
        (
            channels[channel].devices[device].name,
            place_of(channels[channel].devices[device], offset),
            KIND_NAMES[kind],
            *_span_words(span),
        )
        for (channel, device, offset, kind), span in sorted(summary.accesses.items())
    ]
    others = [
        (
            channels[channel].device_type if device < 0 else device_name(channels[channel], device),
            KIND_NAMES[kind],
            *_span_words(span),
        )
        for (channel, device, kind), span in sorted(summary.others.items())
    ]
    output = [
        (device_name(channels[channel], device), *_span_words(span))
        for (channel, device), span in sorted(summary.output.items())
    ]
    interrupts = [
        (
            line_name(channels[channel], device, pin),
            *(str(line.raised.count), str(line.lowered), str(line.coalesced)),
            *(seconds(line.raised.first), seconds(line.raised.last)),
        )
        for (channel, device, pin), line in sorted(summary.lines.items())
    ]
    counted = ("count", "bytes", "first", "last")
    return (
        (("device", "where", "access", *counted), accesses),
        (("device", "request", *counted), others),
        (("output of", "replies", *counted[1:]), output),
        (("interrupt", "raised", "lowered", "coalesced", "first", "last"), interrupts),
    )


def as_data(summary: Summary) -> dict[str, Any]:
    """The summary as data; times are ns of guest time."""
    channels = summary.channels

    def span(one: Span) -> dict[str, int]:
        return {"count": one.count, "bytes": one.size, "first": one.first, "last": one.last}

    return {
        "records": span(summary.records),
        "unanswered": summary.unanswered,
        "accesses": [
            {
                "device": device_name(channels[channel], device),
                "offset": offset,
                "access": KIND_NAMES[kind],
                **span(one),
            }
            for (channel, device, offset, kind), one in sorted(summary.accesses.items())
        ],
        "requests": [
            {
                "device": None if device < 0 else device_name(channels[channel], device),
                "type": channels[channel].device_type,
                "request": KIND_NAMES[kind],
                **span(one),
            }
            for (channel, device, kind), one in sorted(summary.others.items())
        ],
        "output": [
            {"device": device_name(channels[channel], device), **span(one)}
            for (channel, device), one in sorted(summary.output.items())
        ],
        "interrupts": [
            {
                "device": device_name(channels[channel], device),
                "pin": pin,
                "lowered": one.lowered,
                "coalesced": one.coalesced,
                "raised": span(one.raised),
            }
            for (channel, device, pin), one in sorted(summary.lines.items())
        ],
    }


def _span_words(span: Span) -> tuple[str, str, str, str]:
    return str(span.count), str(span.size), seconds(span.first), seconds(span.last)


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    if not rows:
        return []
    widths = [max(len(row[column]) for row in (titles, *rows)) for column in range(len(titles))]
    numbers = [all(row[column][:1].isdigit() for row in rows) for column in range(len(titles))]
    lines = [""]
    for row in (titles, *rows):
        cells = [
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(row, widths, numbers, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    return lines
