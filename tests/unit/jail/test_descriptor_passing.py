"""Messages with descriptors: an exception may come at any time, and the socket stays open."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from itertools import count
from types import FrameType
from typing import Any

import pytest

from kvmbox.jail import descriptor_passing


@pytest.fixture
def pair() -> Iterator[tuple[int, int]]:
    one, other = descriptor_passing.socket_pair()
    yield one, other
    os.close(one)
    os.close(other)


def interrupted(call: Callable[[], object], at: int) -> bool:
    """Call `call`, and raise KeyboardInterrupt at instruction number `at` of the module's functions, as a
    signal handler may. Return whether there are so many instructions.
    """
    seen = count()

    def strike(frame: FrameType, _event: str, _argument: object) -> Any:
        if frame.f_code.co_filename != descriptor_passing.__file__:
            return None
        frame.f_trace_opcodes = True
        if next(seen) == at:
            raise KeyboardInterrupt
        return strike

    before = sys.gettrace()
    sys.settrace(strike)
    try:
        call()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


def test_send_that_is_interrupted_anywhere_leaves_the_socket_open(pair: tuple[int, int]) -> None:
    one, _ = pair
    at = next(
        at for at in count() if not _survives(lambda: descriptor_passing.send(one, b"word", [one]), at, one)
    )
    assert at > 20


def test_receive_that_is_interrupted_anywhere_leaves_the_socket_open(pair: tuple[int, int]) -> None:
    one, other = pair

    def receive() -> None:
        descriptor_passing.send(other, b"word")
        descriptor_passing.receive(one)

    at = next(at for at in count() if not _survives(receive, at, one, other))
    assert at > 20


def _survives(call: Callable[[], object], at: int, *descriptors: int) -> bool:
    was_interrupted = interrupted(call, at)
    for descriptor in descriptors:
        os.fstat(descriptor)  # OSError: it was closed
    return was_interrupted


def test_borrowed_socket_says_nothing_and_closes_nothing_at_its_end(
    pair: tuple[int, int], recwarn: pytest.WarningsRecorder
) -> None:
    one, other = pair
    for _ in range(3):
        descriptor_passing.send(one, b"word")
        assert descriptor_passing.receive(other) == (b"word", [])
    assert not recwarn.list
