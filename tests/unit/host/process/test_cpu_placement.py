"""Placement: which CPU a machine takes, and how machines spread."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from kvmbox.base.errors import UsageError
from kvmbox.host.process import cpu_placement
from kvmbox.host.process.cpu_placement import place


class FakeSockets:
    """The abstract sockets of a host: a name can be bound once."""

    AF_UNIX = socket.AF_UNIX
    SOCK_DGRAM = socket.SOCK_DGRAM
    SOCK_CLOEXEC = socket.SOCK_CLOEXEC

    def __init__(self) -> None:
        self.bound: set[str] = set()
        self.open = 0

    def socket(self, _family: int, _kind: int) -> FakeSocket:
        self.open += 1
        return FakeSocket(self)


class FakeSocket:
    def __init__(self, host: FakeSockets) -> None:
        self._host = host
        self._name = ""

    def bind(self, name: str) -> None:
        if name in self._host.bound:
            raise OSError("Address already in use")
        self._host.bound.add(name)
        self._name = name

    def __enter__(self) -> FakeSocket:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._host.bound.discard(self._name)
        self._host.open -= 1


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeSockets]:
    """A host with CPUs 2, 5 and 7 of ours, where no other machine is."""
    sockets = FakeSockets()
    monkeypatch.setattr(cpu_placement, "socket", sockets)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {7, 2, 5})
    yield sockets
    assert sockets.open == len(sockets.bound)  # nothing that was tried in vain stays open


def test_place_auto_spreads_machines_then_shares(host: FakeSockets) -> None:
    machines = [place("auto") for _ in range(7)]
    assert [machine.cpu for machine in machines] == [2, 5, 7, 2, 5, 7, 2]
    assert "\0kvmbox/cpu2/2" in host.bound


def test_place_auto_spares_all_other_cpus_that_are_ours(host: FakeSockets) -> None:
    machines = [place("auto") for _ in range(4)]
    assert [(machine.cpu, sorted(machine.spares)) for machine in machines[1:]] == [
        (5, [2, 7]),
        (7, [2, 5]),
        (2, [5, 7]),
    ]
    assert len(host.bound) == 4  # nothing else is claimed


def test_place_on_one_cpu_has_no_spare(host: FakeSockets, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {3})
    cpu_placement = place("auto")
    assert (cpu_placement.cpu, cpu_placement.spares, cpu_placement.allowed) == (3, frozenset(), 1)
    cpu_placement.close()


def test_place_auto_takes_the_cpu_of_a_machine_that_has_ended(host: FakeSockets) -> None:
    first, second = place("auto"), place("auto")
    first.close()
    first.close()  # idempotent
    assert place("auto").cpu == 2
    assert second.cpu == 5
    assert len(host.bound) == 2


def test_place_auto_without_a_claim_to_be_had_takes_the_first_cpu(
    host: FakeSockets, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_self: FakeSocket, _name: str) -> None:
        raise PermissionError("Operation not permitted")

    monkeypatch.setattr(FakeSocket, "bind", refuse)
    assert place("auto").cpu == 2
    assert host.open == 0


def test_place_none_leaves_it_to_the_scheduler(host: FakeSockets) -> None:
    cpu_placement = place("none")
    assert cpu_placement.cpu is None
    assert not host.bound


def test_place_number_takes_that_cpu_without_a_claim(host: FakeSockets) -> None:
    cpu_placement = place("5")
    assert (cpu_placement.cpu, cpu_placement.spares, cpu_placement.allowed) == (5, frozenset((2, 7)), 3)
    assert not host.bound


def test_place_number_that_is_not_ours_raises_usage_error(host: FakeSockets) -> None:
    with pytest.raises(UsageError, match="may not run on CPU 3") as caught:
        place("3")
    assert caught.value.hint == "allowed: 2, 5, 7"
    assert not host.bound


@pytest.mark.parametrize("choice", ["", "-1", "two", "1.0", "0x1", " 2", "AUTO"])
def test_place_anything_else_raises_usage_error(host: FakeSockets, choice: str) -> None:
    with pytest.raises(UsageError, match="neither auto, none nor a CPU number"):
        place(choice)
    assert not host.bound


@pytest.mark.parametrize(("vcpus", "room"), [(1, True), (2, True), (3, False), (32, False)])
@pytest.mark.parametrize("choice", ["auto", "none", "5"])
def test_place_has_room_to_spin_where_a_cpu_is_left_of_the_vcpus(
    host: FakeSockets, choice: str, vcpus: int, room: bool
) -> None:
    assert place(choice, vcpus).has_room_to_spin is room


def test_place_auto_on_this_host_claims_and_gives_back() -> None:
    found = place("auto")
    assert found.cpu in os.sched_getaffinity(0)
    found.close()
