"""Recordings for tests: a machine's channels driven without processes, and files made of records."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Sequence
from pathlib import Path

from kvmbox.devices.pc_board import BoardOptions, pc_board
from kvmbox.devices.pit.input_clock import CLK_HZ
from kvmbox.jail.server import DeviceServer
from kvmbox.parts.record import format as fmt
from kvmbox.parts.record.format import ChannelHeader, End, EndReason, Record
from kvmbox.remote.channel.hello import hello_of
from kvmbox.tools.replay.reader import RecordingReader
from kvmbox.wire import protocol
from kvmbox.wire.protocol import Request

BOARD = pc_board(BoardOptions(("COM1", "COM2"), rtc_base=0, memory_size=1 << 24))
CHANNELS = fmt.channels_of(BOARD)
UART, PIT, RTC = 0, 1, 2
LSR = 5


class Machine:
    """The device models of `BOARD`; keeps each request with its reply."""

    def __init__(self, channels: Sequence[ChannelHeader] = CHANNELS) -> None:
        self.channels = channels
        self.records: list[Record] = []
        self._servers = [DeviceServer() for _ in channels]
        self._sequence = [0 for _ in channels]
        for index, channel in enumerate(channels):
            for hello in hello_of(channel.devices):
                self.request(index, hello.kind, value=hello.value, offset=hello.offset, payload=hello.payload)

    def request(
        self,
        channel: int,
        kind: int,
        *,
        device: int = 0,
        size: int = 0,
        now: int = 0,
        value: int = 0,
        offset: int = 0,
        payload: bytes = b"",
    ) -> bytes:
        """Ask the models of a channel; returns the reply's frame."""
        self._sequence[channel] += 1
        request = Request(kind, device, size, self._sequence[channel], now, value, offset, payload).encode()
        reply = self._servers[channel].handle(request)
        self.records.append(Record(len(self.records), channel, request, reply))
        return reply

    def read(self, channel: int, offset: int, *, now: int = 0, device: int = 0) -> None:
        """A read of one byte."""
        self.request(channel, protocol.READ, device=device, size=1, now=now, offset=offset)

    def write(self, channel: int, offset: int, value: int, *, now: int = 0, device: int = 0) -> None:
        """A write of one byte."""
        self.request(channel, protocol.WRITE, device=device, size=1, now=now, offset=offset, value=value)


def small_machine() -> Machine:
    """A machine that has done a little of everything: output, input, interrupts, time, reset."""
    machine = Machine()
    machine.write(UART, 1, 0x0F, now=1_000)
    machine.write(UART, 4, 0x08, now=1_500)
    for step, byte in enumerate(b"Hi\n"):
        machine.read(UART, LSR, now=2_000 + step)
        machine.write(UART, 0, byte, now=2_000 + step)
    machine.request(UART, protocol.RECEIVE, now=3_000, payload=b"typed")
    machine.read(UART, 0, now=3_001)
    machine.write(PIT, 3, 0x34, now=4_000)
    machine.write(PIT, 0, 0x10, now=4_001)
    machine.write(PIT, 0, 0x00, now=4_002)
    machine.request(PIT, protocol.ADVANCE, now=1_000_000)
    machine.write(RTC, 0, 0x0A, now=1_000_100)
    machine.read(RTC, 1, now=1_000_101)
    machine.write(UART, 7, 0x5A, now=1_000_200, device=1)
    machine.read(UART, 7, now=1_000_300, device=1)
    for channel in range(len(CHANNELS)):
        machine.request(channel, protocol.RESET, now=2_000_000)
    return machine


def stream_of(records: Sequence[Record], end: End | None) -> bytes:
    """The records and, if there is one, the end mark, not compressed."""
    parts = [
        fmt.RECORD.pack(one.channel, fmt.EXCHANGE, len(one.request), len(one.reply)) + one.request + one.reply
        for one in records
    ]
    return b"".join(parts) + (b"" if end is None else fmt.encode_end(end))


def recording(
    records: Sequence[Record],
    *,
    channels: Sequence[ChannelHeader] = CHANNELS,
    reason: EndReason | None = EndReason.COMPLETE,
) -> bytes:
    """A file of these records, without an end if `reason` is None."""
    end = None if reason is None else End(reason, len(records))
    return pack(stream_of(records, end), channels=channels, finish=end is not None)


def pack(stream: bytes, *, channels: Sequence[ChannelHeader] = CHANNELS, finish: bool = True) -> bytes:
    """A file with this stream, whatever it holds."""
    compressor = zlib.compressobj()
    data = compressor.compress(stream)
    return (
        fmt.encode_header(channels) + data + compressor.flush(zlib.Z_FINISH if finish else zlib.Z_SYNC_FLUSH)
    )


def read_back(path: Path) -> tuple[list[Record], RecordingReader]:
    """All records of a file, and the reader at its end."""
    with RecordingReader(str(path)) as reader:
        return list(reader.records()), reader


def ticks_of_the_pit(recording: Path, divisor: int) -> float:
    """How many ticks there are in guest time from the last byte of the count, with which the PIT starts, to
    the command that stops it.
    """
    reader = RecordingReader(str(recording))
    with contextlib.closing(reader):
        pit = next(number for number, channel in enumerate(reader.channels) if channel.device_type == "pit")
        requests = [protocol.decode_request(one.request) for one in reader.records() if one.channel == pit]
    *_, started, stopped = [request for request in requests if request.kind == protocol.WRITE]
    assert (started.offset, started.value) == (0, divisor >> 8)
    assert (stopped.offset, stopped.value) == (3, 0x30)
    return (stopped.now - started.now) * CLK_HZ / divisor / 1e9
