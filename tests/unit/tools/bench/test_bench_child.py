"""Measured processes: read, limited, ended."""

from __future__ import annotations

import os
import signal
import sys

import pytest

from kvmbox.tools.bench.child import Child, MeasurementError, end_all
from tests.support.patience import patience

LONG = patience(30.0)


def python(code: str, *, timeout: float = LONG, cpu: int | None = None) -> Child:
    return Child([sys.executable, "-I", "-S", "-c", code], timeout=timeout, cpu=cpu)


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_finish_gives_output_messages_and_status() -> None:
    with python("import sys; print('out'); print('err', file=sys.stderr); sys.exit(5)") as child:
        assert child.finish() == 5
    assert bytes(child.output) == b"out\n"
    assert bytes(child.messages) == b"err\n"
    assert child.ended is not None
    assert child.ended > child.started


def test_process_has_our_environment_and_what_is_added(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OURS", "1")
    code = "import os; print(os.environ['OURS'], os.environ['ADDED'])"
    command = [sys.executable, "-I", "-S", "-c", code]
    with Child(command, timeout=LONG, environment={"ADDED": "2"}) as child:
        assert child.finish() == 0
    assert bytes(child.output) == b"1 2\n"


def test_read_until_returns_while_the_process_runs() -> None:
    with python("import time; print('ready', flush=True); time.sleep(1000)") as child:
        assert child.read_until(lambda: b"ready" in child.output)
        assert not is_gone(child.pid)
    assert is_gone(child.pid)


def test_read_until_tells_that_the_output_ended_before() -> None:
    with python("print('something else')") as child:
        assert not child.read_until(lambda: b"ready" in child.output)


def test_process_that_does_not_end_is_given_up_and_ended() -> None:
    child = python("import time; time.sleep(1000)", timeout=0.05)
    with child, pytest.raises(MeasurementError, match=r"no end within 0\.05 s"):
        child.finish()
    assert is_gone(child.pid)


def test_process_that_closes_its_output_and_stays_is_given_up() -> None:
    child = python("import os, time; os.close(1); os.close(2); time.sleep(1000)", timeout=0.3)
    with child, pytest.raises(MeasurementError, match="no end"):
        child.finish()
    assert is_gone(child.pid)


def test_process_is_ended_when_its_reader_is_interrupted() -> None:
    with pytest.raises(KeyboardInterrupt), python("import time; time.sleep(1000)") as child:
        raise KeyboardInterrupt
    assert is_gone(child.pid)


def test_process_that_ignores_sigterm_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kvmbox.tools.bench.child.END_SECONDS", 0.05)
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); print('x', flush=True); time.sleep(1000)"
    with python(code) as child:
        assert child.read_until(lambda: bool(child.output))
    assert is_gone(child.pid)


def test_process_gets_the_cpu_and_the_caller_keeps_its_own() -> None:
    before = os.sched_getaffinity(0)
    cpu = min(before)
    with python("import os; print(os.sched_getaffinity(0))", cpu=cpu) as child:
        child.finish()
    assert bytes(child.output) == f"{{{cpu}}}\n".encode()
    assert os.sched_getaffinity(0) == before


def test_process_is_out_of_reach_of_the_terminals_interrupt() -> None:
    with python("import os; print(os.getpgrp() == os.getpid())") as child:
        child.finish()
    assert bytes(child.output) == b"True\n"


def test_program_that_is_not_there_is_a_measurement_that_failed() -> None:
    with pytest.raises(MeasurementError, match="cannot start /no/such/program"):
        Child(["/no/such/program"], timeout=LONG)


def test_output_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kvmbox.tools.bench.child.MAX_OUTPUT", 1000)
    with python("while True: print('flood')") as child, pytest.raises(MeasurementError, match="1000 bytes"):
        child.finish()


def test_messages_without_end_are_kept_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kvmbox.tools.bench.child.MAX_MESSAGES", 1000)
    with python("import sys\nfor _ in range(10**4): sys.stderr.write('flood')") as child:
        assert child.finish() == 0
    assert len(child.messages) == 1000


@pytest.mark.parametrize(
    ("messages", "status", "reason"),
    [
        ("kvmbox: error: cannot open it\nhint: try\n", 4, "cannot open it"),
        ("kvmbox: --sandbox none: take care\nkvmbox: error: no\n", 4, "no"),
        ("wall time 5 ms\noutcome   the guest wrote 1 (status 3)\n", 3, "the guest wrote 1 (status 3)"),
        ("qemu-system-x86_64: bad machine\n", 1, "qemu-system-x86_64: bad machine (status 1)"),
        ("", 5, "no result (status 5)"),
        ("", -signal.SIGKILL, "killed by SIGKILL"),
        ("", None, "no result"),
    ],
)
def test_reason_is_what_a_person_wants_to_know(messages: str, status: int | None, reason: str) -> None:
    with python("pass") as child:
        child.finish()
    child.messages[:] = messages.encode()
    assert child.reason(status) == reason


def test_end_all_ends_several_beside_each_other() -> None:
    children = [python("import time; time.sleep(1000)") for _ in range(3)]
    end_all(children)
    assert all(is_gone(child.pid) for child in children)
