"""Signals wait while a step is under way, and are handled where they are let in."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from kvmbox.tools.audit.interruption import let_signals_in, undisturbed


@pytest.fixture(autouse=True)
def _interruptible() -> Iterator[None]:
    """SIGINT raises KeyboardInterrupt here, also where these tests were started with SIGINT ignored."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


def test_signal_within_a_step_waits_until_it_is_let_in() -> None:
    reached = False
    with undisturbed():
        signal.raise_signal(signal.SIGINT)  # to this thread: a test before may have left another
        reached = True
        with pytest.raises(KeyboardInterrupt):
            let_signals_in()
    assert reached


def test_signal_that_nobody_let_in_comes_in_the_end() -> None:
    steps = []

    def work() -> None:
        with undisturbed():
            signal.raise_signal(signal.SIGINT)  # to this thread: a test before may have left another
            steps.append("done")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert steps == ["done"]


def test_letting_signals_in_without_any_changes_nothing() -> None:
    with undisturbed():
        inside = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        let_signals_in()
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == inside
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
