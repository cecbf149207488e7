"""The bytes of a recording: what is written is read, and what cannot have been written is refused."""

from __future__ import annotations

import json

import pytest

from kvmbox.base.errors import RecordingError
from kvmbox.contract.names import SERIAL_PORTS
from kvmbox.devices.pc_board import BoardOptions, whole_board
from kvmbox.parts.record import format as fmt
from kvmbox.parts.record.format import End, EndReason, RequestCheck
from kvmbox.wire import protocol
from kvmbox.wire.protocol import Request
from tests.support.recordings import BOARD, CHANNELS, UART


def header_text(**changes: object) -> bytes:
    """The header of a machine with one device, changed."""
    device = {"name": "COM1", "model": "uart_16550a", "ports": [[0x3F8, 8, 0]], "mmio": [], "irqs": [4]}
    return json.dumps({"channels": [{"type": "uart", "devices": [device | changes]}]}).encode()


def test_header_of_a_board_is_read_back() -> None:
    data = fmt.encode_header(CHANNELS)
    length = fmt.header_length(data[: fmt.PREAMBLE.size])
    found = fmt.decode_header(data[fmt.PREAMBLE.size :])

    assert len(data) == fmt.PREAMBLE.size + length
    types = ["uart", "pit", "rtc", "i8042", "debug", "pm", "hpet", "fwcfg", "vga"]
    assert [channel.device_type for channel in found] == types
    names = [device.name for channel in found for device in channel.devices]
    assert sorted(names) == sorted(device.name for device in BOARD)
    assert [(d.ports, d.irqs) for d in found[UART].devices] == [
        (d.ports, d.irqs) for d in CHANNELS[UART].devices
    ]


@pytest.mark.parametrize(
    ("preamble", "complaint"),
    [
        (b"", "no recording"),
        (b"\x7fELF", "no recording"),
        (fmt.MAGIC[:3], "cut within its first bytes"),
        (fmt.PREAMBLE.pack(b"\x89KVMREC\r", fmt.VERSION, 0, 10), "no recording"),
        (
            fmt.PREAMBLE.pack(fmt.MAGIC, fmt.VERSION + 1, 0, 10),
            "format version 5, this kvmbox reads version 4",
        ),
        (fmt.PREAMBLE.pack(fmt.MAGIC, 3, 0, 10), "format version 3, this kvmbox reads version 4"),
        (fmt.PREAMBLE.pack(fmt.MAGIC, fmt.VERSION, 1, 10), "version"),
        (fmt.PREAMBLE.pack(fmt.MAGIC, fmt.VERSION, 0, fmt.MAX_HEADER + 1), "header is damaged"),
    ],
)
def test_preamble_that_is_none_is_refused(preamble: bytes, complaint: str) -> None:
    with pytest.raises(RecordingError, match=complaint):
        fmt.header_length(preamble)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b'{"channels": []}',
        b'{"channels": 7}',
        b'{"channels": [7]}',
        b'{"channels": [{"type": "uart", "devices": []}]}',
        b"[" * 60000,
        header_text(name="COM1\n"),
        header_text(name="\x1b[2J"),
        header_text(name="x" * 33),
        header_text(model=None),
        header_text(irqs=[-1]),
        header_text(irqs=[True]),
        header_text(irqs="4"),
        header_text(ports=[[0x3F8, 8]]),
        header_text(ports=[[0x3F8, 8.5, 0]]),
        header_text(mmio=None),
    ],
)
def test_header_that_describes_no_channels_is_refused(text: bytes) -> None:
    with pytest.raises(RecordingError, match="its header is damaged"):
        fmt.decode_header(text)


def test_header_with_a_channel_twice_is_refused() -> None:
    entry = json.loads(header_text())["channels"][0]

    with pytest.raises(RecordingError, match="its header is damaged"):
        fmt.decode_header(json.dumps({"channels": [entry, entry]}).encode())


@pytest.mark.parametrize("reason", list(EndReason))
def test_end_mark_is_read_back(reason: EndReason) -> None:
    data = fmt.encode_end(End(reason, 4711))
    _, kind, length, reply_length = fmt.RECORD.unpack_from(data)

    assert kind == fmt.END
    assert fmt.decode_end(data[fmt.RECORD.size :], reply_length) == End(reason, 4711)
    assert len(data) == fmt.RECORD.size + length


@pytest.mark.parametrize(
    ("payload", "reply_length"), [(b"", 0), (b"\0" * 8, 0), (b"\0" * 9, 1), (b"\x63" + b"\0" * 8, 0)]
)
def test_end_mark_that_is_none_is_refused(payload: bytes, reply_length: int) -> None:
    with pytest.raises(RecordingError, match="end mark is damaged"):
        fmt.decode_end(payload, reply_length)


