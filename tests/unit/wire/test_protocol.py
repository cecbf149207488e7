"""The wire protocol: the layout byte by byte, and everything that is no frame of it."""

from __future__ import annotations

import struct

import pytest

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
    Suspend,
    TakeLine,
    Transfer,
)
from kvmbox.wire import protocol
from kvmbox.wire.effect_kinds import BY_CLASS, EFFECT
from kvmbox.wire.effects import MAX_EFFECTS, decode_effects, encode_effects, encode_reply
from kvmbox.wire.protocol import (
    HEADER,
    MAX_FRAME,
    MAX_PAYLOAD,
    NO_DEADLINE,
    FrameError,
    Request,
    decode_board,
    decode_request,
    encode_board,
)


def test_header_layout_is_that_of_the_documentation() -> None:
    request = Request(
        0x11, 0x22, 0x33, 0x44556677, 0x8899AABBCCDDEEFF, 0x0123456789ABCDEF, 0xFEDCBA98, b"pay"
    )
    frame = request.encode()
    assert frame[:32].hex() == "1122330077665544ffeeddccbbaa9988efcdab896745230198badcfe03000000"
    assert frame[32:] == b"pay"
    assert (HEADER.size, MAX_FRAME, MAX_PAYLOAD) == (32, 4096, 4064)


def test_kinds_are_distinct_and_leave_the_reply_bit_free() -> None:
    kinds = [
        *(protocol.HELLO, protocol.READ, protocol.WRITE, protocol.ADVANCE, protocol.RECEIVE),
        *(protocol.RESET, protocol.SNAPSHOT, protocol.RESTORE, protocol.SHUTDOWN),
    ]
    assert kinds == list(range(1, 10))
    assert all(kind & protocol.REPLY == 0 and kind | protocol.REPLY != protocol.ERROR for kind in kinds)


def test_reply_layout_is_that_of_the_documentation() -> None:
    request = Request(protocol.WRITE, 2, 1, 0x01020304, now=99, value=7, offset=5)
    reply = encode_reply(request, 0x1122334455667788, 0, [(2, Stop())], b"xy")
    assert reply.hex() == (
        "83020101" "04030201" "8877665544332211" "0000000000000000" "00000000" "0a000000"
        "0502000000000000" "7879"
    )  # fmt: skip


def test_reply_without_a_deadline_says_so() -> None:
    reply = encode_reply(Request(protocol.READ), None, 0, [])
    assert HEADER.unpack(reply)[5] == NO_DEADLINE == 2**64 - 1


@pytest.mark.parametrize("payload", [b"", b"x", bytes(MAX_PAYLOAD)])
def test_request_is_decoded_as_it_was_encoded(payload: bytes) -> None:
    request = Request(protocol.RECEIVE, 3, 4, 5, 6, 7, 8, payload)
    assert decode_request(request.encode()) == request


def test_request_with_too_long_a_payload_is_not_encoded() -> None:
    with pytest.raises(FrameError, match="4065 bytes, at most 4064"):
        Request(protocol.RECEIVE, payload=bytes(MAX_PAYLOAD + 1)).encode()


@pytest.mark.parametrize("size", [0, 1, 31])
def test_decode_request_shorter_than_a_header_raises(size: int) -> None:
    with pytest.raises(FrameError, match="shorter than a header"):
        decode_request(bytes(size))


@pytest.mark.parametrize("change", [b"\0", b"more"])
def test_decode_request_with_stray_bytes_raises(change: bytes) -> None:
    with pytest.raises(FrameError, match="announces a payload of 1"):
        decode_request(Request(protocol.RECEIVE, payload=b"x").encode() + change)


def test_decode_request_that_was_cut_raises() -> None:
    with pytest.raises(FrameError, match="frame of 33 bytes announces a payload of 2"):
        decode_request(Request(protocol.RECEIVE, payload=b"xy").encode()[:-1])


