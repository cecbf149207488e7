"""The handlers of a run: notes only, nobody's SIG_IGN overridden, everything put back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from types import FrameType

import pytest

from kvmbox.host.process import early_signals
from kvmbox.host.process.early_signals import END_SIGNALS, IMPATIENCE
from kvmbox.host.process.signals import SignalHandlers, Wakeup


@pytest.fixture(autouse=True)
def handlers_as_found() -> Iterator[None]:
    found = {number: signal.getsignal(number) for number in (*END_SIGNALS, signal.SIGTSTP, signal.SIGCONT)}
    yield
    assert {number: signal.getsignal(number) for number in found} == found


def handlers(log: list[str], *, undecided: bool = True, **others: set[int]) -> SignalHandlers:
    def give_up() -> bool:
        log.append("give up")
        return undecided

    return SignalHandlers(
        suspend=lambda: log.append("suspend"),
        resume=lambda: log.append("resume"),
        give_up=give_up,
        **others,
    )


def test_end_signal_is_noted_and_the_first_one_counts() -> None:
    signals = handlers([])
    signals.install()
    try:
        assert signals.reason is None
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGHUP)
        assert signals.reason == "ended by SIGTERM"
    finally:
        signals.restore()


def test_signal_that_came_before_the_run_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(early_signals, "received", [int(signal.SIGTERM)])
    monkeypatch.setattr(early_signals, "answered", False)
    monkeypatch.setattr(early_signals, "raising", True)
    signals = handlers([])
    signals.install()
    signals.restore()
    assert signals.reason == "ended by SIGTERM"
    assert (early_signals.received, early_signals.raising, early_signals.answered) == ([], False, True)


def test_real_time_signal_ends_a_run_by_its_number() -> None:
    signals = handlers([])
    signals.install()
    try:
        signal.raise_signal(signal.SIGRTMIN + 5)
        assert signals.reason == f"ended by {signal.SIGRTMIN + 5}"
    finally:
        signals.restore()


def test_third_end_signal_gives_up() -> None:
    log: list[str] = []
    signals = handlers(log)
    signals.install()
    try:
        for _ in range(IMPATIENCE - 1):
            signal.raise_signal(signal.SIGINT)
        assert log == []
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert log == ["give up"]
    finally:
        signals.restore()


def test_no_signal_raises_a_second_time() -> None:
    signals = handlers([])
    signals.install()
    try:
        for _ in range(IMPATIENCE - 1):
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)  # the tear-down goes on
    finally:
        signals.restore()


def test_no_signal_raises_once_the_run_is_decided(monkeypatch: pytest.MonkeyPatch) -> None:
    signals = handlers([], undecided=False)
    signals.install()
    try:
        for _ in range(2 * IMPATIENCE):
            signal.raise_signal(signal.SIGINT)
        # But for a write that nobody takes: what is said there counts less than that kvmbox ends.
        monkeypatch.setattr(early_signals, "breakable", True)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    finally:
        signals.restore()


def test_handler_from_c_is_left_alone() -> None:
    # faulthandler's for SIGABRT: Python has None for a handler that stood before it looked, and cannot put
    # that back. PYTHONFAULTHANDLER and PYTHONDEVMODE install it.
    code = """
import signal
from kvmbox.host.process.signals import SignalHandlers
handlers = SignalHandlers(suspend=int, resume=int, give_up=bool)
handlers.install()
handlers.restore()
print(signal.getsignal(signal.SIGABRT))
"""
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", code], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("None\n", "")


def test_ignored_signal_stays_ignored() -> None:
    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        signals = handlers([])
        signals.install()
        signal.raise_signal(signal.SIGHUP)
        assert signals.reason is None
        signals.restore()
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, previous)


def test_signal_of_somebody_else_is_left_alone() -> None:
    calls: list[int] = []

    def theirs(number: int, _frame: FrameType | None) -> None:
        calls.append(number)

    previous = signal.signal(signal.SIGUSR1, theirs)
    try:
        signals = handlers([], others={signal.SIGUSR1})
        signals.install()
        signal.raise_signal(signal.SIGUSR1)
        assert calls == [signal.SIGUSR1]
        assert signals.reason is None
        signals.restore()
    finally:
        signal.signal(signal.SIGUSR1, previous)


def test_continue_signal_resumes() -> None:
    log: list[str] = []
    signals = handlers(log)
    signals.install()
    try:
        signal.raise_signal(signal.SIGCONT)
        assert log == ["resume"]
    finally:
        signals.restore()


@pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGALRM]
)
def test_signals_that_kill_by_default_end_a_run(number: signal.Signals) -> None:
    assert number in END_SIGNALS


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD, signal.SIGPIPE, signal.SIGSEGV, signal.SIGTTOU]
)
def test_signals_that_do_not_ask_for_an_end_are_left_alone(number: signal.Signals) -> None:
    assert number not in END_SIGNALS


def test_wakeup_is_readable_until_cleared() -> None:
    wakeup = Wakeup()
    try:
        for _ in range(100_000):  # more than the pipe holds
            wakeup.wake()
        wakeup.clear()
        with pytest.raises(BlockingIOError):
            os.read(wakeup.read_end, 1)
        wakeup.wake()
        assert os.read(wakeup.read_end, 16) == b"\0"
    finally:
        wakeup.close()


def test_wakeup_hears_of_signals_while_installed() -> None:
    wakeup = Wakeup()
    signals = handlers([])
    signals.install()
    wakeup.install()
    try:
        signal.raise_signal(signal.SIGTERM)
        assert os.read(wakeup.read_end, 16) == bytes([signal.SIGTERM])
    finally:
        wakeup.close()
        signals.restore()
    assert signal.set_wakeup_fd(-1) == -1


def test_wake_after_close_writes_to_nobody() -> None:
    wakeup = Wakeup()
    wakeup.close()
    # The numbers are somebody else's now.
    ends = os.pipe2(os.O_NONBLOCK)
    try:
        wakeup.wake()
        with pytest.raises(BlockingIOError):
            os.read(ends[0], 1)
    finally:
        for end in ends:
            os.close(end)
