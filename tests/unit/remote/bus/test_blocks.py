"""The channel with several accesses in one request: their rest, their cause, and lies about them."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from kvmbox.base.errors import ProtocolError
from kvmbox.contract.model import Effect, HostOutput, IrqLine, Stop
from kvmbox.remote.bus.proxy import DeviceProxy
from kvmbox.remote.bus.routing import Bus, Mapping
from kvmbox.remote.channel.connection import Channel
from kvmbox.remote.channel.grants import Grants
from kvmbox.wire import protocol
from kvmbox.wire.effects import encode_reply
from kvmbox.wire.protocol import MAX_PAYLOAD, READ_STRING, READ_WIDE, WRITE_STRING, WRITE_WIDE, Request
from tests.support.halves import Half
from tests.support.log import Log

PORT = 0x100
OUT = (0, HostOutput(b"x"))
IRQ = (0, IrqLine(0, 1))
STOP = (0, Stop())


class Rig:
    """A device of eight registers at `PORT`, whose process is played by the test over a socket."""

    def __init__(self, half: Half) -> None:
        self.log = Log()
        link = half.socket.connect([], None)
        self._device = socket.socket(fileno=link.device[0])
        grants = Grants(
            "COM1",
            irq_lines=[self.log.note("irq")],
            output=self.log.note("output"),
            stop=self.log.note("stop"),
        )
        self.now = 0
        self.channel: Channel = half.channel("uart", link, [grants], now=self._time)
        self.proxy = DeviceProxy(self.channel, 0, "COM1", frozenset({2}))
        self.bus = Bus(16)
        self.bus.attach(Mapping(PORT, 8, self.proxy, direct=self.proxy))
        self._sequence = 0

    def _time(self) -> int:
        self.now += 1
        return self.now

    def reply(
        self, kind: int, size: int, *effects: tuple[int, Effect], value: int = 0, behind: bytes = b""
    ) -> None:
        """What the process answers to the next request without an answer."""
        self._sequence += 1
        request = Request(kind, 0, size, self._sequence)
        self._device.send(encode_reply(request, None, value, list(effects), behind))

    def asked(self) -> list[Request]:
        """The requests since the last call."""
        found = []
        while True:
            try:
                found.append(protocol.decode_request(self._device.recv(8192, socket.MSG_DONTWAIT)))
            except BlockingIOError:
                return found

    def close(self) -> None:
        self.channel.close()
        self._device.close()


@pytest.fixture
def rig(half: Half) -> Iterator[Rig]:
    rig = Rig(half)
    yield rig
    rig.close()


def made(number: int) -> bytes:
    return number.to_bytes(4, "little")


def test_wide_access_is_one_request(rig: Rig) -> None:
    rig.reply(READ_WIDE, 4, value=0x44332211)
    rig.reply(WRITE_WIDE, 4)
    assert rig.bus.read(PORT + 1, 4) == 0x44332211
    rig.bus.write(PORT + 1, 4, 0xDDCCBBAA)
    assert rig.asked() == [
        Request(READ_WIDE, 0, 4, 1, 1, 0, 1),
        Request(WRITE_WIDE, 0, 4, 2, 2, 0xDDCCBBAA, 1),
    ]
    assert (rig.proxy.reads, rig.proxy.writes) == (4, 4)


def test_wide_read_with_effects_has_its_bytes_behind_them(rig: Rig) -> None:
    rig.reply(READ_WIDE, 4, IRQ, OUT, behind=b"\x11\x22\x33\x44")
    assert rig.bus.read(PORT, 4) == 0x44332211
    assert rig.log == [("irq", 1, 0), ("output", b"x")]


def test_rest_of_a_wide_read_is_asked_for_behind_its_effects(rig: Rig) -> None:
    rig.reply(READ_WIDE, 4, IRQ, behind=b"\x11")
    rig.reply(READ_WIDE, 3, OUT, behind=b"\x22\x33")
    rig.reply(READ_WIDE, 1, value=0x44)
    assert rig.bus.read(PORT, 4) == 0x44332211
    assert [(one.size, one.offset, one.value) for one in rig.asked()] == [(4, 0, 0), (3, 1, 0), (1, 3, 0)]
    assert rig.log == [("irq", 1, 0), ("output", b"x")]


def test_rest_of_a_wide_write_is_asked_for_and_a_stop_is_of_the_last_byte_made(rig: Rig) -> None:
    rig.reply(WRITE_WIDE, 4, OUT, STOP, behind=made(2))
    rig.reply(WRITE_WIDE, 2, STOP)
    rig.bus.write(PORT, 4, 0x44332211)
    assert [(one.size, one.offset, one.value) for one in rig.asked()] == [(4, 0, 0x44332211), (2, 2, 0x4433)]
    assert rig.log == [("output", b"x"), ("stop", 1, 1, 0x22), ("stop", 3, 1, 0x44)]


def test_next_access_has_nothing_of_an_earlier_block(rig: Rig) -> None:
    rig.reply(READ_WIDE, 2, IRQ, behind=b"\x11")
    rig.reply(READ_WIDE, 1, IRQ, behind=b"\x22")
    rig.reply(protocol.READ, 1, IRQ, value=0x33)
    assert rig.bus.read(PORT + 1, 2) == 0x2211
    assert rig.bus.read(PORT, 1) == 0x33
    assert len(rig.asked()) == 3


def test_string_is_read_in_pieces_and_where_the_process_stopped(rig: Rig) -> None:
    rig.reply(READ_STRING, 2, behind=b"ab" * 512)
    rig.reply(READ_STRING, 2, IRQ, behind=b"cd")
    rig.reply(READ_STRING, 2, behind=b"ef" * 87)
    assert rig.bus.read_string(PORT, 2, 600) == b"ab" * 512 + b"cd" + b"ef" * 87
    assert [one.value for one in rig.asked()] == [512, 88, 87]
    assert rig.proxy.reads == 600


def test_string_is_written_in_pieces_and_from_where_the_process_stopped(rig: Rig) -> None:
    data = bytes(range(256)) * 5
    rig.reply(WRITE_STRING, 1, OUT, behind=made(1000))
    rig.reply(WRITE_STRING, 1, OUT)
    rig.bus.write_string(PORT, 1, data)
    assert [one.payload for one in rig.asked()] == [data[:1024], data[1000:]]
    assert rig.proxy.writes == 1280


@pytest.mark.parametrize(
    ("size", "effects", "value", "behind"),
    [
        (4, [], 1 << 32, b""),
        (4, [], 0, b"1234"),
        (4, [OUT], 1, b""),
        (4, [OUT], 0, b""),
        (4, [OUT], 0, b"12345"),
        (4, [STOP], 0, b"1234"),
        (3, [], 0, b""),
    ],
)
def test_lie_in_reply_to_a_wide_read_breaks_the_protocol(
    rig: Rig, size: int, effects: list[tuple[int, Effect]], value: int, behind: bytes
) -> None:
    rig.reply(READ_WIDE, size, *effects, value=value, behind=behind)
    with pytest.raises(ProtocolError):
        rig.bus.read(PORT, 4)
    assert rig.log == []


@pytest.mark.parametrize(
    ("effects", "value", "behind"),
    [
        ([], 1, b""),
        ([], 0, made(1)),
        ([OUT], 0, made(0)),
        ([OUT], 0, made(4)),
        ([OUT], 0, made(1 << 31)),
        ([OUT], 0, b"\1"),
        ([OUT], 1, made(1)),
        ([(1, HostOutput(b"x"))], 0, b""),
    ],
)
def test_lie_in_reply_to_a_wide_write_breaks_the_protocol(
    rig: Rig, effects: list[tuple[int, Effect]], value: int, behind: bytes
) -> None:
    rig.reply(WRITE_WIDE, 4, *effects, value=value, behind=behind)
    with pytest.raises(ProtocolError):
        rig.bus.write(PORT, 4, 0x01020304)
    assert rig.log == []


@pytest.mark.parametrize(
    ("effects", "value", "behind"),
    [
        ([], 0, b""),
        ([], 0, b"ab" * 9),
        ([], 0, b"ab" * 11),
        ([], 1, b"ab" * 10),
        ([OUT], 0, b""),
        ([OUT], 0, b"a"),
        ([OUT], 0, b"ab" * 11),
        ([STOP], 0, b"ab" * 10),
        ([(0, HostOutput(b"x" * (MAX_PAYLOAD - 60)))], 0, b"ab" * 11),
    ],
)
def test_lie_in_reply_to_a_string_breaks_the_protocol(
    rig: Rig, effects: list[tuple[int, Effect]], value: int, behind: bytes
) -> None:
    rig.reply(READ_STRING, 2, *effects, value=value, behind=behind)
    with pytest.raises(ProtocolError):
        rig.bus.read_string(PORT, 2, 10)
    assert rig.log == []
