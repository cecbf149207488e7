"""The jailed processes of a replay: what they do not answer is no answer, and none of them outlives it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from kvmbox.remote.process.spawner_client import DeviceProcess
from kvmbox.tools.replay import fresh_models
from kvmbox.tools.replay.fresh_models import InProcesses
from kvmbox.wire import protocol
from kvmbox.wire.protocol import Request
from tests.support.recordings import CHANNELS, LSR, PIT, UART, small_machine

BROKEN = Request(protocol.READ, 200, 1).encode()
"""To a device that the process does not have: no VMM sends it, and the process fails."""


@pytest.fixture
def processes() -> Iterator[InProcesses]:
    """Processes for the UARTs and the PIT, greeted."""
    backend = InProcesses(CHANNELS, [index < 2 for index in range(len(CHANNELS))])
    for record in small_machine().records[:2]:
        assert backend.handle(record.channel, record.request) == record.reply
    yield backend
    backend.close()


def test_process_that_replays_may_run_afterwards_where_it_could() -> None:
    allowed = os.sched_getaffinity(0)
    backend = InProcesses(CHANNELS, [False] * len(CHANNELS))
    backend.close()
    assert os.sched_getaffinity(0) == allowed


def device_process(backend: InProcesses, device_type: str) -> int:
    """The pidfd of one process, to be closed by the caller."""
    process = backend._pool.members[device_type].process
    assert isinstance(process, DeviceProcess)
    pidfd = process.pidfd
    assert pidfd >= 0
    return os.dup(pidfd)


def read_lsr() -> bytes:
    return Request(protocol.READ, 0, 1, 2, offset=LSR).encode()


def test_process_that_fails_says_why_and_then_nothing(processes: InProcesses) -> None:
    words = processes.handle(UART, BROKEN)

    assert words[0] == protocol.ERROR
    assert b"FrameError: an access of" in words
    assert processes.why(UART) is None
    assert processes.handle(UART, read_lsr()) == b""
    assert processes.why(UART) == "device process 'uart' exited with status 1"
    assert processes.handle(UART, read_lsr()) == b""


def test_process_that_fails_leaves_the_others_alone(processes: InProcesses) -> None:
    processes.handle(UART, BROKEN)

    assert processes.handle(PIT, Request(protocol.ADVANCE, sequence=2).encode())[0] == protocol.ADVANCE | 0x80


def test_process_that_hangs_is_given_up_and_killed(
    processes: InProcesses, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fresh_models, "REPLY_SLICES", 1)
    pidfd = device_process(processes, "uart")
    signal.pidfd_send_signal(pidfd, signal.SIGSTOP)

    assert processes.handle(UART, read_lsr()) == b""
    assert processes.why(UART) == "device process 'uart' did not answer"

    processes.close()
    with pytest.raises(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, 0)
    os.close(pidfd)


def test_process_that_is_killed_is_explained(processes: InProcesses) -> None:
    pidfd = device_process(processes, "uart")
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    os.close(pidfd)

    assert processes.handle(UART, read_lsr()) == b""
    assert "SIGKILL" in str(processes.why(UART))


def test_only_wanted_channels_have_processes(processes: InProcesses) -> None:
    assert set(processes._pool.members) == {"uart", "pit"}


def test_close_leaves_no_process(processes: InProcesses) -> None:
    pidfds = [device_process(processes, name) for name in ("uart", "pit")]

    processes.close()

    for pidfd in pidfds:
        with pytest.raises(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, 0)
        os.close(pidfd)