EVERY_EFFECT: list[tuple[int, Effect]] = [
    (0, IrqLine(3, 1, 7)),
    (1, IrqLine(255, 0)),
    (255, HostOutput(b"")),
    (2, HostOutput(b"hello")),
    (3, InputRoom(16)),
    (4, Reset()),
    (5, Stop()),
    (6, MemoryRead(7, [(0x1000, 16), ((1 << 64) - 1, 0xFFFF_FFFF)])),
    (7, MemoryRead(0, [])),
    (8, MemoryWrite(0x123456789A, b"data", 1 << 40)),
    (9, MemoryWrite(0, b"")),
    (10, Transfer(3, 1, 512, [(0, 1), (2, 3)], 1)),
    (11, Transfer(0xFFFF_FFFF, 0, 0, [], 0)),
    (12, TakeLine(255, 1)),
    (13, TakeLine(0, 0)),
    (14, Suspend(0xFFFF_FFFF)),
    (15, ContentRead(3, 1, 1 << 40, 64)),
]


def test_effects_are_decoded_as_they_were_encoded_in_order() -> None:
    body = encode_effects(EVERY_EFFECT) + b"rest"
    assert decode_effects(len(EVERY_EFFECT), body) == (EVERY_EFFECT, b"rest")


def test_effects_of_none_are_no_bytes() -> None:
    assert encode_effects([]) == b""
    assert decode_effects(0, b"rest") == ([], b"rest")


def test_effect_coalesced_count_is_cut_to_what_fits() -> None:
    effects, _ = decode_effects(1, encode_effects([(0, IrqLine(0, 1, 1 << 40))]))
    assert effects == [(0, IrqLine(0, 1, 0xFFFF_FFFF))]


def effect(tag: int, device: int = 0, pin: int = 0, level: int = 0, argument: int = 0) -> bytes:
    return EFFECT.pack(tag, device, pin, level, argument)


@pytest.mark.parametrize(
    ("count", "body", "message"),
    [
        (1, b"", "1 effects announced, the payload ends after 0"),
        (1, effect(1)[:-1], "ends after 0"),
        (3, effect(4) + effect(5), "ends after 2"),
        (1, effect(0), "unknown effect 0"),
        (1, effect(99), "unknown effect 99"),
        (1, effect(255), "unknown effect 255"),
        (1, effect(1, level=2), "level 2"),
        (1, effect(1, level=255), "level 255"),
        (1, effect(1, level=0, argument=1), "level 0, coalesced 1"),
        (1, effect(2, argument=1), "output of 1 bytes, 0 are left"),
        (1, effect(2, argument=0xFFFF_FFFF) + b"x", "output of 4294967295 bytes, 1 are left"),
        (1, effect(2, pin=1), "effect 2 with stray fields"),
        (1, effect(2, level=1), "effect 2 with stray fields"),
        (1, effect(3, pin=1), "effect 3 with stray fields"),
        (1, effect(4, argument=1), "effect 4 with a value"),
        (1, effect(5, argument=1), "effect 5 with a value"),
        (1, effect(5, level=1), "effect 5 with stray fields"),
        (2, effect(2, argument=3) + b"abc", "ends after 1"),
        (1, effect(6, pin=1), "memory read of 12 bytes, 0 are left"),
        (1, effect(6, pin=255) + bytes(12 * 254), "memory read of 3060 bytes, 3048 are left"),
        (1, effect(6, level=1), "effect 6 with stray fields"),
        (1, effect(7, argument=1) + bytes(16), "memory write of 17 bytes, 16 are left"),
        (1, effect(7) + bytes(15), "memory write of 16 bytes, 15 are left"),
        (1, effect(7, pin=1) + bytes(16), "effect 7 with stray fields"),
        (1, effect(8, pin=1) + bytes(27), "transfer of 28 bytes, 27 are left"),
        (1, effect(8, level=2) + bytes(16), "transfer effect with level 2"),
        (1, effect(10, level=2), "line effect with level 2"),
        (1, effect(10, argument=1), "effect 10 with a value"),
        (1, effect(11, level=1), "effect 11 with stray fields"),
        (1, effect(12, level=3), "late writes effect with level 3"),
        (1, effect(12, argument=1), "effect 12 with a value"),
    ],
)
def test_decode_effects_that_nobody_encoded_raises(count: int, body: bytes, message: str) -> None:
    with pytest.raises(FrameError, match=message):
        decode_effects(count, body)


