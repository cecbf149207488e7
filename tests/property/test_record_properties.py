"""Recordings of random programs replay, a cut one is a prefix, and damage is one clear line."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from kvmbox.base.errors import RecordingError
from kvmbox.parts.record import format as fmt
from kvmbox.parts.record.format import End, EndReason, Record
from kvmbox.parts.record.recorder import Recorder
from kvmbox.tools.replay.chrome import export
from kvmbox.tools.replay.frames_as_text import record_data, record_line
from kvmbox.tools.replay.fresh_models import InProcess
from kvmbox.tools.replay.reader import RecordingReader
from kvmbox.tools.replay.replayer import ReplayResult, replay
from kvmbox.tools.replay.select import DeviceChoice
from kvmbox.tools.replay.trace_summary import format_summary, summarise
from kvmbox.wire import protocol
from tests.support.recordings import BOARD, CHANNELS, Machine, pack, recording, stream_of

U32 = st.integers(0, (1 << 32) - 1)
TIMES = st.integers(0, fmt.MAX_NOW)
NONE = DeviceChoice.parse(None, CHANNELS)


@st.composite
def machines(draw: st.DrawFn) -> Machine:
    """A machine that was driven by requests as a VMM sends them, at random."""
    machine = Machine()
    now = 0
    for _ in range(draw(st.integers(0, 25))):
        channel = draw(st.integers(0, len(CHANNELS) - 1))
        device = draw(st.integers(0, len(CHANNELS[channel].devices) - 1))
        now += draw(st.sampled_from([0, 1, 1_000, 9_000_000, 3_000_000_000]))
        kind = draw(st.sampled_from([protocol.READ] * 3 + [protocol.WRITE] * 5 + [4, 5, 6, 7]))
        if kind in (protocol.READ, protocol.WRITE):
            size = draw(st.sampled_from([1, 1, 1, 2, 4, 8]))
            value = draw(st.integers(0, (1 << 8 * size) - 1)) if kind == protocol.WRITE else 0
            offset = draw(st.integers(0, 8) | U32)
            machine.request(channel, kind, device=device, size=size, now=now, value=value, offset=offset)
        else:
            payload = draw(st.binary(max_size=20)) if kind == protocol.RECEIVE else b""
            machine.request(channel, kind, device=device, now=now, payload=payload)
    return machine


def use(data: bytes) -> tuple[list[Record], ReplayResult | None]:
    """Do with a file all that the commands do; returns its records, and what a replay found if there was one.

    RecordingError is what damage may cause, in one printable line, and nothing else.
    """
    records: list[Record] = []
    with tempfile.NamedTemporaryFile(suffix=".rec") as file:
        file.write(data)
        file.flush()
        try:
            reader = RecordingReader(file.name)
        except RecordingError as error:
            check_line(error)
            return records, None
        with reader:
            try:
                records += reader.records()
            except RecordingError as error:
                check_line(error)
    channels = reader.channels
    choice = DeviceChoice.parse(None, channels)
    for record in records:
        assert record_line(channels[record.channel], record).isprintable()
        record_data(channels[record.channel], record)
    format_summary(summarise(records, channels, choice))
    export(records, channels, choice, io.StringIO())
    try:
        result = replay(records, channels, choice, InProcess(channels))
    except RecordingError as error:
        check_line(error)
        return records, None
    if result.difference is not None:
        assert result.difference.report()
    return records, result


def check_line(error: RecordingError) -> None:
    """The error is one clear line."""
    assert str(error).isprintable()
    assert str(error)


@given(machines())
def test_random_program_recorded_is_replayed_identically(machine: Machine) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "run.rec"
        recorder = Recorder(str(path), BOARD)
        sinks = [recorder.of(channel.device_type) for channel in CHANNELS]
        for record in machine.records:
            sinks[record.channel](record.request, record.reply)
        assert recorder.finish() is None
        records, result = use(path.read_bytes())

    assert records == machine.records
    assert result is not None
    assert result.difference is None
    assert result.compared == len(records)


@given(machines(), st.data())
def test_cut_recording_is_a_prefix(machine: Machine, data: st.DataObject) -> None:
    stream = stream_of(machine.records, End(EndReason.COMPLETE, len(machine.records)))
    length = data.draw(st.integers(0, len(stream)))

    records, result = use(pack(stream[:length], finish=False))

    assert records == machine.records[: len(records)]
    missing = machine.records[len(records) :]
    assert result is not None
    assert result.difference is None
    # All that is whole is there.
    assert not missing or len(stream_of([*records, missing[0]], None)) > length


@given(machines(), st.data())
@settings(max_examples=200)
def test_flipped_byte_in_the_records_is_a_difference_or_one_line(
    machine: Machine, data: st.DataObject
) -> None:
    stream = bytearray(stream_of(machine.records, End(EndReason.COMPLETE, len(machine.records))))
    for _ in range(data.draw(st.integers(1, 3))):
        stream[data.draw(st.integers(0, len(stream) - 1))] ^= data.draw(st.integers(1, 255))

    use(pack(bytes(stream)))


@given(machines(), st.data())
def test_flipped_byte_in_the_file_is_a_difference_or_one_line(machine: Machine, data: st.DataObject) -> None:
    file = bytearray(recording(machine.records))
    file[data.draw(st.integers(0, len(file) - 1))] ^= data.draw(st.integers(1, 255))

    use(bytes(file))


@given(st.binary(max_size=200))
def test_any_bytes_are_one_line(junk: bytes) -> None:
    assert use(junk) == ([], None)
    use(fmt.MAGIC + junk)
    use(fmt.encode_header(CHANNELS) + junk)
    use(pack(junk))


@given(machines(), st.data())
def test_any_other_reply_is_the_difference_that_is_found(machine: Machine, data: st.DataObject) -> None:
    number = data.draw(st.integers(len(CHANNELS), len(machine.records)))
    if number == len(machine.records):
        return
    other = data.draw(st.binary(max_size=64))
    records = [r._replace(reply=other) if r.number == number else r for r in machine.records]

    result = replay(records, CHANNELS, NONE, InProcess(CHANNELS))

    if other == machine.records[number].reply:
        assert result.difference is None
    else:
        assert result.difference is not None
        assert result.difference.record.number == number
        assert result.difference.got == machine.records[number].reply


@given(TIMES, TIMES, st.integers(0, 255), st.sampled_from([1, 2, 4, 8]), U32)
def test_any_request_of_a_vmm_is_answered(now: int, later: int, value: int, size: int, offset: int) -> None:
    machine = Machine()
    for channel, header in enumerate(CHANNELS):
        for device in range(len(header.devices)):
            for moment in (now, later):
                request = protocol.Request(protocol.WRITE, device, size, 9, moment, value, offset).encode()
                machine.records.append(Record(len(machine.records), channel, request, b""))

    use(recording(machine.records))
