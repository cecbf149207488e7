"""Requests to boot processes arrive whole, and what cannot be sent is refused."""

from __future__ import annotations

import threading

import pytest

from kvmbox.base.errors import UsageError
from kvmbox.tools.warm.orders import PREPARE, RUN, RUN_IT, pack_order, read_request, request


class _Source:
    """Gives bytes in parts."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def receive(self, size: int) -> bytes:
        part, self._data = self._data[: min(size, 3)], self._data[min(size, 3) :]
        return part


@pytest.mark.parametrize("kind", [RUN, PREPARE])
def test_order_arrives_whole(kind: int) -> None:
    data = pack_order({"image": "a", "memory": 1 << 20}, [("x", b"1"), (b"y", b"2")], "/somewhere")

    asked = read_request(_Source(request(kind, data)).receive)

    assert asked is not None
    assert asked.kind == kind
    assert asked.order is not None
    assert asked.order.options == {"image": "a", "memory": 1 << 20}
    assert asked.order.dialogue == ((b"x", b"1"), (b"y", b"2"))
    assert asked.order.directory == "/somewhere"


def test_requests_tell_the_time_at_which_they_were_sent() -> None:
    first, second = request(RUN_IT), request(RUN_IT)
    source = _Source(first + second)

    asked = [read_request(source.receive) for _ in range(2)]

    times = [one.at for one in asked if one is not None]
    assert len(times) == 2
    assert times == sorted(times)
    assert [one.order for one in asked if one is not None] == [None, None]


@pytest.mark.parametrize("size", [0, 2, 13, 20])
def test_request_that_does_not_come_is_none(size: int) -> None:
    data = request(RUN, pack_order({"image": "a"}, [], "/"))[:size]

    assert read_request(_Source(data).receive) is None


def test_option_that_cannot_be_sent_is_refused() -> None:
    with pytest.raises(UsageError, match="cannot be sent"):
        pack_order({"image": "a", "lock": threading.Lock()}, [], "/")
