"""Behind the verdict a signal changes nothing: not the status, nor what a run leaves for others to read."""

from __future__ import annotations

import json
import os
import select
import signal
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from kvmbox.tools.replay.reader import RecordingReader
from tests.support.real_mode import IDLE, debug_exit, say
from tests.support.runs import Images, run_to_end
from tests.support.waiting import Stream

pytestmark = pytest.mark.kvm

PROGRAM = (sys.executable, str(Path(__file__).parent / "run_payload" / "signal_at.py"))
GUEST = say(b"Hello\n") + debug_exit(3) + IDLE
STAGES = (
    "kvmbox.base.outcome:Decision.decide+",
    "kvmbox.run.loop.main_loop:MainLoop.run_until_reset+",
    "kvmbox.run.machine.guest_vm:GuestVm.close",
    "kvmbox.host.console.serial_ports:Console.finish",
    "kvmbox.host.console.serial_ports:Console.finish+",
    "kvmbox.parts.record.recorder:Recorder.finish",
    "kvmbox.run.run:collect",
    "kvmbox.run.loop.main_loop:MainLoop.close",
    "kvmbox.host.process.signals:Wakeup.close+",
    "kvmbox.remote.process.device_pool:DevicePool.close",
    "kvmbox.remote.process.device_pool:DevicePool.close+",
    "kvmbox.host.process.signals:SignalHandlers.restore",
    "kvmbox.host.process.signals:SignalHandlers.restore+",
    "kvmbox.cli.run.report_files:write_data",
    "kvmbox.cli.run.report_files:write_data+",
    "kvmbox.run.result.statistics_as_text:format_stats",
    "kvmbox.cli.exit_status:guarded+",
    "os:_exit",
)


@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize("stage", STAGES)
def test_signal_behind_the_verdict_changes_nothing(
    images: Images, tmp_path: Path, stage: str, count: int
) -> None:
    result, record = tmp_path / "result.json", tmp_path / "run.kvr"
    status, output, messages = run_to_end(
        images.run(
            GUEST,
            *("--stats", "--json", result, "--record", record),
            command=(*PROGRAM, stage, str(count)),
        )
    )
    assert (status, output) == (7, b"Hello\n"), messages
    assert json.loads(result.read_text())["status"] == 7
    assert "outcome " in messages
    assert "Traceback" not in messages
    with RecordingReader(str(record)) as recording:
        assert sum(1 for _ in recording.records()) > 0
        assert recording.ending is not None
        assert recording.ending.notice() is None


def test_third_signal_ends_a_report_that_nobody_reads_and_the_status_stays(
    images: Images, tmp_path: Path
) -> None:
    reading, writing = os.pipe2(os.O_NONBLOCK)
    with suppress(BlockingIOError):
        while os.write(writing, bytes(4096)):
            pass
    os.set_blocking(writing, True)
    fifo = tmp_path / "result.json"
    os.mkfifo(fifo)
    result = Stream(os.open(fifo, os.O_RDONLY | os.O_NONBLOCK), "--json")
    with images.run(GUEST, "--stats", "--json", fifo, stderr=writing) as run:
        result.until(b"\n}\n")
        # The verdict is decided and told. Signals before the report count for nothing: one of these does.
        pidfd = os.pidfd_open(run.pid)
        while not select.select([pidfd], [], [], 0.05)[0]:
            run.signal(signal.SIGINT)
        os.close(pidfd)
        assert run.process.wait() == json.loads(result.seen)["status"] == 7
    for descriptor in (reading, writing, result.descriptor):
        os.close(descriptor)


def test_signal_before_the_guest_runs_leaves_a_result(images: Images, tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    command = (*PROGRAM, "kvmbox.kvm.system:Kvm.open", "1")
    status, output, messages = run_to_end(images.run(GUEST, "--json", result, command=command))
    assert (status, output, messages.strip()) == (130, b"", "")
    assert json.loads(result.read_text())["status"] == 130
