"""Signals before, during and behind a command: noted always, raised where that ends it."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from kvmbox.host.process import early_signals


@pytest.fixture(autouse=True)
def listening(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """`early_signals` listens, in a state of its own, until the test ends."""
    found = {
        number: signal.getsignal(number)
        for number in early_signals.END_SIGNALS
        if early_signals.is_ours(number)
    }
    monkeypatch.setattr(early_signals, "received", [])
    monkeypatch.setattr(early_signals, "raising", False)
    monkeypatch.setattr(early_signals, "answered", False)
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    early_signals.listen()
    yield
    for number, handler in found.items():
        signal.signal(number, handler)


def test_signal_is_noted_and_check_ends_the_command() -> None:
    early_signals.check()
    signal.raise_signal(signal.SIGTERM)
    assert early_signals.received == [signal.SIGTERM]
    with pytest.raises(KeyboardInterrupt):
        early_signals.check()


def test_signal_raises_while_a_command_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(early_signals, "raising", True)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGHUP)


def test_no_signal_raises_once_a_run_has_taken_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(early_signals, "raising", True)
    assert early_signals.hand_over() == []
    for _ in range(2 * early_signals.IMPATIENCE):
        signal.raise_signal(signal.SIGINT)


def test_third_signal_raises_where_a_write_may_take_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(early_signals, "breakable", True)
    for _ in range(early_signals.IMPATIENCE - 1):
        signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_exception_that_python_drops_in_a_destructor_is_raised_again() -> None:
    code = """
import signal
from kvmbox.host.process import early_signals

class Dropping:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)

early_signals.listen()
early_signals.raising = True
try:
    Dropping()
    signal.pause()
except KeyboardInterrupt:
    print("heard")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "heard\n", "")


def test_other_exceptions_that_python_drops_are_told_as_ever() -> None:
    code = """
from kvmbox.host.process import early_signals

class Dropping:
    def __del__(self):
        raise ValueError("lost")

early_signals.listen()
early_signals.raising = True
Dropping()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "ValueError: lost" in done.stderr
