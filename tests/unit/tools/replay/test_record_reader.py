"""Reading: whole, cut and damaged recordings."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvmbox.base.errors import RecordingError
from kvmbox.parts.record import format as fmt
from kvmbox.parts.record.format import End, EndReason, Record
from tests.support.recordings import (
    CHANNELS,
    Machine,
    pack,
    read_back,
    recording,
    small_machine,
    stream_of,
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "run.rec"


def test_whole_recording_is_read_in_order(file: Path) -> None:
    machine = small_machine()
    file.write_bytes(recording(machine.records))

    records, reader = read_back(file)

    assert records == machine.records
    assert reader.channels == fmt.decode_header(fmt.encode_header(CHANNELS)[fmt.PREAMBLE.size :])
    assert reader.ending is not None
    assert reader.ending.end == End(EndReason.COMPLETE, len(records))
    assert reader.ending.notice() is None


def test_recording_at_its_limit_says_so(file: Path) -> None:
    machine = small_machine()
    file.write_bytes(recording(machine.records, reason=EndReason.LIMIT))

    _, reader = read_back(file)

    assert reader.ending is not None
    assert "--record-limit" in str(reader.ending.notice())


@pytest.mark.parametrize("lost", [1, 6, 32, 37])
def test_recording_cut_within_a_record_is_good_up_to_the_one_before(file: Path, lost: int) -> None:
    machine = small_machine()
    file.write_bytes(pack(stream_of(machine.records, None)[:-lost], finish=False))

    records, reader = read_back(file)

    assert records == machine.records[:-1]
    assert reader.ending is not None
    assert str(reader.ending.notice()) == (
        f"the recording was cut short: its {len(records)} whole records are used"
    )


@pytest.mark.parametrize("lost", [1, 4])
def test_recording_that_lost_its_checksum_is_noticed(file: Path, lost: int) -> None:
    machine = small_machine()
    file.write_bytes(recording(machine.records)[:-lost])

    records, reader = read_back(file)

    assert records == machine.records
    assert reader.ending is not None
    assert "they could not be checked" in str(reader.ending.notice())


def test_recording_cut_between_records_is_noticed(file: Path) -> None:
    machine = small_machine()
    file.write_bytes(recording(machine.records, reason=None))

    records, reader = read_back(file)

    assert records == machine.records
    assert reader.ending is not None
    assert "cut short" in str(reader.ending.notice())


def test_recording_cut_anywhere_is_usable_or_named_useless(file: Path) -> None:
    machine = small_machine()
    data = recording(machine.records)
    header = len(fmt.encode_header(CHANNELS))
    for length in range(len(data)):
        file.write_bytes(data[:length])
        if length < header:
            with pytest.raises(RecordingError, match=str(file)):
                read_back(file)
        else:
            records, _ = read_back(file)
            assert records == machine.records[: len(records)]


def damaged(records: list[Record], **changes: int) -> bytes:
    """The last record's framing with other values."""
    last = records[-1]
    values = {
        "channel": last.channel,
        "kind": fmt.EXCHANGE,
        "request": len(last.request),
        "reply": len(last.reply),
    } | changes
    return (
        stream_of(records[:-1], None)
        + fmt.RECORD.pack(*values.values())
        + last.request
        + last.reply
        + b"\0" * 5000
    )


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"channel": 9}, "channel 9"),
        ({"kind": 2}, "kind 2"),
        ({"request": 5}, "a request of 5 bytes"),
        ({"request": 33}, "announces a payload"),
        ({"reply": fmt.MAX_REPLY + 1}, "a reply of 4098 bytes"),
    ],
)
def test_damaged_record_is_named_after_what_precedes_it(
    file: Path, changes: dict[str, int], complaint: str
) -> None:
    records = small_machine().records
    file.write_bytes(pack(damaged(records, **changes)))
    seen: list[Record] = []

    with pytest.raises(RecordingError, match=complaint) as caught:  # noqa: PT012 - the loop is what raises
        from kvmbox.tools.replay.reader import RecordingReader

        with RecordingReader(str(file)) as reader:
            for record in reader.records():
                seen.append(record)

    assert seen == records[:-1]
    assert str(file) in str(caught.value)
    assert f"behind record {len(records) - 2}" in str(caught.value)
    assert caught.value.hint == f"--until {len(records) - 2} uses what precedes the damage"


def test_end_mark_that_counts_wrong_is_refused(file: Path) -> None:
    records = small_machine().records
    file.write_bytes(pack(stream_of(records, End(EndReason.COMPLETE, len(records) - 1))))

    with pytest.raises(RecordingError, match="its end mark counts"):
        read_back(file)


def test_records_behind_the_end_are_refused(file: Path) -> None:
    machine = Machine()
    end = fmt.encode_end(End(EndReason.COMPLETE, 0))
    file.write_bytes(pack(end + stream_of(machine.records, None)))

    with pytest.raises(RecordingError, match="records behind its end mark"):
        read_back(file)


@pytest.mark.parametrize("junk", [b"x", b"x" * 200_000])
def test_bytes_behind_the_stream_are_refused(file: Path, junk: bytes) -> None:
    file.write_bytes(recording(Machine().records) + junk)

    with pytest.raises(RecordingError, match="bytes behind its end"):
        read_back(file)


def test_piece_of_a_record_behind_the_end_mark_is_refused(file: Path) -> None:
    file.write_bytes(pack(stream_of([], End(EndReason.COMPLETE, 0)) + b"\0\0\0"))

    with pytest.raises(RecordingError, match="bytes behind its end mark"):
        read_back(file)


def test_data_that_is_not_compressed_is_refused(file: Path) -> None:
    file.write_bytes(fmt.encode_header(CHANNELS) + b"\xff" * 100)

    with pytest.raises(RecordingError, match="compressed data is damaged"):
        read_back(file)


def test_flipped_bit_in_a_whole_recording_is_found_at_its_end(file: Path) -> None:
    data = bytearray(recording(Machine().records))
    data[-1] ^= 1  # of the stream's checksum
    file.write_bytes(data)

    with pytest.raises(RecordingError, match="compressed data is damaged"):
        read_back(file)


def test_long_run_of_zeros_is_read_in_bounded_pieces(file: Path) -> None:
    file.write_bytes(pack(b"\0" * (8 << 20)))

    with pytest.raises(RecordingError, match="a request of 0 bytes"):
        read_back(file)


def test_missing_file_is_a_line(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="No such file"):
        read_back(tmp_path / "absent")


def test_directory_is_a_line(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="it is a directory, not a regular file"):
        read_back(tmp_path)
