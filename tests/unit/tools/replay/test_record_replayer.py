"""Replaying: the first reply that differs is found and put in words, whatever the difference is."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from kvmbox.base.errors import RecordingError
from kvmbox.contract.device_spec import DeviceSpec
from kvmbox.contract.model import HostOutput
from kvmbox.parts.record.format import ChannelHeader, Record
from kvmbox.tools.replay.fresh_models import InProcess
from kvmbox.tools.replay.replayer import Difference, ReplayResult, replay
from kvmbox.tools.replay.select import DeviceChoice
from kvmbox.wire import protocol
from kvmbox.wire.effects import encode_reply
from kvmbox.wire.protocol import HEADER
from tests.support.recordings import CHANNELS, LSR, UART, Machine, small_machine


def replay_all(
    records: Sequence[Record],
    device: str | None = None,
    channels: Sequence[ChannelHeader] = CHANNELS,
) -> ReplayResult:
    """Replay in this process."""
    return replay(records, channels, DeviceChoice.parse(device, channels), InProcess(channels))


def with_model(model: str) -> DeviceSpec:
    """The first UART, of another model."""
    return DeviceSpec(**CHANNELS[UART].devices[0].as_dict() | {"model": model})


def with_reply(records: Sequence[Record], number: int, reply: bytes) -> list[Record]:
    """The records with another reply in one of them."""
    return [record._replace(reply=reply) if record.number == number else record for record in records]


def find(records: Sequence[Record], kind: int, offset: int, device: int = 0) -> Record:
    """The first access of the UART process like this."""
    for record in records:
        request = protocol.decode_request(record.request)
        if (record.channel, request.kind, request.device, request.offset) == (UART, kind, device, offset):
            return record
    raise AssertionError("no such record")


def test_replay_of_the_same_models_is_identical() -> None:
    records = small_machine().records

    result = replay_all(records)

    assert result == ReplayResult(len(records), len(records), 2_000_000, None)


def test_replay_stops_at_the_first_reply_that_differs() -> None:
    records = small_machine().records
    lsr = find(records, protocol.READ, LSR)
    wrong = lsr.reply[:16] + b"\x20" + lsr.reply[17:]

    result = replay_all(with_reply(records, lsr.number, wrong))

    assert result.driven == result.compared == lsr.number + 1
    assert result.difference is not None
    assert result.difference.record.number == lsr.number
    assert result.difference.report().splitlines() == [
        f"record {lsr.number} differs, at guest time 0.000002000 s: COM1 (uart)",
        "  request   read port 0x3fd (LSR)",
        "  expected  value 0x20, steady for 50000 µs, no deadline",
        "  got       value 0x60, steady for 50000 µs, no deadline",
    ]


@pytest.mark.parametrize("position", range(HEADER.size))
def test_any_byte_of_a_reply_matters(position: int) -> None:
    records = small_machine().records
    lsr = find(records, protocol.READ, LSR)
    wrong = bytearray(lsr.reply)
    wrong[position] ^= 0x55

    result = replay_all(with_reply(records, lsr.number, bytes(wrong)))

    assert result.difference is not None
    assert result.difference.record.number == lsr.number
    lines = result.difference.report().splitlines()
    assert lines[-2].split(maxsplit=1)[1] != lines[-1].split(maxsplit=1)[1]


def test_effect_that_differs_is_put_in_words() -> None:
    records = small_machine().records
    sent = find(records, protocol.WRITE, 0)
    assert sent.reply.count(b"H") == 1

    result = replay_all(with_reply(records, sent.number, sent.reply.replace(b"H", b"\x1b")))

    assert result.difference is not None
    report = result.difference.report()
    assert "request   write 0x48 to port 0x3f8 (RBR/THR/DLL)" in report
    assert r"COM1 sends '\x1b'" in report
    assert "COM1 sends 'H'" in report


def test_difference_that_words_leave_out_is_shown_as_bytes() -> None:
    difference = Difference(
        CHANNELS[UART], sent_with(b"x" * 40 + b"\x01"), sent_with(b"x" * 40 + b"\x02").reply
    )

    lines = difference.report().splitlines()

    assert lines[2].split(maxsplit=1)[1] == lines[3].split(maxsplit=1)[1]
    assert lines[4].endswith("7801")
    assert lines[5].endswith("7802")


def sent_with(output: bytes) -> Record:
    """A write to COM1 that sends `output`."""
    request = protocol.Request(protocol.WRITE, 0, 1, 1)
    reply = encode_reply(request, None, 0, [(0, HostOutput(output))])
    return Record(0, UART, request.encode(), reply)


def test_run_whose_device_died_differs_where_the_reply_is_missing() -> None:
    records = small_machine().records
    lsr = find(records, protocol.READ, LSR)

    result = replay_all(with_reply(records, lsr.number, b""))

    assert result.difference is not None
    assert "expected  no reply: the device process died or hung" in result.difference.report()


class Broken(InProcess):
    """Its UART fails at every read of the LSR."""

    def handle(self, channel: int, request: bytes) -> bytes:
        if channel == UART and request[0] == protocol.READ and request[24] == LSR:
            request = request[:1] + b"\xff" + request[2:]  # a device that the process does not have
        return super().handle(channel, request)


def test_model_that_fails_is_a_difference_and_stays_dead() -> None:
    records = small_machine().records
    choice = DeviceChoice.parse(None, CHANNELS)
    lsr = find(records, protocol.READ, LSR)
    backend = Broken(CHANNELS)

    result = replay(records, CHANNELS, choice, backend)

    assert result.difference is not None
    assert result.difference.record.number == lsr.number
    assert "got       the model failed: FrameError" in result.difference.report()
    assert backend.handle(UART, records[-1].request) == b""


def test_recorded_crash_replays_identically() -> None:
    records = small_machine().records
    backend = Broken(CHANNELS)
    crash = [record._replace(reply=backend.handle(record.channel, record.request)) for record in records]

    result = replay(crash, CHANNELS, DeviceChoice.parse(None, CHANNELS), Broken(CHANNELS))

    assert any(record.reply == b"" for record in crash)
    assert result.difference is None
    assert result.compared == len(records)


def test_device_type_drives_its_channel_alone() -> None:
    records = small_machine().records
    of_uart = [record for record in records if record.channel == UART]

    result = replay_all(records, "UART")

    assert result.driven == result.compared == len(of_uart)


def test_device_compares_itself_and_drives_its_siblings() -> None:
    machine = Machine()
    machine.write(UART, 7, 0x11)
    machine.write(UART, 7, 0x22, device=1)
    machine.read(UART, 7)
    machine.read(UART, 7, device=1)
    sibling = find(machine.records, protocol.READ, 7)
    wrong = with_reply(machine.records, sibling.number, b"")

    of_com2, of_com1 = replay_all(wrong, "com2"), replay_all(wrong, "COM1")

    assert of_com2.difference is None
    assert (of_com2.driven, of_com2.compared) == (5, 3)
    assert of_com1.difference is not None
    assert of_com1.difference.record == sibling._replace(reply=b"")


def test_hello_of_other_devices_than_the_header_has_is_refused() -> None:
    records = Machine().records
    other = with_model("post")
    channels = (CHANNELS[UART].replaced(devices=(other, *CHANNELS[UART].devices[1:])), *CHANNELS[1:])

    with pytest.raises(RecordingError, match="record 0 greets devices that are not those of its header"):
        replay_all(records, channels=channels)


@pytest.mark.parametrize(
    ("version", "device", "complaint"),
    [
        (protocol.VERSION + 1, ("post", {}), f"protocol version {protocol.VERSION + 1}"),
        (protocol.VERSION, ("quantum_uart", {}), "KeyError"),
        (protocol.VERSION, ("uart_16550a", {"pace_transmit": 0, "speed": 1}), "TypeError"),
    ],
)
def test_hello_that_these_models_cannot_follow_is_refused(
    version: int, device: tuple[str, dict[str, int | bytes]], complaint: str
) -> None:
    channels = (ChannelHeader("any", (with_model(device[0]),)),)
    (request,) = protocol.hello_requests([device])
    request.value += version - protocol.VERSION

    with pytest.raises(RecordingError, match=complaint):
        replay_all([Record(0, 0, request.encode(), b"")], channels=channels)


@pytest.mark.parametrize("payload", [b"\xff", b"post", b"\x04\x00p\xf6st"])
def test_hello_that_describes_nothing_is_refused(payload: bytes) -> None:
    channels = (ChannelHeader("any", (with_model("post"),)),)
    value = protocol.VERSION | len(payload) << 32
    hello = protocol.Request(protocol.HELLO, value=value, payload=payload).encode()

    with pytest.raises(RecordingError, match="greets devices"):
        replay_all([Record(0, 0, hello, b"")], channels=channels)
