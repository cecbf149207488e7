"""Recording: what channels hand over is in the file, within its limit, whatever the disk does."""

from __future__ import annotations

import errno
import os
import stat
import threading
from pathlib import Path
from typing import Final

import pytest

from kvmbox.base.errors import KvmboxError, StartError, UsageError
from kvmbox.parts.record import format as fmt
from kvmbox.parts.record import recorder as module
from kvmbox.parts.record.format import EndReason, Record
from kvmbox.parts.record.recorder import Recorder
from tests.support.no_threads import refuse_threads
from tests.support.recordings import BOARD, CHANNELS, read_back, small_machine

NO_SPACE = os.strerror(errno.ENOSPC)

HEADER: Final = len(fmt.encode_header(CHANNELS))
"""Bytes of a recording before its first record."""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "run.rec"


def record_all(recorder: Recorder, records: list[Record]) -> None:
    """Hand over records as channels do."""
    sinks = [recorder.of(channel.device_type) for channel in CHANNELS]
    for record in records:
        sinks[record.channel](record.request, record.reply)


def test_recording_holds_every_exchange_in_order(file: Path) -> None:
    records = small_machine().records
    recorder = Recorder(str(file), BOARD)

    record_all(recorder, records)
    problem = recorder.finish()

    assert problem is None
    found, reader = read_back(file)
    assert found == records
    assert reader.ending is not None
    assert reader.ending.end is not None
    assert reader.ending.end.reason is EndReason.COMPLETE


def test_finish_twice_is_once(file: Path) -> None:
    recorder = Recorder(str(file), BOARD)

    assert recorder.finish() is None
    assert recorder.finish() is None
    assert read_back(file)[0] == []


def test_exchange_after_the_finish_is_not_recorded(file: Path) -> None:
    recorder = Recorder(str(file), BOARD)
    recorder.finish()

    record_all(recorder, small_machine().records)

    assert read_back(file)[0] == []
    assert not recorder._queue, "a recording that has ended must not cost memory"


def test_recording_without_a_thread_is_written_at_the_finish(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = small_machine().records
    recorder = Recorder(str(file), BOARD, start=False)
    refuse_threads(monkeypatch)
    with pytest.raises(KvmboxError, match="thread that writes the recording"):
        recorder.start()

    record_all(recorder, records)

    assert recorder.finish() is None
    assert recorder.finish() is None
    assert read_back(file)[0] == records


def test_existing_file_is_replaced(file: Path) -> None:
    file.write_bytes(b"x" * 100_000)

    Recorder(str(file), BOARD).finish()

    assert read_back(file)[0] == []


def test_new_recording_is_for_its_user_alone_and_another_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "old").touch()
    (tmp_path / "old").chmod(0o640)
    for name, mode in (("new", 0o600), ("old", 0o640)):
        Recorder(str(tmp_path / name), BOARD).finish()
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == mode


def test_short_writes_are_continued(file: Path) -> None:
    records = small_machine().records
    recorder = Recorder(str(file), BOARD, write=lambda fd, view: os.write(fd, view[:7]))

    record_all(recorder, records)

    assert recorder.finish() is None
    assert read_back(file)[0] == records


def test_written_data_is_usable_before_the_finish(file: Path) -> None:
    records = small_machine().records
    written = threading.Event()

    def write(descriptor: int, data: memoryview) -> int:
        count = os.write(descriptor, data)
        if file.stat().st_size > len(fmt.encode_header(CHANNELS)):
            written.set()
        return count

    recorder = Recorder(str(file), BOARD, write=write)
    record_all(recorder, records[:1])
    assert written.wait(30)
    copy = file.with_name("copy.rec")
    copy.write_bytes(file.read_bytes())
    recorder.finish()

    assert read_back(copy)[0] == records[:1]


@pytest.mark.parametrize("limit", [HEADER + 200, HEADER + 400, HEADER + 800])
def test_limit_bounds_the_file_and_is_said_once(file: Path, limit: int) -> None:
    said: list[str] = []
    records = small_machine().records
    recorder = Recorder(str(file), BOARD, limit=limit, say=said.append)

    record_all(recorder, records * 40)
    problem = recorder.finish()

    assert problem is None
    assert recorder.ended
    assert said == [f"recording to '{file}' stopped at --record-limit, the run goes on"]
    assert file.stat().st_size <= limit


