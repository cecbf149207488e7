"""A terminal that is raw for the guest and put back afterwards."""

from __future__ import annotations

import os
import termios
from collections.abc import Iterator
from itertools import permutations
from threading import Semaphore, Thread, current_thread
from typing import Any

import pytest

from kvmbox.host.console.terminal import RawTerminal

# --- Raw mode --------------------------------------------------------------------------------------------


@pytest.fixture
def terminal() -> Iterator[int]:
    """The descriptor of a terminal of which the test is not the foreground."""
    master, slave = os.openpty()
    yield slave
    os.close(slave)
    os.close(master)


@pytest.fixture
def foreground(terminal: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """The same, and we are its foreground group."""
    monkeypatch.setattr(os, "tcgetpgrp", lambda _descriptor: os.getpgrp())
    return terminal


def test_raw_terminal_enter_makes_input_raw_and_keeps_output_processing(foreground: int) -> None:
    before = termios.tcgetattr(foreground)
    terminal = RawTerminal(foreground)
    assert terminal.is_terminal
    terminal.enter()
    raw = termios.tcgetattr(foreground)
    assert not raw[0] & (termios.ICRNL | termios.IXON | termios.BRKINT | termios.ISTRIP | termios.INLCR)
    assert not raw[3] & (termios.ECHO | termios.ICANON | termios.ISIG | termios.IEXTEN)
    assert raw[1] == before[1]
    assert raw[1] & termios.OPOST
    assert (raw[6][termios.VMIN], raw[6][termios.VTIME]) == (1, 0)
    terminal.restore()
    assert termios.tcgetattr(foreground) == before


def test_raw_terminal_enter_twice_restores_what_was_first(foreground: int) -> None:
    before = termios.tcgetattr(foreground)
    terminal = RawTerminal(foreground)
    terminal.enter()
    terminal.enter()
    terminal.restore()
    assert termios.tcgetattr(foreground) == before
    # Idempotent: what somebody sets later stays.
    changed: list[Any] = termios.tcgetattr(foreground)
    changed[3] &= ~termios.ECHO
    termios.tcsetattr(foreground, termios.TCSANOW, changed)
    terminal.restore()
    assert not termios.tcgetattr(foreground)[3] & termios.ECHO


def cooked(descriptor: int) -> bool:
    return bool(termios.tcgetattr(descriptor)[3] & termios.ICANON)


def test_raw_terminal_that_was_raw_on_purpose_stays_so(foreground: int) -> None:
    first = RawTerminal(foreground)
    first.enter()
    wanted = termios.tcgetattr(foreground)
    second = RawTerminal(foreground)
    second.enter()
    second.restore()
    assert termios.tcgetattr(foreground) == wanted


def test_raw_terminal_that_was_nearly_raw_on_purpose_is_put_back(foreground: int) -> None:
    # 'stty raw -echo min 0 time 5': not what we make of it.
    RawTerminal(foreground).enter()
    wanted: list[Any] = termios.tcgetattr(foreground)
    wanted[6][termios.VMIN], wanted[6][termios.VTIME] = 0, 5
    termios.tcsetattr(foreground, termios.TCSANOW, wanted)
    terminal = RawTerminal(foreground)
    terminal.enter()
    assert termios.tcgetattr(foreground) != wanted
    terminal.restore()
    assert termios.tcgetattr(foreground) == wanted


def test_raw_terminal_that_a_shell_took_back_is_left_as_the_shell_wants_it(foreground: int) -> None:
    terminal = RawTerminal(foreground)
    before: list[Any] = termios.tcgetattr(foreground)
    terminal.enter()
    # We were stopped by SIGSTOP, which nobody can handle; the person changed a setting, and said 'fg'.
    before[0] |= termios.IXANY
    termios.tcsetattr(foreground, termios.TCSANOW, before)
    terminal.enter()
    assert not cooked(foreground)
    terminal.restore()
    assert termios.tcgetattr(foreground) == before


@pytest.mark.parametrize("order", sorted(set(permutations("AAAABBBB"))), ids="".join)
def test_two_runs_on_a_terminal_leave_it_as_it_was_in_every_order(
    foreground: int, monkeypatch: pytest.MonkeyPatch, order: tuple[str, ...]
) -> None:
    # Each enters and restores; each makes up to four calls; all the ways in which those can take turns.
    before = termios.tcgetattr(foreground)
    get, put = termios.tcgetattr, termios.tcsetattr
    paused = Semaphore(0)
    turns = {name: Semaphore(0) for name in "AB"}
    over: set[str] = set()

    def take_turn() -> None:
        paused.release()
        assert turns[current_thread().name].acquire(timeout=30)

    def turn_then_get(descriptor: int) -> list[Any]:
        take_turn()
        return get(descriptor)

    def turn_then_put(descriptor: int, when: int, settings: list[Any]) -> None:
        take_turn()
        put(descriptor, when, settings)

    def run() -> None:
        terminal = RawTerminal(foreground)
        terminal.enter()
        terminal.leave()
        over.add(current_thread().name)
        paused.release()

    monkeypatch.setattr(termios, "tcgetattr", turn_then_get)
    monkeypatch.setattr(termios, "tcsetattr", turn_then_put)
    threads = [Thread(target=run, name=name, daemon=True) for name in "AB"]
    for thread in threads:
        thread.start()
        assert paused.acquire(timeout=30)
    for name in order:
        if name not in over:
            turns[name].release()
            assert paused.acquire(timeout=30)
    for thread in threads:
        thread.join(30)
    assert over == {"A", "B"}
    assert get(foreground) == before


def test_raw_terminal_can_be_entered_again_after_a_suspension(foreground: int) -> None:
    terminal = RawTerminal(foreground)
    terminal.enter()
    terminal.restore()
    terminal.enter()
    assert not termios.tcgetattr(foreground)[3] & termios.ICANON
    terminal.restore()
    assert termios.tcgetattr(foreground)[3] & termios.ICANON


def test_raw_terminal_in_the_background_is_left_alone(terminal: int) -> None:
    # Not our controlling terminal: changing it would stop us with SIGTTOU.
    before = termios.tcgetattr(terminal)
    raw = RawTerminal(terminal)
    assert not raw.foreground
    raw.enter()
    assert termios.tcgetattr(terminal) == before
    raw.restore()


def test_raw_terminal_of_a_pipe_does_nothing() -> None:
    read_end, write_end = os.pipe()
    raw = RawTerminal(read_end)
    assert not raw.is_terminal
    assert not raw.foreground
    raw.enter()
    raw.restore()
    os.close(read_end)
    os.close(write_end)


def test_raw_terminal_that_is_gone_is_none_to_restore(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "tcgetpgrp", lambda _descriptor: os.getpgrp())
    master, slave = os.openpty()
    raw = RawTerminal(slave)
    raw.enter()
    os.close(slave)
    os.close(master)
    raw.restore()
