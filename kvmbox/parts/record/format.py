"""The bytes of a recording: pure encoding and decoding. docs/record-replay.md is the page for people.

    offset  size  what
    0       8     MAGIC: a byte that is no text, then line ends that a text-mode copy would change
    8       2     version
    10      2     0
    12      4     length of the header
    16      n     header: JSON, the channels with their devices, and the faults between them and the guest
    16 + n        one zlib stream of records, flushed to a byte boundary after each write

    record: channel (1), kind (1), request length (2), reply length (2), request, reply; little-endian

A record of kind EXCHANGE is one request and what came back, as both crossed the wire; a reply of length 0
means that the device process died or hung without one. The last record is of kind END: why the recording
ends and how many exchanges it has. A recording without it was cut, and is good up to its last whole record.

A recording may come from anywhere, so all of it is checked here, but for replies: those are compared, and
a reply of any bytes up to one frame is something that a device process can have sent.
"""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Sequence
from struct import Struct
from typing import Any, Final, NamedTuple

from kvmbox.base.errors import RecordingError
from kvmbox.base.value_classes import Value
from kvmbox.contract.device_spec import AddressRange, DeviceSpec, Irq, by_type
from kvmbox.wire import protocol
from kvmbox.wire.access_blocks import BLOCKS, Block
from kvmbox.wire.protocol import HEADER, Parts

MAGIC: Final = b"\x89KVMREC\n"
VERSION: Final = 4
MAX_HEADER: Final = 1 << 16
MAX_CHANNELS: Final = 32
MAX_DEVICES: Final = 256
"""A frame has one byte for the number of a device."""

MAX_FAULTS: Final = 64
MAX_FAULT_TEXT: Final = 400
"""How many faults a run may inject, and how many characters each has."""

PREAMBLE: Final = Struct("<8sHHI")
RECORD: Final = Struct("<BBHH")
EXCHANGE: Final = 0
END: Final = 1
MAX_REPLY: Final = protocol.MAX_FRAME + 1
"""The VMM reads one byte more than a frame may have, to see that it is too long."""

MAX_NOW: Final = (1 << 63) - 1
"""The latest guest time in ns, 292 years: models keep what lies beyond for "never"."""

_END: Final = Struct("<BQ")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}")
_ACCESS_LIMITS: Final = {size: 1 << 8 * size for size in (1, 2, 4, 8)}
_KINDS: Final = {
    *range(protocol.HELLO, protocol.WRITE_RUN + 1),
    *(protocol.MEMORY, protocol.COMPLETE, protocol.CHAINS),
}


class EndReason(enum.IntEnum):
    """Why a recording ends."""

    COMPLETE = 0
    LIMIT = 1


class Record(NamedTuple):
    """One exchange. `number` counts from 0 through the file, `channel` is an index in the header."""

    number: int
    channel: int
    request: bytes
    reply: bytes

    @property
    def now(self) -> int:
        """Guest time of the request in ns."""
        return int(HEADER.unpack_from(self.request)[5])


class ChannelHeader(Value):
    """One device process: its type, and its devices in index order."""

    device_type: str
    devices: tuple[DeviceSpec, ...]


class End(Value):
    """The end mark: why the recording ends, and how many exchanges precede it."""

    reason: EndReason
    count: int


# --- Header -----------------------------------------------------------------------------------------------


def channels_of(board: Sequence[DeviceSpec], *, per_device: bool = False) -> tuple[ChannelHeader, ...]:
    """The channels of a board: one for each process, in the order in which they come up."""
    types = by_type(board, per_device=per_device)
    return tuple(ChannelHeader(name, tuple(devices)) for name, devices in types.items())


def encode_header(channels: Sequence[ChannelHeader], inject: Sequence[str] = ()) -> bytes:
    """Preamble and header. `inject` are the faults of `kvmbox run --inject`."""
    described = [
        {"type": channel.device_type, "devices": [_device(one) for one in channel.devices]}
        for channel in channels
    ]
    data = ({"inject": list(inject)} if inject else {}) | {"channels": described}
    text = json.dumps(data, separators=(",", ":")).encode("ascii")
    return PREAMBLE.pack(MAGIC, VERSION, 0, len(text)) + text


def _device(device: DeviceSpec) -> dict[str, Any]:
    return {
        "name": device.name,
        "model": device.model,
        "ports": [[r.first, r.count, r.offset] for r in device.ports],
        "mmio": [[r.first, r.count, r.offset] for r in device.mmio],
        "irqs": list(device.irqs),
    }


def header_length(preamble: bytes) -> int:
    """How many bytes of header follow the preamble. Raises RecordingError."""
    if not MAGIC.startswith(preamble[: len(MAGIC)]) or not preamble:
        raise RecordingError("it is no recording", hint="'kvmbox run --record FILE' makes one")
    if len(preamble) < PREAMBLE.size:
        raise RecordingError("it is cut within its first bytes: nothing of it is usable")
    _, version, zero, length = PREAMBLE.unpack_from(preamble)
    if version != VERSION or zero:
        raise RecordingError(
            f"it has format version {version}, this kvmbox reads version {VERSION}",
            hint="replay it with the version of kvmbox that recorded it",
        )
    if length > MAX_HEADER:
        raise RecordingError(f"its header is damaged: {length} bytes, at most {MAX_HEADER} can be")
    return int(length)


