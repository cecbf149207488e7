"""Requests and replies in words, and as data for JSON. Replies are hostile: any bytes are described."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from kvmbox.contract.device_spec import DeviceSpec
from kvmbox.contract.model import Effect
from kvmbox.parts.record.format import ChannelHeader, Record
from kvmbox.remote.channel.deadlines import printable
from kvmbox.wire import protocol
from kvmbox.wire.access_blocks import BLOCKS, Block
from kvmbox.wire.chains import decode_chains
from kvmbox.wire.effect_kinds import BY_CLASS
from kvmbox.wire.effect_texts import TEXTS, excerpt
from kvmbox.wire.effects import decode_effects
from kvmbox.wire.protocol import HEADER, KIND_NAMES, NO_DEADLINE, FrameError, Request

WHOLE_PROCESS: Final = frozenset({protocol.HELLO, protocol.ADVANCE, protocol.RESET, protocol.SHUTDOWN})
"""Requests to all devices of a process."""

ACCESSES: Final = frozenset(
    (protocol.READ, protocol.WRITE, protocol.INDEXED_READ, protocol.WRITE_RUN, *BLOCKS)
)
"""Requests that are accesses of the guest to a register."""

_UART: Final = ("RBR/THR/DLL", "IER/DLM", "IIR/FCR", "LCR", "MCR", "LSR", "MSR", "SCR")
REGISTER_NAMES: Final = {
    "uart_16550a": _UART,
    "pit_8254": ("counter 0", "counter 1", "counter 2", "control word", "port 0x61"),
    "rtc_mc146818": ("index", "data"),
    "i8042": ("data", "status/command", "system control A"),
}
"""Names of the registers of a model by offset, where they have names."""

STATUS_NAMES: Final = ("done", "bad address", "beyond the end", "failed", "no space", "busy", "moved")
"""How an access to memory or a transfer went, by its status (`contract.model`)."""

_UNITS: Final = ((1_000_000_000, "s"), (1_000_000, "ms"), (1000, "µs"), (1, "ns"))


def seconds(now: int) -> str:
    """Guest time for a person."""
    return f"{now // 1_000_000_000}.{now % 1_000_000_000:09d} s"


def moment(now: int, precision: int, scale: int) -> str:
    """Guest time for a person who need not know it better than to `precision` ns: "1.31 ms". `scale` is the
    greatest time beside it, which all have the unit of.
    """
    size, unit = next((size, unit) for size, unit in _UNITS if size <= max(scale, 1))
    return f"{now / size:.{max(0, len(str(size)) - len(str(precision)))}f} {unit}"


def device_of(channel: ChannelHeader, request: Request) -> DeviceSpec | None:
    """The device that a request is for, or None if it is for the whole process."""
    if request.kind in WHOLE_PROCESS or request.device >= len(channel.devices):
        return None
    return channel.devices[request.device]


def addresses_of(device: DeviceSpec, offset: int) -> list[tuple[str, int]]:
    """("port" or "address", number) of a register: all of them, since a request does not say which."""
    return [
        (space, mapped.first + offset - mapped.offset)
        for space, ranges in (("port", device.ports), ("address", device.mmio))
        for mapped in ranges
        if mapped.offset <= offset < mapped.offset + mapped.count
    ]


def place_of(device: DeviceSpec, offset: int) -> str:
    """A register for a person: "port 0x3fd (LSR)"."""
    found = addresses_of(device, offset)
    place = " or ".join(f"{space} {number:#x}" for space, number in found) or f"offset {offset:#x}"
    names = REGISTER_NAMES.get(device.model, ())
    return f"{place} ({names[offset]})" if offset < len(names) else place


def subject(channel: ChannelHeader, request: Request) -> str:
    """Whom a request is for: "COM1 (uart)" or "uart"."""
    device = device_of(channel, request)
    return channel.device_type if device is None else f"{device.name} ({channel.device_type})"


def request_text(channel: ChannelHeader, request: Request) -> str:
    """What is asked: "write 0x41 to port 0x3f8 (RBR/THR/DLL)"."""
    device = device_of(channel, request)
    kind = KIND_NAMES.get(request.kind, f"kind {request.kind}")
    if device is None:
        return kind
    if request.kind in (protocol.READ, protocol.WRITE):
        where = place_of(device, request.offset)
        width = "" if request.size == 1 else f" {request.size} bytes"
        if request.kind == protocol.READ:
            return f"read{width} {where}"
        return f"write{width} {request.value:#0{2 + 2 * request.size}x} to {where}"
    if request.kind == protocol.INDEXED_READ:
        index = place_of(device, request.value >> 32)
        return f"write {request.value & 0xFF:#04x} to {index}, read {place_of(device, request.offset)}"
    if request.kind == protocol.WRITE_RUN:
        where = place_of(device, request.offset)
        return f"write {len(request.payload)} times to {where}: {excerpt(request.payload)}"
    if request.kind in BLOCKS:
        return _block_text(device, request)
    if request.kind == protocol.RECEIVE:
        return f"receive {len(request.payload)} bytes: {excerpt(request.payload)}"
    if request.kind == protocol.MEMORY:
        tag, status = request.value & 0xFFFF_FFFF, request.value >> 32
        return f"memory (tag {tag}): " + (
            _status(status) if status else f"{len(request.payload)} bytes: {excerpt(request.payload)}"
        )
    if request.kind in (protocol.COMPLETE, protocol.CHAINS):
        try:
            return _complete_text(request) if request.kind == protocol.COMPLETE else _chains_text(request)
        except FrameError as error:
            return f"{kind}: {error}"
    return f"{kind} part {request.offset}"


def _status(status: int) -> str:
    return STATUS_NAMES[status] if status < len(STATUS_NAMES) else f"status {status}"


def _complete_text(request: Request) -> str:
    ended = [f"(tag {one & 0xFFFF_FFFF}): {_status(one >> 32)}" for one in protocol.completions(request)]
    return f"complete {', '.join(ended)}"


def _chains_text(request: Request) -> str:
    """What a walk of a queue has brought."""
    chains = [
        f"chain {one.handle} ({one.readable} readable, {one.writable} writable): {excerpt(one.head)}"
        for one in decode_chains(request.payload)
    ]
    if request.value:
        return f"chains of queue {request.offset}: {_status(request.value)}"
    return f"chains of queue {request.offset}: {', '.join(chains) or 'none'}"


def _block_text(device: DeviceSpec, request: Request) -> str:
    """Several accesses in one request: "read bytes from port 0x3f8 (RBR/THR/DLL) to …"."""
    block = Block(request)
    if request.kind == protocol.WRITE_LIST:
        writes = [
            f"{byte:#04x} to {place_of(device, block.register(n))}" for n, byte in enumerate(block.data)
        ]
        return f"write {', '.join(writes)}"
    first = place_of(device, request.offset)
    if block.step:
        last = place_of(device, request.offset + block.count - 1)
        where, how = f"{first} to {last}", "each of the bytes at"
    else:
        width = "a byte" if block.width == 1 else f"{block.width} bytes"
        where, how = first, f"{block.count} times {width} at"
    return f"read {how} {where}" if block.reads else f"write {how} {where}: {excerpt(block.data)}"


def reply_text(channel: ChannelHeader, request: Request, reply: bytes) -> str:
    """What came back, in one line."""
    if not reply:
        return "no reply: the device process died or hung"
    if len(reply) < HEADER.size:
        return f"a frame of {len(reply)} bytes: {reply.hex()}"
    kind, device, size, count, sequence, deadline, value, steady, length = HEADER.unpack_from(reply)
    body = reply[HEADER.size :]
    if kind == protocol.ERROR:
        return f"the model failed: {printable(body)}"
    parts: list[str] = []
    is_steady_read = request.kind in protocol.STEADY_KINDS
    zero = 0 if is_steady_read else steady
    if (kind, device, size) != (request.kind | protocol.REPLY, request.device, request.size) or zero:
        parts.append(f"kind {kind:#x} device {device} size {size} zero {zero}")
    if sequence != request.sequence:
        parts.append(f"sequence {sequence} instead of {request.sequence}")
    if request.kind in (protocol.READ, protocol.INDEXED_READ) or (
        request.kind == protocol.READ_WIDE and not count
    ):
        parts.append(f"value {value:#0{2 + 2 * request.size}x}")
    elif value:
        parts.append(f"value {value}")
    if is_steady_read and steady:
        late = " over late writes" if steady & protocol.OVER_LATE_WRITES else ""
        if steady & protocol.BEHIND_LATE_WRITES:
            late = " as the first behind late writes"
        parts.append(f"steady for {steady >> protocol.STEADY_SHIFT} µs{late}")
    parts.append("no deadline" if deadline == NO_DEADLINE else f"deadline {seconds(deadline)}")
    if length != len(body):
        return ", ".join([*parts, f"{len(body)} bytes where {length} are announced: {body.hex()}"])
    try:
        effects, rest = decode_effects(count, body)
    except FrameError as error:
        return ", ".join([*parts, f"{error}: {body.hex()}"])
    parts += [_effect_text(channel.devices, index, effect) for index, effect in effects]
    if rest:
        parts.append(f"{len(rest)} bytes: {rest.hex()}")
    return ", ".join(parts)


def _effect_text(devices: Sequence[DeviceSpec], index: int, effect: Effect) -> str:
    name = devices[index].name if index < len(devices) else f"device {index}"
    irqs = devices[index].irqs if index < len(devices) else ()

    def wire(pin: int) -> str:
        return f"IRQ {irqs[pin]}" if pin < len(irqs) else f"pin {pin}"

    return f"{name} {TEXTS[type(effect)](effect, wire)}"


def record_line(channel: ChannelHeader, record: Record) -> str:
    """One record as a line of text."""
    request = protocol.decode_request(record.request)
    return (
        f"{record.number:>8}  {seconds(request.now)}  {subject(channel, request)}: "
        f"{request_text(channel, request)} -> {reply_text(channel, request, record.reply)}"
    )


def record_data(channel: ChannelHeader, record: Record) -> dict[str, Any]:
    """One record as data for JSON; bytes are hexadecimal digits, times ns."""
    request = protocol.decode_request(record.request)
    device = device_of(channel, request)
    data: dict[str, Any] = {
        "record": record.number,
        "time": request.now,
        "type": channel.device_type,
        "device": None if device is None else device.name,
        "request": KIND_NAMES.get(request.kind, str(request.kind)),
        "sequence": request.sequence,
    }
    if device is not None and request.kind in ACCESSES:
        found = addresses_of(device, request.offset)
        if len(found) == 1 and request.kind != protocol.WRITE_LIST:
            data |= dict(found)
        data |= {"offset": request.offset, "size": request.size}
        if request.kind in (protocol.WRITE, protocol.WRITE_WIDE, protocol.WRITE_LIST):
            data["value"] = request.value
        elif request.kind == protocol.READ_STRING:
            data["count"] = request.value
        elif request.kind == protocol.INDEXED_READ:
            data["index"] = {"offset": request.value >> 32, "value": request.value & 0xFF}
    if request.payload:
        data["payload"] = request.payload.hex()
    return data | {"reply": _reply_data(channel, record.reply)}


def _reply_data(channel: ChannelHeader, reply: bytes) -> dict[str, Any] | None:
    if not reply:
        return None
    if len(reply) < HEADER.size:
        return {"frame": reply.hex()}
    kind, _, _, count, _, deadline, value, steady, length = HEADER.unpack_from(reply)
    body = reply[HEADER.size :]
    if kind == protocol.ERROR:
        return {"error": printable(body)}
    try:
        if length != len(body):
            raise FrameError("length")
        effects, rest = decode_effects(count, body)
    except FrameError:
        return {"frame": reply.hex()}
    data: dict[str, Any] = {
        "value": value,
        "deadline": None if deadline == NO_DEADLINE else deadline,
        "effects": [_effect_data(channel, index, effect) for index, effect in effects],
    }
    if steady:
        data["steady_us"] = steady >> protocol.STEADY_SHIFT
    if rest:
        data["payload"] = rest.hex()
    return data


def _effect_data(channel: ChannelHeader, index: int, effect: Effect) -> dict[str, Any]:
    name = channel.devices[index].name if index < len(channel.devices) else None
    fields = {field: getattr(effect, field) for field in effect.__match_args__}
    return {
        "device": name,
        "effect": BY_CLASS[type(effect)].short,
        **{field: value.hex() if isinstance(value, bytes) else value for field, value in fields.items()},
    }