def test_limit_keeps_as_many_records_as_fit(file: Path) -> None:
    records = small_machine().records
    limit = HEADER + 900
    recorder = Recorder(str(file), BOARD, limit=limit)

    record_all(recorder, records)
    recorder.finish()

    found, reader = read_back(file)
    assert found == records[: len(found)]
    assert 5 < len(found) < len(records)
    # A record takes far less than what is left free at the end.
    assert limit - file.stat().st_size < 150
    assert reader.ending is not None
    assert reader.ending.end is not None
    assert reader.ending.end.reason is EndReason.LIMIT


def test_limit_that_is_not_reached_changes_nothing(file: Path) -> None:
    records = small_machine().records
    recorder = Recorder(str(file), BOARD, limit=1 << 20)

    record_all(recorder, records)

    assert recorder.finish() is None
    assert read_back(file)[0] == records


def test_limit_below_the_header_is_a_usage_error(file: Path) -> None:
    with pytest.raises(UsageError, match="--record-limit 500"):
        Recorder(str(file), BOARD, limit=500)
    assert not file.exists()


class FillingDisk:
    """Takes `room` bytes."""

    def __init__(self, room: int) -> None:
        self.room = room

    def write(self, descriptor: int, data: memoryview) -> int:
        count = min(len(data), self.room)
        if not count:
            raise OSError(errno.ENOSPC, NO_SPACE)
        self.room -= count
        return os.write(descriptor, data[:count])


def test_full_disk_ends_the_recording_and_keeps_what_is_there(file: Path) -> None:
    said: list[str] = []
    records = small_machine().records
    disk = FillingDisk(len(fmt.encode_header(CHANNELS)) + 300)
    recorder = Recorder(str(file), BOARD, say=said.append, write=disk.write)

    record_all(recorder, records)
    problem = recorder.finish()

    assert problem == f"the recording '{file}' is not whole: {NO_SPACE}"
    assert said == [f"recording to '{file}' ended, the run goes on: {NO_SPACE}"]
    found, reader = read_back(file)
    assert found == records[: len(found)]
    assert found
    assert reader.ending is not None
    assert reader.ending.end is None


def test_full_disk_at_the_header_is_a_start_error(file: Path) -> None:
    with pytest.raises(StartError, match=NO_SPACE):
        Recorder(str(file), BOARD, write=FillingDisk(100).write)


def test_path_that_cannot_be_written_is_a_start_error(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="Is a directory"):
        Recorder(str(tmp_path), BOARD)


def test_fifo_without_a_reader_is_refused_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")

    with pytest.raises(StartError, match="cannot write the recording"):
        Recorder(str(tmp_path / "fifo"), BOARD)


def test_stderr_that_is_gone_does_not_harm_the_recording(file: Path) -> None:
    def say(_text: str) -> None:
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    recorder = Recorder(str(file), BOARD, limit=HEADER + 200, say=say)
    record_all(recorder, small_machine().records * 40)

    assert recorder.finish() is None
    assert read_back(file)[1].ending is not None


def test_disk_that_does_not_take_it_is_waited_for_but_not_for_ever(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FINISH_SECONDS", 0.01)
    release = threading.Event()
    header = len(fmt.encode_header(CHANNELS))

    def write(descriptor: int, data: memoryview) -> int:
        if len(data) != header:
            release.wait(30)
        return os.write(descriptor, data)

    recorder = Recorder(str(file), BOARD, write=write)
    record_all(recorder, small_machine().records)
    problem = recorder.finish()
    release.set()

    assert problem == f"the recording '{file}' is not whole: the disk does not take it"


def test_full_queue_slows_whoever_adds_but_loses_nothing(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CAPACITY", 4)
    monkeypatch.setattr(module, "WAIT_SECONDS", 0.001)
    records = small_machine().records
    recorder = Recorder(str(file), BOARD)

    record_all(recorder, records)

    assert recorder.finish() is None
    assert read_back(file)[0] == records