def decode_header(text: bytes) -> tuple[ChannelHeader, ...]:
    """The channels. Raises RecordingError for anything that `encode_header` cannot have written."""
    try:
        channels = tuple(_decode_channel(entry) for entry in json.loads(text)["channels"])
        types = [channel.device_type for channel in channels]
        if not 0 < len(types) <= MAX_CHANNELS or len(set(types)) != len(types):
            raise ValueError("channels")
    # What JSON may hold in the wrong place is caught where it is of no use: nesting is RecursionError.
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        raise RecordingError("its header is damaged: it describes no channels") from error
    return channels


def decode_inject(text: bytes) -> tuple[str, ...]:
    """The faults of a header that `decode_header` has found good, as the command line had them.

    Raises RecordingError for anything that `encode_header` cannot have written.
    """
    faults = json.loads(text).get("inject", [])
    if not isinstance(faults, list) or len(faults) > MAX_FAULTS:
        raise RecordingError("its header is damaged: it describes no faults")
    if not all(isinstance(one, str) and one.isprintable() and len(one) <= MAX_FAULT_TEXT for one in faults):
        raise RecordingError("its header is damaged: a fault is not a line of text")
    return tuple(faults)


def _decode_channel(entry: Any) -> ChannelHeader:
    device_type = _name(entry["type"])
    devices = tuple(
        DeviceSpec(
            _name(device["name"]),
            device_type,
            _name(device["model"]),
            ports=tuple(_address_range(item) for item in device["ports"]),
            mmio=tuple(_address_range(item) for item in device["mmio"]),
            grants=tuple(Irq(_integer(item, 1 << 16)) for item in device["irqs"]),
        )
        for device in entry["devices"]
    )
    if not 0 < len(devices) <= MAX_DEVICES:
        raise ValueError("devices")
    return ChannelHeader(device_type, devices)


def _name(value: Any) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise ValueError("name")
    return value


def _integer(value: Any, end: int) -> int:
    if type(value) is not int or not 0 <= value < end:
        raise ValueError("number")
    return value


def _address_range(value: Any) -> AddressRange:
    first, count, offset = value
    return AddressRange(_integer(first, 1 << 64), _integer(count, 1 << 32), _integer(offset, 1 << 32))


# --- Records ----------------------------------------------------------------------------------------------


def encode_end(end: End) -> bytes:
    """The last record."""
    return RECORD.pack(0, END, _END.size, 0) + _END.pack(end.reason, end.count)


def decode_end(payload: bytes, reply_length: int) -> End:
    """The end mark of a record of kind END. Raises RecordingError."""
    if len(payload) != _END.size or reply_length:
        raise RecordingError("its end mark is damaged")
    reason, count = _END.unpack(payload)
    try:
        return End(EndReason(reason), count)
    except ValueError as error:
        raise RecordingError(f"its end mark is damaged: reason {reason}") from error


class RequestCheck:
    """Whether the requests of one channel are such as a VMM sends: models are never given others."""

    __slots__ = ("_description", "_devices", "_greeted")

    def __init__(self, channel: ChannelHeader) -> None:
        self._devices = len(channel.devices)
        self._description = Parts("hello", protocol.MAX_BOARD)
        self._greeted = False

    def problem(self, request: bytes) -> str | None:
        """What is wrong with `request`, the next one of the channel, or None."""
        if len(request) < HEADER.size:
            return f"a request of {len(request)} bytes"
        kind, device, size, zero, _, now, value, offset, length = HEADER.unpack_from(request)
        if length != len(request) - HEADER.size or len(request) > protocol.MAX_FRAME or zero:
            return f"a request of {len(request)} bytes that announces a payload of {length}"
        if now > MAX_NOW:
            return f"a request at guest time {now} ns"
        if kind in (protocol.READ, protocol.WRITE):
            if size not in _ACCESS_LIMITS or value >= _ACCESS_LIMITS[size] or length:
                return f"an access of {size} bytes with value {value:#x}"
        elif kind == protocol.INDEXED_READ:
            if size not in _ACCESS_LIMITS or value & 0xFFFF_FF00 or length:
                return f"an indexed read of {size} bytes with value {value:#x}"
        elif kind in BLOCKS:
            try:
                Block(protocol.decode_request(request))
            except protocol.FrameError as error:
                return str(error)
        elif kind not in _KINDS or size:
            return f"a request of kind {kind}"
        if device >= self._devices:
            return f"a request to device {device}, its process has {self._devices}"
        if (kind == protocol.HELLO) == self._greeted:
            return "a second hello" if self._greeted else "a request before the hello"
        if kind == protocol.HELLO:
            try:
                whole = self._description.add(offset, value >> 32, request[HEADER.size :])
            except protocol.FrameError as error:
                return str(error)
            self._greeted = whole is not None
        return None
