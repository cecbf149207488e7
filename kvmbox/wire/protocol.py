"""The wire protocol between the VMM and a device process: pure encoding and decoding.

Every frame is one fixed little-endian header and a payload; header and payload fit in `MAX_FRAME` bytes.
The VMM sends requests. The device process answers them in order, with the kind of the request (plus `REPLY`)
and the sequence number. docs/wire-protocol.md describes the protocol. Only this module knows the layout.

    offset  size  request                          reply
    0       1     kind                             kind | REPLY, or ERROR
    1       1     device: index in the process     the same
    2       1     size of the access in bytes      the same
    3       1     0                                number of effects in the payload
    4       4     sequence number                  the same
    8       8     now: guest time in ns            next deadline of the process in ns, or NO_DEADLINE
    16      8     value                            value
    24      4     offset, or part number           of a READ: how long the value is steady
    28      4     length of the payload            length of the payload

The effects at the beginning of a reply's payload are those of `effects`.
"""

from __future__ import annotations

from struct import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Final, TypeAlias

    Parameter: TypeAlias = int | bytes

VERSION: Final = 10
MAX_FRAME: Final = 4096

HEADER: Final = Struct("<BBBBIQQII")

# The header as four words, for the hot paths: everything up to the sequence number is the first.
_COMPLETION: Final = Struct("<Q")
WORDS: Final = Struct("<QQQQ")
_MODEL: Final = Struct("<BB")  # length of the model's name, number of parameters; the name, the parameters
_PARAMETER: Final = Struct("<B?I")  # length of the name, whether it is bytes, length of the value; both
ROUTE_MASK: Final = 0xFFFF_FFFF
"""Of the first word: kind, device, size and count, which is what a request is routed by."""
MAX_PAYLOAD: Final = MAX_FRAME - HEADER.size
MAX_BOARD: Final = 4 << 20
"""How many bytes may describe the devices of a process: what their parameters hold is most of it."""
NO_DEADLINE: Final = (1 << 64) - 1
SEQUENCE_MASK: Final = 0xFFFF_FFFF

# The reply to a read of STEADY_KINDS may say that the value is steady (`contract.model.SteadyModel`). The two
# lowest bits tell how it stands to late writes; the others for how many microseconds.
OVER_LATE_WRITES: Final = 1
BEHIND_LATE_WRITES: Final = 2
STEADY_SHIFT: Final = 2
MAX_STEADY: Final = 50_000 << STEADY_SHIFT | BEHIND_LATE_WRITES | OVER_LATE_WRITES
"""50 ms: a process that has died is noticed no later than without steady reads."""

# Kinds of requests.
HELLO: Final = 1  # value: VERSION | length of the description << 32, offset: part, payload; reply: VERSION
READ: Final = 2  # reply value: what the guest reads
WRITE: Final = 3
ADVANCE: Final = 4  # let guest time pass in every model of the process
RECEIVE: Final = 5  # payload: host input; reply value: how many bytes were accepted
RESET: Final = 6  # the machine's reset line, for every model of the process
SNAPSHOT: Final = 7  # offset: part number; reply value: total length, payload: the part
RESTORE: Final = 8  # offset: part number, value: total length, payload: the part; reply value: 1 if good
SHUTDOWN: Final = 9  # answer, then leave
WRITE_RUN: Final = 10  # payload: bytes that the guest wrote, one after another, to the register at `offset`
REPLAY: Final = 12  # payload: requests, back to back; reply value: CRC-32 of their replies, without effects
INDEXED_READ: Final = 11  # a byte write, then a READ: value = register << 32 | byte of the write
MEMORY: Final = 13  # value: tag | status << 32, payload: the bytes that MEMORY_READ asked for, if status is 0
COMPLETE: Final = 14  # value: tag | status << 32: how a TRANSFER, a WINDOW, … went; payload: more of them
READ_WIDE: Final = 15  # `size` byte reads of consecutive registers; from here on see `access_blocks`
WRITE_WIDE: Final = 16  # `size` byte writes to consecutive registers, lowest byte of value first
READ_STRING: Final = 17  # value: how many reads of one register
WRITE_STRING: Final = 18  # payload: the values of writes to one register, one after another
CHAINS: Final = 19  # offset: queue, value: status, payload: what a WALK has brought; see `chains`
WRITE_LIST: Final = 20  # `size` byte writes, lowest byte of value first; offset: their registers, 4 bits each
COMPLETED_READ: Final = 21  # what a COMPLETE of this value tells, then a READ

REPLY: Final = 0x80
ERROR: Final = 0xFF  # the model raised: payload is text, bounded; the process exits after it

STEADY_KINDS: Final = (READ, INDEXED_READ, READ_WIDE, COMPLETED_READ)
"""Of these requests the reply may say that the value is steady."""

WRITE_KINDS: Final = (WRITE, WRITE_RUN, WRITE_WIDE, WRITE_STRING, WRITE_LIST)
"""What the guest writes comes as one of these."""

KIND_NAMES: Final = {
    HELLO: "hello",
    READ: "read",
    WRITE: "write",
    ADVANCE: "advance",
    RECEIVE: "receive",
    RESET: "reset",
    SNAPSHOT: "snapshot",
    RESTORE: "restore",
    SHUTDOWN: "shutdown",
    WRITE_RUN: "write run",
    INDEXED_READ: "indexed read",
    REPLAY: "replay",
    MEMORY: "memory",
    COMPLETE: "complete",
    READ_WIDE: "wide read",
    WRITE_WIDE: "wide write",
    READ_STRING: "string read",
    WRITE_STRING: "string write",
    CHAINS: "chains",
    WRITE_LIST: "list of writes",
    COMPLETED_READ: "completed read",
}


