"""Blocks: what a request asks for, and which replies can be true."""

from __future__ import annotations

import pytest

from kvmbox.contract.model import Effect, HostOutput, InputRoom, IrqLine, Reset, Stop, Suspend
from kvmbox.wire.access_blocks import MAX_STRING, MOST_EFFECTS, MOST_OUTPUT, Block, ends
from kvmbox.wire.protocol import (
    READ,
    READ_STRING,
    READ_WIDE,
    WRITE,
    WRITE_STRING,
    WRITE_WIDE,
    FrameError,
    Request,
)

INL = Request(READ_WIDE, 1, 4, 7, 9, offset=3)
OUTL = Request(WRITE_WIDE, 1, 4, 7, 9, 0x44332211, 3)
INSW = Request(READ_STRING, 1, 2, 7, 9, 3, 5)
OUTSW = Request(WRITE_STRING, 1, 2, 7, 9, 0, 5, b"\x01\x02\x03\x04\x05\x06")


@pytest.mark.parametrize(
    ("request_", "singles"),
    [
        (INL, [Request(READ, 1, 1, 7, 9, 0, 3 + number) for number in range(4)]),
        (OUTL, [Request(WRITE, 1, 1, 7, 9, 0x11 * (number + 1), 3 + number) for number in range(4)]),
        (INSW, [Request(READ, 1, 2, 7, 9, 0, 5)] * 3),
        (OUTSW, [Request(WRITE, 1, 2, 7, 9, value, 5) for value in (0x0201, 0x0403, 0x0605)]),
    ],
    ids=["inl", "outl", "rep insw", "rep outsw"],
)
def test_accesses_of_a_block_in_order(request_: Request, singles: list[Request]) -> None:
    block = Block(request_)
    assert [block.single(number) for number in range(block.count)] == singles


@pytest.mark.parametrize(
    "request_",
    [
        *(Request(kind, 0, size) for kind in (READ_WIDE, WRITE_WIDE) for size in (0, 9, 255)),
        Request(READ_WIDE, 0, 4, payload=b"x"),
        Request(READ_WIDE, 0, 2, value=0x10000),
        Request(WRITE_WIDE, 0, 2, value=0x10000),
        Request(WRITE_WIDE, 0, 4, payload=b"x"),
        *(Request(READ_STRING, 0, size, value=2) for size in (0, 3, 16)),
        *(Request(READ_STRING, 0, 2, value=count) for count in (0, MAX_STRING // 2 + 1, (1 << 64) - 1)),
        Request(READ_STRING, 0, 1, value=1, payload=b"x"),
        *(Request(WRITE_STRING, 0, size, payload=b"123456") for size in (0, 3, 4)),
        Request(WRITE_STRING, 0, 1),
        Request(WRITE_STRING, 0, 1, payload=bytes(MAX_STRING + 1)),
        Request(WRITE_STRING, 0, 1, value=1, payload=b"x"),
    ],
)
def test_block_that_no_vmm_sends_is_refused(request_: Request) -> None:
    with pytest.raises(FrameError, match="a block of"):
        Block(request_)


@pytest.mark.parametrize("request_", [INL, OUTL, INSW, OUTSW], ids=["inl", "outl", "rep insw", "rep outsw"])
@pytest.mark.parametrize("has_effects", [True, False])
def test_outcome_is_what_was_replied(request_: Request, has_effects: bool) -> None:
    block = Block(request_)
    for made in range(1 if has_effects else block.count, block.count + 1):
        read = bytes(range(1, made * block.width + 1)) if block.reads else b""
        reply = block.reply(made, read, has_effects=has_effects)
        assert block.outcome(*reply, has_effects=has_effects) == (made, read)


@pytest.mark.parametrize(
    ("request_", "value", "behind", "has_effects"),
    [
        (INL, 1 << 32, b"", False),
        (INL, 1, b"", True),
        (INL, 0, b"", True),
        (INL, 0, b"12345", True),
        (INL, 0, b"1234", False),
        (OUTL, 1, b"", False),
        (OUTL, 0, b"\1\0\0\0", False),
        (OUTL, 1, b"\1\0\0\0", True),
        (OUTL, 0, b"\0\0\0\0", True),
        (OUTL, 0, b"\4\0\0\0", True),
        (OUTL, 0, b"\5\0\0\0", True),
        (OUTL, 0, b"\1\0\0", True),
        (OUTL, 0, b"\1\0\0\0\0", True),
        (INSW, 1, b"123456", False),
        (INSW, 0, b"1234", False),
        (INSW, 0, b"", True),
        (INSW, 0, b"123", True),
        (INSW, 0, b"12345678", True),
        (INSW, 0, b"12345678", False),
        (OUTSW, 0, b"\3\0\0\0", True),
        (OUTSW, 0, b"\2\0\0\0", False),
    ],
)
def test_outcome_that_cannot_be_is_refused(
    request_: Request, value: int, behind: bytes, has_effects: bool
) -> None:
    with pytest.raises(FrameError):
        Block(request_).outcome(value, behind, has_effects=has_effects)


@pytest.mark.parametrize(
    ("collected", "may_ask", "expected"),
    [
        ([IrqLine(0, 1), InputRoom(3), HostOutput(b"x")], False, False),
        ([IrqLine(0, 1)], True, True),
        ([IrqLine(0, 1)] * (MOST_EFFECTS - 1), False, False),
        ([IrqLine(0, 1)] * MOST_EFFECTS, False, True),
        ([HostOutput(bytes(MOST_OUTPUT // 2 - 1)), HostOutput(bytes(MOST_OUTPUT // 2))], False, False),
        ([HostOutput(bytes(MOST_OUTPUT // 2)), HostOutput(bytes(MOST_OUTPUT // 2))], False, True),
        *(([effect, IrqLine(0, 0)], False, True) for effect in (Stop(), Reset(), Suspend(0))),
    ],
)
def test_block_ends_behind_what_needs_it(collected: list[Effect], may_ask: bool, expected: bool) -> None:
    assert ends(collected, collected, may_ask=may_ask) is expected


def test_stop_of_an_earlier_block_does_not_end_another() -> None:
    assert not ends([Stop(), IrqLine(0, 1)], [IrqLine(0, 1)], may_ask=False)
