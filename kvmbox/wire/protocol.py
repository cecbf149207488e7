"""The wire protocol between the VMM and a device process: pure encoding and decoding.

Every frame is one fixed little-endian header and a payload; header and payload fit in `MAX_FRAME` bytes.
The VMM asks, the device process answers, in order, with the request's kind (plus `REPLY`) and sequence
number. docs/wire-protocol.md is the page for people; this file is the only code that knows the layout.

    offset  size  request                          reply
    0       1     kind                             kind | REPLY, or ERROR
    1       1     device: index in the process     the same
    2       1     size of the access in bytes      the same
    3       1     0                                number of effects in the payload
    4       4     sequence number                  the same
    8       8     now: guest time in ns            next deadline of the process in ns, or NO_DEADLINE
    16      8     value                            value
    24      4     offset, or part number           0
    28      4     length of the payload            length of the payload

The effects at the beginning of a reply's payload are those of `effects`.
"""

from __future__ import annotations

from struct import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

VERSION: Final = 2
MAX_FRAME: Final = 4096

HEADER: Final = Struct("<BBBBIQQII")

# The header as four words, for the hot paths: everything up to the sequence number is the first.
WORDS: Final = Struct("<QQQQ")
ROUTE_MASK: Final = 0xFFFF_FFFF
"""Of the first word: kind, device, size and count, which is what a request is routed by."""
MAX_PAYLOAD: Final = MAX_FRAME - HEADER.size
NO_DEADLINE: Final = (1 << 64) - 1
SEQUENCE_MASK: Final = 0xFFFF_FFFF

# Kinds of requests.
HELLO: Final = 1  # value: VERSION, payload: the description of the board; reply: VERSION
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

REPLY: Final = 0x80
ERROR: Final = 0xFF  # the model raised: payload is text, bounded; the process exits after it

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


def encode_board(devices: list[tuple[str, dict[str, int]]]) -> bytes:
    """The payload of HELLO: one line a device, `model name=integer …`, in index order."""
    lines = [" ".join([model, *(f"{k}={v}" for k, v in values.items())]) for model, values in devices]
    return "\n".join(lines).encode("ascii")


def decode_board(payload: bytes) -> list[tuple[str, dict[str, int]]]:
    """What `encode_board` was given."""
    board: list[tuple[str, dict[str, int]]] = []
    for line in payload.decode("ascii").splitlines():
        model, *words = line.split(" ")
        pairs = [word.partition("=") for word in words]
        board.append((model, {name: int(value) for name, _, value in pairs}))
    return board