def test_host_output_may_not_reach_into_the_next_effect_by_accident() -> None:
    # What is text to one reader must not be an effect to another: lengths alone decide.
    body = encode_effects([(0, HostOutput(effect(BY_CLASS[Stop].tag))), (0, Reset())])
    assert decode_effects(2, body) == ([(0, HostOutput(effect(BY_CLASS[Stop].tag))), (0, Reset())], b"")


def test_encode_reply_refuses_more_effects_than_the_header_can_count() -> None:
    request = Request(protocol.ADVANCE)
    fits: list[tuple[int, Effect]] = [(0, Reset())] * MAX_EFFECTS
    assert HEADER.unpack_from(encode_reply(request, None, 0, fits))[3] == 255
    with pytest.raises(FrameError, match="256 effects"):
        encode_reply(request, None, 0, [*fits, (0, Reset())])


def test_encode_reply_refuses_a_payload_that_is_longer_than_a_frame() -> None:
    request = Request(protocol.SNAPSHOT)
    assert len(encode_reply(request, None, 0, [], bytes(MAX_PAYLOAD))) == MAX_FRAME
    with pytest.raises(FrameError, match="do not fit"):
        encode_reply(request, None, 0, [], bytes(MAX_PAYLOAD + 1))


def test_board_is_decoded_as_it_was_encoded() -> None:
    board: list[tuple[str, dict[str, int | bytes]]] = [
        ("rtc_mc146818", {"base_seconds": -5, "memory_bytes": 1 << 40}),
        ("post", {}),
        ("rom", {"content": bytes(range(256)), "empty": b"", "zero": 0, "minus": -128, "byte": 255}),
    ]
    assert decode_board(encode_board(board)) == board


def test_board_layout_is_that_of_the_documentation() -> None:
    assert encode_board([("rom", {"a": -2, "bc": b"xy"})]).hex() == (
        "0302" + b"rom".hex() + "010001000000" + b"a".hex() + "fe" + "020102000000" + b"bcxy".hex()
    )


@pytest.mark.parametrize(
    "payload",
    [b"\x04", b"\x05\x00post", b"\x04\x01post", b"\x04\x00p\xc3\xb6s", b"\x01\x01a\x01\x00\x09\0\0\0bc"],
)
def test_decode_board_that_nobody_encoded_raises(payload: bytes) -> None:
    with pytest.raises(FrameError):
        decode_board(payload)


def test_board_that_is_too_large_is_not_encoded() -> None:
    fits = protocol.MAX_BOARD - len(encode_board([("a", {"b": b""})]))
    assert len(encode_board([("a", {"b": bytes(fits)})])) == protocol.MAX_BOARD
    with pytest.raises(FrameError, match="at most 4194304 may be"):
        encode_board([("a", {"b": bytes(fits + 1)})])


@pytest.mark.parametrize("size", [0, 1, 4064, 4065, 3 * 4064])
def test_hello_is_the_description_in_its_parts(size: int) -> None:
    board = [("rom", {"content": bytes(size)})] if size else []
    parts = protocol.hello_requests(board)
    description = encode_board(board)
    assert b"".join(part.payload for part in parts) == description
    assert [part.offset for part in parts] == list(range(len(parts)))
    assert {part.value for part in parts} == {protocol.VERSION | len(description) << 32}
    assert all(len(part.payload) == MAX_PAYLOAD for part in parts[:-1])


def test_words_of_a_header_are_where_the_channel_looks_for_them() -> None:
    # The channel takes the header for four 64-bit words; this is why that is right.
    reply = encode_reply(Request(protocol.READ, 1, 2, 3), 4, 5, [])
    assert struct.unpack("<QQQQ", reply) == (0x82 | 1 << 8 | 2 << 16 | 3 << 32, 4, 5, 0)
