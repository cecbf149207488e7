"""The wire protocol under arbitrary bytes: what decodes is what encodes, all else is a FrameError."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kvmbox.contract.model import (
    ContentRead,
    Effect,
    HostOutput,
    InputRoom,
    IrqLine,
    MemoryRead,
    MemoryWrite,
    Reset,
    Stop,
    Transfer,
)
from kvmbox.wire import protocol
from kvmbox.wire.effects import MAX_EFFECTS, decode_effects, encode_effects, encode_reply
from kvmbox.wire.protocol import (
    HEADER,
    MAX_PAYLOAD,
    FrameError,
    Request,
    decode_board,
    decode_request,
    encode_board,
)

BYTE = st.integers(0, 0xFF)
WORD = st.integers(0, 0xFFFF_FFFF)
LONG = st.integers(0, 2**64 - 1)

RANGES = st.lists(st.tuples(LONG, WORD), max_size=5)
EFFECTS: st.SearchStrategy[Effect] = st.one_of(
    st.builds(IrqLine, BYTE, st.just(1), WORD),
    st.builds(IrqLine, BYTE, st.just(0)),
    st.builds(HostOutput, st.binary(max_size=40)),
    st.builds(InputRoom, WORD),
    st.just(Reset()),
    st.just(Stop()),
    st.builds(MemoryRead, WORD, RANGES),
    st.builds(MemoryWrite, LONG, st.binary(max_size=40), LONG),
    st.builds(ContentRead, WORD, LONG, LONG, LONG),
    st.builds(Transfer, WORD, LONG, LONG, RANGES, st.integers(0, 1)),
)
PAIRS = st.lists(st.tuples(BYTE, EFFECTS), max_size=30)
REQUESTS = st.builds(Request, BYTE, BYTE, BYTE, WORD, LONG, LONG, WORD, st.binary(max_size=60))


@given(REQUESTS)
def test_request_survives_the_wire(request: Request) -> None:
    assert decode_request(request.encode()) == request


@given(PAIRS, st.binary(max_size=20))
def test_effects_survive_the_wire(pairs: list[tuple[int, Effect]], rest: bytes) -> None:
    assert decode_effects(len(pairs), encode_effects(pairs) + rest) == (pairs, rest)


@given(st.integers(0, MAX_EFFECTS), st.one_of(st.binary(max_size=120), PAIRS.map(encode_effects)))
def test_effects_of_any_bytes_are_refused_or_are_those_that_encode_to_them(count: int, body: bytes) -> None:
    try:
        effects, rest = decode_effects(count, body)
    except FrameError:
        return
    assert len(effects) == count
    assert encode_effects(effects) + rest == body


@given(st.data())
def test_effects_with_one_byte_changed_are_refused_or_encode_to_what_was_sent(data: st.DataObject) -> None:
    pairs = data.draw(st.lists(st.tuples(BYTE, EFFECTS), min_size=1, max_size=6))
    body = bytearray(encode_effects(pairs))
    body[data.draw(st.integers(0, len(body) - 1))] = data.draw(BYTE)
    try:
        effects, rest = decode_effects(len(pairs), bytes(body))
    except FrameError:
        return
    assert encode_effects(effects) + rest == bytes(body)


@given(st.binary(max_size=100))
def test_request_of_any_bytes_is_refused_or_agrees_with_its_length(frame: bytes) -> None:
    try:
        request = decode_request(frame)
    except FrameError:
        return
    # The fourth byte is not the request's.
    assert request.encode()[:3] + frame[3:4] + request.encode()[4:] == frame


@given(REQUESTS, st.one_of(st.none(), st.integers(0, 2**64 - 2)), LONG, PAIRS, st.binary(max_size=60))
def test_reply_echoes_its_request_and_carries_everything(
    request: Request, deadline: int | None, value: int, pairs: list[tuple[int, Effect]], payload: bytes
) -> None:
    reply = encode_reply(request, deadline, value, pairs, payload)
    kind, device, size, count, sequence, due, result, zero, length = HEADER.unpack_from(reply)
    assert (kind, device, size) == (request.kind | protocol.REPLY, request.device, request.size)
    assert (sequence, result, zero) == (request.sequence, value, 0)
    assert due == (protocol.NO_DEADLINE if deadline is None else deadline)
    assert length == len(reply) - HEADER.size <= MAX_PAYLOAD
    assert decode_effects(count, reply[HEADER.size :]) == (pairs, payload)


NAMES = st.text("abcdefghijklmnopqrstuvwxyz_0123456789", min_size=1, max_size=12)


@given(
    st.lists(
        st.tuples(NAMES, st.dictionaries(NAMES, st.one_of(st.integers(), st.binary()), max_size=4)),
        min_size=1,
        max_size=6,
    )
)
def test_board_survives_the_wire(board: list[tuple[str, dict[str, int | bytes]]]) -> None:
    assert decode_board(encode_board(board)) == board


@given(st.binary(max_size=60))
def test_board_of_any_bytes_is_refused_with_a_value_error_or_decoded(payload: bytes) -> None:
    try:
        board = decode_board(payload)
    except ValueError:
        return
    assert all(isinstance(value, int | bytes) for _, values in board for value in values.values())
