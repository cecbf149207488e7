"""Bulk data: each order to its end and its status, and the thread that does them."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from kvmbox.base import layout
from kvmbox.base.memory import GuestMemory
from kvmbox.contract.model import BAD_ADDRESS, BEYOND_END, DONE, FAILED, NO_SPACE
from kvmbox.host.disk.transfers import BytesStore, Errand, FileStore, Order, Store, TransferThread, perform

SIZE = layout.PAGE_SIZE
PATIENCE_S = 30.0
DISK = bytes(range(256)) * 2


@pytest.fixture
def ram() -> GuestMemory:
    return GuestMemory(SIZE)


@pytest.fixture(params=["bytes", "file"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "bytes":
        yield BytesStore(DISK)
        return
    (tmp_path / "disk").write_bytes(DISK)
    descriptor = os.open(tmp_path / "disk", os.O_RDWR)
    yield FileStore(descriptor)
    os.close(descriptor)


def order(
    store: Store, offset: int, *ranges: tuple[int, int], to_guest: bool = True, size: int = 512, tag: int = 1
) -> Order:
    return Order("X", tag, store, size, offset, ranges, to_guest)


def test_bytes_go_to_the_guest_range_by_range_and_a_later_one_wins(ram: GuestMemory, store: Store) -> None:
    assert perform(order(store, 10, (100, 4), (200, 0), (102, 4)), ram) == DONE
    assert ram.read(99, 8) == bytes([0, 10, 11, 14, 15, 16, 17, 0])


def test_bytes_come_from_the_guest_range_by_range(ram: GuestMemory, store: Store) -> None:
    ram.write(0, b"abcdef")
    assert perform(order(store, 510, (4, 1), (1, 1), to_guest=False), ram) == DONE
    assert store.read(508, 4) == b"\xfc\xfdeb"


@pytest.mark.parametrize("to_guest", [True, False])
@pytest.mark.parametrize(
    ("offset", "ranges", "status"),
    [
        (0, [(0, 4), (SIZE - 1, 2)], BAD_ADDRESS),
        (0, [(1 << 64, 1)], BAD_ADDRESS),
        (510, [(0, 3)], BEYOND_END),
        (513, [(0, 0)], BEYOND_END),
        ((1 << 64) - 1, [(0, 1)], BEYOND_END),
    ],
)
def test_order_that_cannot_be_done_moves_nothing(
    ram: GuestMemory, store: Store, to_guest: bool, offset: int, ranges: list[tuple[int, int]], status: int
) -> None:
    assert perform(order(store, offset, *ranges, to_guest=to_guest), ram) == status
    assert ram.read(0, SIZE) == bytes(SIZE)
    assert store.read(0, 512) == DISK


def test_file_that_has_become_shorter_is_at_its_end(ram: GuestMemory, store: Store) -> None:
    assert perform(order(store, 510, (0, 4), size=600), ram) == BEYOND_END
    assert ram.read(0, 4) == bytes(4)


class Broken:
    """A store whose disk has this to say."""

    def __init__(self, number: int) -> None:
        self._number = number

    def read(self, offset: int, size: int) -> bytes:
        raise OSError(self._number, "broken")

    def write(self, offset: int, data: bytes) -> None:
        raise OSError(self._number, "broken")


@pytest.mark.parametrize("to_guest", [True, False])
@pytest.mark.parametrize(
    ("number", "status"),
    [(errno.EIO, FAILED), (errno.ENOSPC, NO_SPACE), (errno.EDQUOT, NO_SPACE), (errno.EBADF, FAILED)],
)
def test_error_of_the_host_is_a_status(ram: GuestMemory, to_guest: bool, number: int, status: int) -> None:
    assert perform(order(Broken(number), 0, (0, 4), to_guest=to_guest), ram) == status
    assert ram.read(0, 4) == bytes(4)


def test_bytes_that_a_store_in_memory_has_not_are_no_space(ram: GuestMemory) -> None:
    assert perform(order(BytesStore(b"ab"), 0, (0, 4), to_guest=False), ram) == NO_SPACE


class Slow:
    """A store that answers when it is told to; `asked` tells that it was."""

    def __init__(self) -> None:
        self.asked = threading.Semaphore(0)
        self.may_answer = threading.Semaphore(0)

    def read(self, offset: int, size: int) -> bytes:
        self.asked.release()
        assert self.may_answer.acquire(timeout=PATIENCE_S)
        return bytes([offset]) * size

    def write(self, offset: int, data: bytes) -> None:
        raise AssertionError


class Rig:
    """A transfer thread with a slow store."""

    def __init__(self, ram: GuestMemory) -> None:
        self.store = Slow()
        self.woken = threading.Semaphore(0)
        self.thread = TransferThread(ram, self.woken.release)
        self.thread.start()

    def submit(self, tag: int, limit: int = 8) -> bool:
        return self.thread.submit(order(self.store, tag, (tag, 1), tag=tag), limit)

    def finish_one(self) -> None:
        assert self.store.asked.acquire(timeout=PATIENCE_S)
        self.store.may_answer.release()
        assert self.woken.acquire(timeout=PATIENCE_S)


@pytest.fixture
def rig(ram: GuestMemory) -> Iterator[Rig]:
    rig = Rig(ram)
    yield rig
    rig.store.may_answer.release(100)
    assert rig.thread.close()


def test_thread_does_orders_in_their_order_and_tells_of_each_once(rig: Rig, ram: GuestMemory) -> None:
    for tag in (1, 2, 3):
        assert rig.submit(tag)
    assert rig.thread.take_done() == []
    rig.finish_one()
    assert rig.thread.take_done() == [("X", 1, DONE, None)]
    rig.finish_one()
    rig.finish_one()
    assert rig.thread.take_done() == [("X", 2, DONE, None), ("X", 3, DONE, None)]
    assert rig.thread.take_done() == []
    assert ram.read(0, 5) == bytes([0, 1, 2, 3, 0])


def test_order_beyond_the_limit_is_not_taken_until_the_device_has_heard_of_another(rig: Rig) -> None:
    assert rig.submit(1, limit=2)
    assert rig.submit(2, limit=2)
    assert not rig.submit(3, limit=2)
    rig.finish_one()
    assert not rig.submit(3, limit=2)  # done, and not told of yet
    rig.thread.take_done()
    assert rig.submit(3, limit=2)


def test_quiesce_drops_what_waits_and_what_was_done_and_lets_one_end(rig: Rig, ram: GuestMemory) -> None:
    for tag in (1, 2, 3):
        rig.submit(tag)
    rig.finish_one()
    assert rig.store.asked.acquire(timeout=PATIENCE_S)  # the second one is under way
    rig.store.may_answer.release()
    assert rig.thread.quiesce()
    assert rig.woken.acquire(timeout=PATIENCE_S)  # by the one that is forgotten now
    assert rig.thread.take_done() == []
    assert ram.read(3, 1) == b"\0"
    assert rig.submit(4, limit=1)  # nothing is pending any more
    rig.finish_one()
    assert rig.thread.take_done() == [("X", 4, DONE, None)]


def test_quiesce_gives_up_on_a_disk_that_does_not_answer(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kvmbox.host.disk.transfers.QUIET_SECONDS", 0.01)
    rig.submit(1)
    assert rig.store.asked.acquire(timeout=PATIENCE_S)
    assert not rig.thread.quiesce()
    assert not rig.thread.close()
    monkeypatch.undo()


class Defective:
    """A store of a program with a defect: its first read raises, the next ones give what is no bytes."""

    def __init__(self) -> None:
        self.reads = 0

    def read(self, offset: int, size: int) -> bytes:
        self.reads += 1
        if self.reads == 1:
            raise ValueError("I/O operation on closed file")
        return None  # type: ignore[return-value]

    def write(self, offset: int, data: bytes) -> None:
        raise AssertionError


def test_store_with_a_defect_fails_its_transfers_and_does_not_end_the_thread(rig: Rig) -> None:
    defective = Defective()
    for tag in (1, 2):
        assert rig.thread.submit(order(defective, 0, (0, 4), tag=tag), 8)
        assert rig.woken.acquire(timeout=PATIENCE_S)
        assert rig.thread.take_done() == [("X", tag, FAILED, None)]
    assert rig.thread.problem == "a transfer of device 'X' failed: ValueError('I/O operation on closed file')"
    rig.submit(3)
    rig.finish_one()
    assert rig.thread.take_done() == [("X", 3, DONE, None)]


def test_transfer_that_ends_after_the_thread_was_left_behind_writes_nothing_and_wakes_nobody(
    ram: GuestMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kvmbox.host.disk.transfers.QUIET_SECONDS", 0.01)
    rig = Rig(ram)
    rig.submit(1)
    assert rig.store.asked.acquire(timeout=PATIENCE_S)
    assert not rig.thread.close()
    monkeypatch.undo()
    ram.close()  # as a run does then: the late bytes find no memory
    rig.store.may_answer.release()
    assert rig.thread.close()
    assert "guest memory 0x1+0x1 is not RAM" in (rig.thread.problem or "")
    assert rig.thread.take_done() == []
    assert not rig.woken.acquire(blocking=False)


def test_settle_lets_all_that_waits_be_done(rig: Rig, ram: GuestMemory) -> None:
    for tag in (1, 2, 3):
        rig.submit(tag)
    rig.store.may_answer.release(3)
    assert rig.thread.settle()
    assert rig.thread.take_done() == [("X", 1, DONE, None), ("X", 2, DONE, None), ("X", 3, DONE, None)]
    assert rig.thread.settle()


def test_all_is_settled_when_no_device_asks_for_more(rig: Rig) -> None:
    rig.store.may_answer.release(3)
    rig.submit(1)
    asked = [2, 3]

    def complete() -> bool:
        told = rig.thread.take_done()
        if told and asked:
            rig.submit(asked.pop(0))
        return bool(told)

    assert rig.thread.settle_all(complete)
    assert asked == []


def test_device_that_asks_for_more_and_more_is_given_up(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kvmbox.host.disk.transfers.QUIET_SECONDS", 0.01)
    submit = partial(rig.thread.submit, Errand("X", 1, lambda: DONE), 8)
    submit()

    def complete() -> bool:
        return bool(rig.thread.take_done()) and submit()

    assert not rig.thread.settle_all(complete)


def test_settle_gives_up_on_a_disk_that_does_not_answer(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kvmbox.host.disk.transfers.QUIET_SECONDS", 0.01)
    rig.submit(1)
    assert rig.store.asked.acquire(timeout=PATIENCE_S)
    assert not rig.thread.settle()
