"""When a snapshot is taken: its conditions."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import pytest

from kvmbox.base.errors import UsageError
from kvmbox.host.time.guest_clock import GuestClock
from kvmbox.parts.snapshot.snapshots import (
    GUEST_ENDED,
    PortWatch,
    Request,
    Snapshots,
    parse_condition,
)
from kvmbox.run.options.choices import SnapshotCondition


class FakeClock:
    def __init__(self) -> None:
        self.time = 0

    def now(self) -> int:
        return self.time

    def until(self, at: int) -> int | None:
        return max(0, at - self.time)


class Rig:
    def __init__(self) -> None:
        self.snapshots = Snapshots()
        self.stopped = 0
        self.taken: list[Request] = []
        self.clock = FakeClock()
        self.snapshots.connect(self.stop, self.take)

    def stop(self) -> None:
        self.stopped += 1

    def take(self, request: Request) -> Callable[[], None]:
        self.taken.append(request)
        return lambda: request.end(None)

    def request(self) -> Request:
        return Request("a.snap", -1, lambda: None)

    def turn(self) -> None:
        self.snapshots.tick(cast(GuestClock, self.clock))
        if self.snapshots.wants:
            self.snapshots.visit()()


@pytest.fixture
def rig() -> Rig:
    return Rig()


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("login: =a.snap", SnapshotCondition("a.snap", text=b"login: ")),
        ("a=b=c", SnapshotCondition("c", text=b"a=b")),
        ("text:port:1=c", SnapshotCondition("c", text=b"port:1")),
        ("port:0x5f0=c", SnapshotCondition("c", port=0x5F0)),
        ("time:1.5=c", SnapshotCondition("c", time=1_500_000_000)),
        ("time:0=c", SnapshotCondition("c", time=0)),
    ],
)
def test_condition_is_read(text: str, condition: SnapshotCondition) -> None:
    assert parse_condition(text) == condition


@pytest.mark.parametrize(
    "text",
    [
        *("", "a", "=", "a=", "=a", "text:=a", "port:=a", "port:x=a", "port:0x10000=a", "port:-1=a"),
        *("time:=a", "time:x=a", "time:-1=a", "time:nan=a", "time:inf=a"),
    ],
)
def test_condition_that_means_nothing_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--snapshot-when"):
        parse_condition(text)


def test_snapshot_is_taken_at_the_visit_and_finished_when_the_machine_goes_on(rig: Rig) -> None:
    request = rig.request()
    rig.snapshots.want(request)
    assert (rig.stopped, rig.snapshots.wants, rig.taken) == (1, True, [])
    finish = rig.snapshots.visit()
    assert rig.taken == [request]
    assert not rig.snapshots.wants
    assert not request.done.is_set()
    finish()
    assert request.done.is_set()


def test_snapshot_waits_for_the_one_who_takes_it() -> None:
    snapshots = Snapshots()
    snapshots.want(Request("a.snap", -1, lambda: None))
    assert not snapshots.wants
    stops: list[int] = []
    snapshots.connect(lambda: stops.append(1), lambda request: lambda: request.end(None))
    assert snapshots.wants
    assert stops == [1]


def test_write_to_the_port_is_told_and_a_snapshot_is_wanted_once(rig: Rig) -> None:
    request = rig.request()
    watch = PortWatch([lambda: rig.snapshots.want(request)])
    assert watch.read(0, 2) == 0xFFFF
    assert rig.stopped == 0
    watch.write(0, 1, 7)
    rig.turn()
    watch.write(0, 1, 7)
    assert rig.taken == [request]
    assert rig.stopped == 1


def test_time_is_waited_for(rig: Rig) -> None:
    assert rig.snapshots.wake_in(cast(GuestClock, rig.clock)) is None
    request = rig.request()
    condition = SnapshotCondition("a.snap", time=2_000_000_000)
    rig.snapshots.plan(condition, request, lambda: rig.snapshots.want(request))
    assert rig.snapshots.wake_in(cast(GuestClock, rig.clock)) == 2.0
    rig.turn()
    assert not rig.snapshots.wants
    rig.clock.time = 2_000_000_000
    rig.snapshots.tick(cast(GuestClock, rig.clock))
    assert rig.snapshots.wants
    assert rig.snapshots.wake_in(cast(GuestClock, rig.clock)) is None


def test_end_of_the_guest_ends_all_requests_and_names_the_planned_one(rig: Rig) -> None:
    asked, planned = rig.request(), rig.request()
    rig.snapshots.plan(SnapshotCondition("a.snap", text=b"READY"), planned, lambda: None)
    rig.snapshots.want(asked)
    assert rig.snapshots.end() == "it had printed 'READY' (--snapshot-when)"
    assert asked.problem == GUEST_ENDED
    late = rig.request()
    rig.snapshots.want(late)
    assert late.problem == GUEST_ENDED


def test_end_with_all_snapshots_taken_names_none(rig: Rig) -> None:
    request = rig.request()
    rig.snapshots.plan(SnapshotCondition("a.snap", port=1), request, lambda: None)
    request.end(None)
    assert rig.snapshots.end() is None


def test_who_waits_for_a_snapshot_that_fails_is_told_and_one_before_it_is_finished(rig: Rig) -> None:
    taken: list[Request] = []

    def fail_the_second(request: Request) -> Callable[[], None]:
        if taken:
            raise RuntimeError("the device process is gone")
        taken.append(request)
        return lambda: request.end(None)

    rig.snapshots.connect(rig.stop, fail_the_second)
    first, second = rig.request(), rig.request()
    rig.snapshots.want(first)
    rig.snapshots.want(second)
    with pytest.raises(RuntimeError):
        rig.snapshots.visit()
    assert (first.done.is_set(), first.problem) == (True, None)
    assert (second.done.is_set(), second.problem) == (True, "the device process is gone")
