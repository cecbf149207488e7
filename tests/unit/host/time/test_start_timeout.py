"""The alarm that ends a start: where it is raised, and that nothing is left of it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest

from kvmbox.base.errors import SandboxError, StartTimeoutError
from kvmbox.base.light_typing import signal
from kvmbox.host.time import start_timeout as module
from kvmbox.host.time.start_timeout import StartDeadline, StartTimeout

LONG_AGO = 0
FAR = 3600.0


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    before = signal.getsignal(signal.SIGALRM), signal.pthread_sigmask(signal.SIG_BLOCK, ())
    yield
    assert signal.setitimer(signal.ITIMER_REAL, 0) == (0.0, 0.0)
    assert (signal.getsignal(signal.SIGALRM), signal.pthread_sigmask(signal.SIG_BLOCK, ())) == before


@pytest.fixture
def silent_pipe() -> Iterator[int]:
    """The reading end of a pipe that nobody writes to."""
    reading, writing = os.pipe()
    yield reading
    os.close(reading)
    os.close(writing)


def test_read_that_never_returns_is_ended_and_the_error_says_how_far_it_was(silent_pipe: int) -> None:
    with (
        pytest.raises(StartTimeoutError) as caught,
        StartTimeout(0.01, time.monotonic_ns(), lambda: "spawner started"),
    ):
        os.read(silent_pipe, 1)
    assert str(caught.value) == "--timeout 0.01 s ran out before the guest ran"
    assert caught.value.hint == "so far: spawner started"
    assert caught.value.exit_status == 124


def test_time_from_before_counts(silent_pipe: int) -> None:
    with pytest.raises(StartTimeoutError), StartTimeout(FAR, LONG_AGO - int(FAR * 1e9), lambda: ""):
        os.read(silent_pipe, 1)


def test_no_handler_of_errors_takes_it_for_something_else(silent_pipe: int) -> None:
    def build_model() -> None:
        # As `--sandbox none` does in this process.
        try:
            os.read(silent_pipe, 1)
        except Exception:  # noqa: BLE001 - whatever a model raises
            raise AssertionError("it was taken for a failure of the model") from None

    with pytest.raises(StartTimeoutError), StartTimeout(0.01, time.monotonic_ns(), lambda: ""):
        build_model()


def test_what_a_destructor_swallows_comes_again(silent_pipe: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AGAIN_SECONDS", 0.01)
    swallowed: list[BaseException | None] = []
    monkeypatch.setattr("sys.unraisablehook", lambda unraisable: swallowed.append(unraisable.exc_value))

    class Stubborn:
        def __del__(self) -> None:
            os.read(silent_pipe, 1)

    def drop_and_wait() -> None:
        Stubborn()
        os.read(silent_pipe, 1)

    with pytest.raises(StartTimeoutError), StartTimeout(0.01, time.monotonic_ns(), lambda: ""):
        drop_and_wait()
    assert len(swallowed) == 1


def test_other_errors_pass_as_they_are() -> None:
    with pytest.raises(KeyError), StartTimeout(FAR, time.monotonic_ns(), lambda: ""):
        raise KeyError


def test_over_ends_it_before_its_time() -> None:
    with StartTimeout(FAR, time.monotonic_ns(), lambda: "") as starting:
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 0
        starting.over()
        assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
        starting.over()


def test_any_number_of_seconds_can_be_asked_for() -> None:
    with StartTimeout(1.7e308, time.monotonic_ns(), lambda: ""):
        assert 0 < signal.getitimer(signal.ITIMER_REAL)[0] <= module.LONGEST_SECONDS + 1


def test_blocked_alarm_is_let_through_and_blocked_again(silent_pipe: int) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
    try:
        with pytest.raises(StartTimeoutError), StartTimeout(0.01, time.monotonic_ns(), lambda: ""):
            os.read(silent_pipe, 1)
        assert signal.SIGALRM in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})


def test_alarm_of_somebody_else_does_what_it_would_have_done(silent_pipe: int) -> None:
    class Rang(Exception):
        pass

    def ring(_number: int, _frame: object) -> None:
        raise Rang

    before = signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        with pytest.raises(Rang), StartTimeout(FAR, time.monotonic_ns(), lambda: ""):
            os.read(silent_pipe, 1)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_alarm_of_somebody_else_that_has_not_come_is_set_again() -> None:
    signal.setitimer(signal.ITIMER_REAL, FAR, 7.0)
    with StartTimeout(FAR, time.monotonic_ns(), lambda: ""):
        assert signal.getitimer(signal.ITIMER_REAL)[1] == module.AGAIN_SECONDS
    left, interval = signal.setitimer(signal.ITIMER_REAL, 0)
    assert FAR - 60 < left <= FAR
    assert interval == 7.0


def at_call_of(function: object, strike: Callable[[FrameType], None]) -> Any:
    """A trace function that calls `strike` once, as `function` begins: where Python would run a handler."""
    code = function.__code__  # type: ignore[attr-defined]

    def trace(frame: FrameType, event: str, _argument: object) -> Any:
        if frame.f_code is code and event == "call":
            sys.settrace(None)
            strike(frame)

    return trace


@pytest.fixture
def untraced() -> Iterator[None]:
    before = sys.gettrace()
    yield
    sys.settrace(before)


def ring(frame: FrameType) -> None:
    handler = signal.getsignal(signal.SIGALRM)
    assert callable(handler)
    handler(signal.SIGALRM, frame)


@pytest.mark.usefixtures("untraced")
def test_alarm_at_the_first_instruction_of_the_exit_leaves_the_error_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def strike(frame: FrameType) -> None:
        monkeypatch.setattr(time, "monotonic_ns", lambda: started + int(2 * FAR * 1e9))  # its time has come
        ring(frame)
        struck.append(frame)

    struck: list[FrameType] = []
    started = time.monotonic_ns()
    starting = StartTimeout(FAR, started, lambda: "")
    sys.settrace(at_call_of(StartTimeout.__exit__, strike))
    with pytest.raises(KeyError), starting:
        raise KeyError
    assert len(struck) == 1


@pytest.mark.parametrize("step", ["signal", "pthread_sigmask", "setitimer"])
def test_alarm_within_the_entry_is_the_timeout_too(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = getattr(signal, step)

    def and_ring(*arguments: object) -> object:
        found = real(*arguments)
        if starting._running:
            ring(sys._getframe())
        return found

    monkeypatch.setattr(signal, step, and_ring)
    starting = StartTimeout(0.01, LONG_AGO, lambda: "spawner started")
    with pytest.raises(StartTimeoutError, match="ran out"), starting:
        pytest.fail("the alarm was lost")


def test_interruption_of_the_entry_leaves_no_alarm_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    real = signal.setitimer

    def and_interrupt(which: int, first: float, interval: float) -> object:
        found = real(which, first, interval)
        if interval:
            raise KeyboardInterrupt
        return found

    monkeypatch.setattr(signal, "setitimer", and_interrupt)
    with pytest.raises(KeyboardInterrupt), StartTimeout(FAR, time.monotonic_ns(), lambda: ""):
        pytest.fail("the interruption was lost")
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


# --- Without an alarm --------------------------------------------------------------------------------------


def test_deadline_that_has_passed_ends_the_start_before_the_guest_runs() -> None:
    with (
        pytest.raises(StartTimeoutError, match=r"--timeout 0.01 s ran out before the guest ran") as caught,
        StartDeadline(0.01, LONG_AGO, lambda: "spawner started") as starting,
    ):
        starting.over()
    assert caught.value.hint == "so far: spawner started"


def test_deadline_turns_what_fails_behind_it_into_the_timeout() -> None:
    with pytest.raises(StartTimeoutError) as caught, StartDeadline(0.01, LONG_AGO, lambda: ""):
        raise SandboxError("it was not ready within 0 ms")
    assert isinstance(caught.value.__cause__, SandboxError)


@pytest.mark.parametrize("error", [SandboxError("early"), KeyError("a bug")])
def test_deadline_leaves_other_failures_alone(error: Exception) -> None:
    started = time.monotonic_ns() if isinstance(error, SandboxError) else LONG_AGO
    with pytest.raises(type(error)), StartDeadline(FAR, started, lambda: ""):
        raise error


def test_deadline_is_told_to_whoever_waits_and_is_gone_when_the_start_is_over() -> None:
    started = time.monotonic_ns()
    with StartDeadline(FAR, started, lambda: "") as starting:
        assert starting.at == started + int(FAR * 1e9)
        starting.over()
        starting.over()
        assert starting.at is None
    with StartDeadline(1.7e308, started, lambda: "") as starting:
        starting.over()
