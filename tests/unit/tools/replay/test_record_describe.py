"""Records in words and as JSON, also those that no VMM would have accepted."""

from __future__ import annotations

import json

import pytest

from kvmbox.contract.model import Effect, HostOutput, InputRoom, IrqLine, Reset, Stop
from kvmbox.jail.server import error_frame
from kvmbox.parts.record.format import Record
from kvmbox.tools.replay.frames_as_text import record_data, record_line, reply_text, request_text
from kvmbox.wire import protocol
from kvmbox.wire.effects import encode_reply
from kvmbox.wire.protocol import Request
from tests.support.recordings import BOARD, CHANNELS, PIT, UART

LSR_READ = Request(protocol.READ, 0, 1, 7, 1_500_000_000, 0, 5)


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (LSR_READ, "read port 0x3fd (LSR)"),
        (Request(protocol.WRITE, 1, 1, value=0x41), "write 0x41 to port 0x2f8 (RBR/THR/DLL)"),
        (Request(protocol.WRITE, 0, 4, value=0x41), "write 4 bytes 0x00000041 to port 0x3f8 (RBR/THR/DLL)"),
        (Request(protocol.READ, 0, 1, offset=99), "read offset 0x63"),
        (Request(protocol.RECEIVE, 0, payload=b"a\n"), r"receive 2 bytes: 'a\n'"),
        (
            Request(protocol.WRITE_RUN, 0, payload=b"ab\n"),
            r"write 3 times to port 0x3f8 (RBR/THR/DLL): 'ab\n'",
        ),
        (
            Request(protocol.INDEXED_READ, 0, 1, value=7 << 32 | 0x0A, offset=5),
            "write 0x0a to port 0x3ff (SCR), read port 0x3fd (LSR)",
        ),
        (
            Request(protocol.READ_WIDE, 0, 2, offset=5),
            "read each of the bytes at port 0x3fd (LSR) to port 0x3fe (MSR)",
        ),
        (
            Request(protocol.WRITE_WIDE, 0, 2, value=0x4142),
            "write each of the bytes at port 0x3f8 (RBR/THR/DLL) to port 0x3f9 (IER/DLM): 'BA'",
        ),
        (
            Request(protocol.READ_STRING, 0, 1, value=64),
            "read 64 times a byte at port 0x3f8 (RBR/THR/DLL)",
        ),
        (
            Request(protocol.WRITE_STRING, 0, 2, payload=b"abcd", offset=7),
            "write 2 times 2 bytes at port 0x3ff (SCR): 'abcd'",
        ),
        (Request(protocol.ADVANCE), "advance"),
        (Request(protocol.SNAPSHOT, 1, offset=2), "snapshot part 2"),
        (Request(protocol.READ, 9, 1), "read"),
    ],
)
def test_request_is_put_in_words(request_: Request, words: str) -> None:
    assert request_text(CHANNELS[UART], request_) == words


@pytest.mark.parametrize(
    ("effect", "words"),
    [
        (IrqLine(0, 1), "COM1 raises IRQ 4"),
        (IrqLine(0, 1, 3), "COM1 raises IRQ 4 (3 coalesced)"),
        (IrqLine(2, 0), "COM1 lowers pin 2"),
        (HostOutput(b"x" * 40), f"COM1 sends '{'x' * 32}'…"),
        (InputRoom(16), "COM1 has room for 16 bytes"),
        (Reset(), "COM1 asks for a reset"),
        (Stop(), "COM1 asks for a stop"),
    ],
)
def test_effect_is_put_in_words(effect: Effect, words: str) -> None:
    reply = encode_reply(LSR_READ, 2_000_000_000, 0x60, [(0, effect)])

    assert reply_text(CHANNELS[UART], LSR_READ, reply) == f"value 0x60, deadline 2.000000000 s, {words}"


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (b"", "no reply: the device process died or hung"),
        (b"\x1b[2J", "a frame of 4 bytes: 1b5b324a"),
        (error_frame(7, ValueError("\x1b[31m")), "the model failed: ValueError: \\x1b[31m"),
        (
            encode_reply(Request(protocol.READ, 0, 1, 8), None, 1, []),
            "sequence 8 instead of 7, value 0x01, no deadline",
        ),
        (
            encode_reply(Request(protocol.WRITE, 3, 2, 7), None, 1, []),
            "kind 0x83 device 3 size 2 zero 0, value 0x01, no deadline",
        ),
        (
            encode_reply(LSR_READ, None, 0, [(9, IrqLine(0, 1))]),
            "value 0x00, no deadline, device 9 raises pin 0",
        ),
        (encode_reply(LSR_READ, None, 0, [], b"\x01\x02"), "value 0x00, no deadline, 2 bytes: 0102"),
        (
            encode_reply(LSR_READ, None, 0, []) + b"\x01",
            "value 0x00, no deadline, 1 bytes where 0 are announced: 01",
        ),
        (
            encode_reply(LSR_READ, None, 0, [(0, IrqLine(0, 5))]),
            "value 0x00, no deadline, irq effect with level 5: 0100000500000000",
        ),
    ],
)
def test_hostile_reply_is_put_in_printable_words(reply: bytes, words: str) -> None:
    text = reply_text(CHANNELS[UART], LSR_READ, reply)

    assert text == words
    assert text.isprintable()


