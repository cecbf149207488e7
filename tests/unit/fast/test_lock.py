"""The lock of compiled channels does what threading.Lock does."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from kvmbox.base.compiled import why_not_built


def lock_of(name: str) -> Any:
    if name == "pure":
        return threading.Lock()
    if why_not_built():
        pytest.skip(f"compiled: {why_not_built()}")
    from kvmbox.fast.vmm import Lock

    return Lock()


@pytest.fixture(params=["pure", "compiled"])
def lock(request: pytest.FixtureRequest) -> Any:
    return lock_of(request.param)


def test_lock_that_is_free_is_taken_at_once(lock: Any) -> None:
    assert lock.acquire()
    assert lock.locked()
    lock.release()
    assert not lock.locked()


def test_lock_that_is_taken_is_not_taken_again(lock: Any) -> None:
    with lock:
        assert not lock.acquire(blocking=False)
        assert not lock.acquire(timeout=0)
        assert not lock.acquire(timeout=0.001)
        assert not lock.acquire(True, 0.001)
    assert not lock.locked()


def test_lock_of_nobody_cannot_be_given_back(lock: Any) -> None:
    with pytest.raises(RuntimeError):
        lock.release()
    assert not lock.locked()


@pytest.mark.parametrize("take", [lambda lock: lock.acquire(), lambda lock: lock.acquire(timeout=30)])
def test_lock_comes_to_who_waits(lock: Any, take: Callable[[Any], bool]) -> None:
    taken: list[bool] = []
    lock.acquire()
    waiter = threading.Thread(target=lambda: taken.append(take(lock)), daemon=True)
    waiter.start()
    assert taken == []
    lock.release()
    waiter.join(30)
    assert taken == [True]
    assert lock.locked()