def greeted() -> RequestCheck:
    """The check of the UART channel, behind its hello."""
    check = RequestCheck(CHANNELS[UART])
    assert check.problem(Request(protocol.HELLO).encode()) is None
    return check


@pytest.mark.parametrize(
    "request_",
    [
        Request(protocol.READ, 0, 1),
        Request(protocol.READ, 1, 8, value=(1 << 64) - 1, offset=0xFFFF_FFFF, now=(1 << 63) - 1),
        Request(protocol.WRITE, 0, 4, value=0xFFFF_FFFF),
        Request(protocol.RECEIVE, 0, payload=b"x" * protocol.MAX_PAYLOAD),
        Request(protocol.WRITE_RUN, 0, offset=1, payload=b"run"),
        Request(protocol.INDEXED_READ, 0, 1, value=1 << 32 | 0xFF, offset=1),
        Request(protocol.READ_WIDE, 1, 4, offset=3),
        Request(protocol.WRITE_STRING, 0, 2, payload=b"four"),
        Request(protocol.ADVANCE),
        Request(protocol.SHUTDOWN),
    ],
)
def test_request_of_a_vmm_is_accepted(request_: Request) -> None:
    assert greeted().problem(request_.encode()) is None


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\0" * 31,
        Request(protocol.READ, 0, 1).encode() + b"x",
        Request(protocol.RECEIVE, payload=b"xy").encode()[:-1],
        protocol.HEADER.pack(protocol.RECEIVE, 0, 0, 0, 1, 0, 0, 0, 4065) + b"x" * 4065,
        protocol.HEADER.pack(protocol.READ, 0, 1, 1, 1, 0, 0, 0, 0),
        Request(protocol.READ, 0, 3).encode(),
        Request(protocol.READ, 0, 0).encode(),
        Request(protocol.READ, 0, 1, payload=b"x").encode(),
        Request(protocol.WRITE, 0, 1, value=0x100).encode(),
        Request(protocol.WRITE, 2, 1).encode(),
        Request(protocol.RECEIVE, 2).encode(),
        Request(protocol.ADVANCE, 0, 1).encode(),
        Request(protocol.READ, 0, 1, now=1 << 63).encode(),
        Request(protocol.ADVANCE, now=(1 << 64) - 1).encode(),
        Request(0).encode(),
        Request(protocol.REPLAY).encode(),
        Request(20).encode(),
        Request(protocol.READ_WIDE, 0, 9).encode(),
        Request(protocol.WRITE_STRING, 0, 2, payload=b"odd").encode(),
        Request(protocol.READ_WIDE, 2, 4).encode(),
        Request(protocol.INDEXED_READ, 0, 1, value=0x100).encode(),
        Request(protocol.INDEXED_READ, 0, 1, value=0x0A, payload=b"x").encode(),
        Request(protocol.WRITE_RUN, 0, 1, payload=b"x").encode(),
        Request(protocol.HELLO).encode(),
    ],
)
def test_request_that_no_vmm_sends_is_refused(frame: bytes) -> None:
    assert greeted().problem(frame)


def test_request_before_the_hello_is_refused() -> None:
    assert RequestCheck(CHANNELS[UART]).problem(Request(protocol.ADVANCE).encode())


def test_header_of_every_device_that_a_board_may_have_is_read_back() -> None:
    options = BoardOptions(SERIAL_PORTS, 0, 1 << 20, testdev=True, has_bios=True)
    channels = fmt.channels_of(whole_board(options), per_device=True)
    found = fmt.decode_header(fmt.encode_header(channels)[fmt.PREAMBLE.size :])
    assert [channel.device_type for channel in found] == [channel.device_type for channel in channels]


def test_faults_of_a_run_are_read_back_and_a_header_without_has_none() -> None:
    data = fmt.encode_header(CHANNELS, ["uart:drop-irq=0.5,seed=7", "RTC:jump=+5"])[fmt.PREAMBLE.size :]
    assert fmt.decode_header(data) == fmt.decode_header(fmt.encode_header(CHANNELS)[fmt.PREAMBLE.size :])
    assert fmt.decode_inject(data) == ("uart:drop-irq=0.5,seed=7", "RTC:jump=+5")
    assert fmt.decode_inject(fmt.encode_header(CHANNELS)[fmt.PREAMBLE.size :]) == ()


@pytest.mark.parametrize(
    "inject", [None, 7, "x", [7], ["\x1b[2J"], ["a\nb"], ["x" * (fmt.MAX_FAULT_TEXT + 1)], ["x"] * 65]
)
def test_faults_that_no_run_has_are_refused(inject: object) -> None:
    with pytest.raises(RecordingError, match="header is damaged"):
        fmt.decode_inject(json.dumps({"inject": inject}).encode())