def request_word(kind: int, device: int, size: int) -> int:
    """The first eight bytes of a request as an integer, without its sequence number."""
    return kind | device << 8 | size << 16


class FrameError(ValueError):
    """Bytes that are no frame of this protocol; the message says what is wrong with them."""


class Request:
    """A request, decoded. Off the hot path: the server's loop unpacks the header itself."""

    __slots__ = ("device", "kind", "now", "offset", "payload", "sequence", "size", "value")

    def __init__(
        self,
        kind: int,
        device: int = 0,
        size: int = 0,
        sequence: int = 0,
        now: int = 0,
        value: int = 0,
        offset: int = 0,
        payload: bytes = b"",
    ) -> None:
        self.kind = kind
        self.device = device
        self.size = size
        self.sequence = sequence
        self.now = now
        self.value = value
        self.offset = offset
        self.payload = payload

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Request) and self.encode() == other.encode()

    __hash__ = None  # type: ignore[assignment]  # compared in tests, never looked up

    def encode(self) -> bytes:
        """The frame; FrameError if the payload is longer than `MAX_PAYLOAD`."""
        if len(self.payload) > MAX_PAYLOAD:
            raise FrameError(f"payload of {len(self.payload)} bytes, at most {MAX_PAYLOAD} fit")
        header = HEADER.pack(
            self.kind,
            self.device,
            self.size,
            0,
            self.sequence,
            self.now,
            self.value,
            self.offset,
            len(self.payload),
        )
        return header + self.payload


def decode_request(frame: bytes) -> Request:
    """The request in `frame`; FrameError if header and length do not agree with it."""
    if len(frame) < HEADER.size:
        raise FrameError(f"frame of {len(frame)} bytes is shorter than a header")
    kind, device, size, _, sequence, now, value, offset, length = HEADER.unpack_from(frame)
    if len(frame) != HEADER.size + length:
        raise FrameError(f"frame of {len(frame)} bytes announces a payload of {length}")
    return Request(kind, device, size, sequence, now, value, offset, frame[HEADER.size :])


def encode_board(devices: Sequence[tuple[str, Mapping[str, Parameter]]]) -> bytes:
    """The description of a process: the model and the parameters of each device, in index order.

    FrameError if it is longer than `MAX_BOARD`.
    """
    parts: list[bytes] = []
    for model, parameters in devices:
        name = model.encode("ascii")
        parts += [_MODEL.pack(len(name), len(parameters)), name]
        for key, value in parameters.items():
            is_bytes = isinstance(value, bytes)
            # An integer has a byte more than its bits may need: the sign.
            data = (
                value
                if isinstance(value, bytes)
                else value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
            )
            name = key.encode("ascii")
            parts += [_PARAMETER.pack(len(name), is_bytes, len(data)), name, data]
    description = b"".join(parts)
    if len(description) > MAX_BOARD:
        raise FrameError(
            f"the devices of a process are described by {len(description)} bytes, at most {MAX_BOARD} may be"
        )
    return description


def decode_board(description: bytes) -> list[tuple[str, dict[str, Parameter]]]:
    """What `encode_board` was given; FrameError for anything that it cannot have written."""
    position = 0

    def take(size: int) -> bytes:
        nonlocal position
        position += size
        if position > len(description):
            raise FrameError(f"a description of {len(description)} bytes ends within a device")
        return description[position - size : position]

    board: list[tuple[str, dict[str, Parameter]]] = []
    try:
        while position < len(description):
            length, count = _MODEL.unpack(take(_MODEL.size))
            model = take(length).decode("ascii")
            parameters: dict[str, Parameter] = {}
            for _ in range(count):
                length, is_bytes, size = _PARAMETER.unpack(take(_PARAMETER.size))
                key = take(length).decode("ascii")
                data = take(size)
                parameters[key] = data if is_bytes else int.from_bytes(data, "little", signed=True)
            board.append((model, parameters))
    except UnicodeDecodeError as error:
        raise FrameError("a name in a description is not ASCII") from error
    return board


def hello_requests(devices: Sequence[tuple[str, Mapping[str, Parameter]]]) -> list[Request]:
    """The first requests on a channel, without their sequence numbers: the description in its parts."""
    description = encode_board(devices)
    value = VERSION | len(description) << 32
    return [
        Request(HELLO, value=value, offset=part, payload=description[start : start + MAX_PAYLOAD])
        for part, start in enumerate(range(0, max(1, len(description)), MAX_PAYLOAD))
    ]


def completions(request: Request) -> list[int]:
    """What a COMPLETE tells of, in order: words of a tag, and a status << 32. Raises FrameError."""
    if len(request.payload) % 8:
        raise FrameError(f"a completion with a payload of {len(request.payload)} bytes")
    return [request.value, *(word for (word,) in _COMPLETION.iter_unpack(request.payload))]


SOURCE: Final = ".source"
"""The parameter that is no parameter of the model, but the text of the module that defines it."""


class Parts:
    """Puts together what comes in numbered parts of `MAX_PAYLOAD` bytes, the last one less."""

    __slots__ = ("_data", "_limit", "_what")

    def __init__(self, what: str, limit: int) -> None:
        self._what = what
        self._limit = limit
        self._data = bytearray()

    def add(self, part: int, total: int, payload: bytes) -> bytes | None:
        """The whole, if it is complete now. Part 0 begins anew. FrameError where a part is out of order."""
        data = self._data
        if part == 0:
            data.clear()
        if (
            total > self._limit
            or part * MAX_PAYLOAD != len(data)
            or len(payload) != min(MAX_PAYLOAD, total - len(data))
        ):
            raise FrameError(f"{self._what} part {part} of {total} bytes is out of order")
        data += payload
        if len(data) < total:
            return None
        whole = bytes(data)
        data.clear()
        return whole