def test_record_is_one_line() -> None:
    record = Record(12, UART, LSR_READ.encode(), encode_reply(LSR_READ, None, 0x60, []))

    assert record_line(CHANNELS[UART], record) == (
        "      12  1.500000000 s  COM1 (uart): read port 0x3fd (LSR) -> value 0x60, no deadline"
    )


def test_access_is_json_data() -> None:
    request = Request(protocol.WRITE, 0, 1, 3, 5, 0x41)
    reply = encode_reply(request, 9, 0, [(0, HostOutput(b"A")), (0, IrqLine(0, 1))])

    assert record_data(CHANNELS[UART], Record(4, UART, request.encode(), reply)) == {
        "record": 4,
        "time": 5,
        "type": "uart",
        "device": "COM1",
        "request": "write",
        "sequence": 3,
        "port": 0x3F8,
        "offset": 0,
        "size": 1,
        "value": 0x41,
        "reply": {
            "value": 0,
            "deadline": 9,
            "effects": [
                {"device": "COM1", "effect": "output", "data": "41"},
                {"device": "COM1", "effect": "irq", "pin": 0, "level": 1, "coalesced": 0},
            ],
        },
    }


def test_request_to_a_whole_process_names_no_device() -> None:
    request = Request(protocol.ADVANCE, now=5)
    data = record_data(CHANNELS[PIT], Record(0, PIT, request.encode(), encode_reply(request, None, 0, [])))

    assert data["device"] is None
    assert data["reply"] == {"value": 0, "deadline": None, "effects": []}


@pytest.mark.parametrize(
    ("reply", "data"),
    [
        (b"", None),
        (b"\xff", {"frame": "ff"}),
        (error_frame(7, ValueError("no")), {"error": "ValueError: no"}),
        (
            encode_reply(LSR_READ, None, 0, [], b"\x01"),
            {"value": 0, "deadline": None, "effects": [], "payload": "01"},
        ),
    ],
)
def test_hostile_reply_is_json_data(reply: bytes, data: object) -> None:
    record = Record(0, UART, LSR_READ.encode(), reply)

    assert record_data(CHANNELS[UART], record)["reply"] == data
    json.dumps(data)


def test_every_effect_has_data() -> None:
    effects: list[tuple[int, Effect]] = [(0, InputRoom(3)), (200, Reset()), (0, Stop())]
    record = Record(0, UART, LSR_READ.encode(), encode_reply(LSR_READ, None, 0, effects))

    assert record_data(CHANNELS[UART], record)["reply"]["effects"] == [
        {"device": "COM1", "effect": "room", "count": 3},
        {"device": None, "effect": "reset"},
        {"device": "COM1", "effect": "stop"},
    ]


def test_every_port_of_the_board_is_named() -> None:
    for device in BOARD:
        for ports in device.ports:
            channel = next(c for c in CHANNELS if device in c.devices)
            index = channel.devices.index(device)
            text = request_text(
                channel, Request(protocol.READ, index, 1, offset=ports.offset + ports.count - 1)
            )
            assert f"port {ports.first + ports.count - 1:#x}" in text
