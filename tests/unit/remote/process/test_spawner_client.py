"""The VMM's side of the spawner, as far as it needs no process."""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace
from typing import Any, cast

import pytest

from kvmbox.base.errors import SandboxError
from kvmbox.jail import descriptor_passing, layers
from kvmbox.remote.process.spawner_client import (
    Death,
    DeviceProcess,
    SpawnerChild,
    SpawnerClient,
    describe_wait_status,
)
from kvmbox.sandbox.listener import ForbiddenCall
from kvmbox.wire import spawner_frames


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (0, "exited with status 0"),
        (0x0700, "exited with status 7"),
        (9, "was killed by signal 9 (SIGKILL)"),
        (0x80 | 31, "was killed by signal 31 (SIGSYS)"),
        (50, "was killed by signal 50 (a real-time signal)"),
    ],
)
def test_describe_wait_status_says_how_it_ended(status: int, text: str) -> None:
    assert describe_wait_status(status) == text


def test_death_is_a_pair_of_pid_and_status() -> None:
    pid, status = Death(12, 9)
    assert (pid, status) == (12, 9)


def test_start_interpreter_missing_is_a_sandbox_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    with pytest.raises(SandboxError, match=r"cannot start the spawner \(/nonexistent/python\)"):
        SpawnerClient.start()


def test_kill_is_asked_for_until_the_process_has_ended_and_of_none_that_never_was() -> None:
    asked: list[DeviceProcess] = []
    process = DeviceProcess("uart", 77, killer=asked.append)
    process.kill()
    process.kill()
    process.wait_status = 9
    process.kill()
    assert asked == [process, process]
    never = DeviceProcess("uart")
    never.kill()
    assert never.end() is None


@pytest.mark.parametrize("staged_first", [True, False])
def test_stage_that_tells_late_is_reaped_all_the_same(staged_first: bool) -> None:
    # The stage and the spawner run at the same time: either may be the first to be heard.
    own_end, spawner_end = descriptor_passing.socket_pair()
    stage = os.posix_spawn("/bin/true", ["true"], {})
    client = SpawnerClient(SpawnerChild(stage, os.pidfd_open(stage)), own_end, [])
    pidfd = os.pidfd_open(os.getpid())

    def tell_staged() -> None:
        frame = spawner_frames.pack(spawner_frames.STAGED, 0, os.getpid())
        descriptor_passing.send(spawner_end, frame, [pidfd])

    if staged_first:
        tell_staged()
    descriptor_passing.send(
        spawner_end,
        spawner_frames.pack(
            spawner_frames.HELLO,
            spawner_frames.STAGED_TOO,
            spawner_frames.VERSION,
            layers.PID_NS,
            b"x: y",
        ),
    )
    assert client.wait_hello(timeout_ns=0) is staged_first
    if not staged_first:
        tell_staged()

    assert client.wait_hello(timeout_ns=0)
    assert (client.pid, client.layers, client.missing) == (os.getpid(), layers.PID_NS, {"x": "y"})
    with pytest.raises(ChildProcessError):
        os.waitpid(stage, os.WNOHANG)
    client.process.close()
    for descriptor in (own_end, spawner_end, pidfd):
        os.close(descriptor)


def test_spawn_limits_agree() -> None:
    assert spawner_frames.MAXIMUM_FRAME <= descriptor_passing.MAXIMUM_MESSAGE


@pytest.mark.parametrize("last_words", [b"no frame", bytes(descriptor_passing.MAXIMUM_MESSAGE + 1)])
def test_close_of_a_spawner_that_makes_no_sense_kills_it(last_words: bytes) -> None:
    own_end, spawner_end = descriptor_passing.socket_pair()
    spawner = os.posix_spawn("/bin/sleep", ["sleep", "infinity"], {})
    client = SpawnerClient(SpawnerChild(spawner, os.pidfd_open(spawner)), own_end, [])
    descriptor_passing.send(spawner_end, last_words)
    client.close()
    os.close(spawner_end)
    with pytest.raises(ChildProcessError):
        os.waitpid(spawner, os.WNOHANG)


def test_forbidden_call_is_known_before_the_process_is_killed_for_it() -> None:
    """Another thread, which waits for the end, may be the one to tell the cause."""
    call = ForbiddenCall("openat", 257, (0,) * 6, 7)
    known: list[object] = []
    process = DeviceProcess("uart", killer=lambda one: known.append(one.forbidden))
    process.listener = cast(Any, SimpleNamespace(receive=lambda: call, close=lambda: None))
    assert process.take_forbidden_call() is call
    assert known == [call]
