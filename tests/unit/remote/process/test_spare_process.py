"""Device processes in reserve: who gets them, and that nobody's stay open."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import closing

import pytest

from kvmbox.base.errors import SandboxError
from kvmbox.host.process import early_signals
from kvmbox.host.process.cpu_placement import Placement
from kvmbox.remote.process.prestart import Prestart
from kvmbox.remote.process.spare_process import PLAIN, SpareProcess
from kvmbox.remote.process.spawner_client import DeviceProcess, SpawnerClient
from kvmbox.sandbox.seccomp import device_filter

BPF = device_filter(pipes=True)


class FakeSpawner(SpawnerClient):
    """Keeps the device's ends, and refuses after as many processes as `most`."""

    def __init__(self, most: int = 1) -> None:
        self.most = most
        self.ordered: list[tuple[str, bytes, int | None]] = []
        self.ends: list[tuple[int, ...]] = []

    def spawn(
        self,
        device_type: str,
        channel: Sequence[int],
        bpf: bytes,
        *,
        cpu: int | None = None,
        require: int = 0,
        entry: str | None = None,
    ) -> DeviceProcess:
        if len(self.ordered) == self.most:
            for end in channel:
                os.close(end)
            raise SandboxError("no more")
        self.ordered.append((device_type, bpf, cpu))
        self.ends.append(tuple(channel))
        return DeviceProcess(device_type)

    def close(self, *_: object, **__: object) -> None:
        for channel in self.ends:
            for end in channel:
                os.close(end)

    def hung_up(self) -> list[bool]:
        """Of each process, whether its channel has ended."""
        found = []
        for requests, *_ in self.ends:
            os.set_blocking(requests, False)
            try:
                found.append(os.read(requests, 1) == b"")
            except BlockingIOError:
                found.append(False)
        return found


def placed(cpu: int | None = 0) -> Placement:
    return Placement(cpu, [0, 1], 1)


def test_reserve_orders_the_process_of_a_plain_run() -> None:
    with closing(FakeSpawner()) as spawner:
        reserve = SpareProcess(spawner, placed(1))

        assert spawner.ordered == [(PLAIN, BPF, 1)]
        reserve.drop()


def test_process_is_taken_once_and_then_stays() -> None:
    with closing(FakeSpawner()) as spawner:
        reserve = SpareProcess(spawner, placed())

        taken = reserve.take(PLAIN, ipc=reserve.ipc, bpf=BPF, cpu=0, require=0, spin=None)
        again = reserve.take(PLAIN, ipc=reserve.ipc, bpf=BPF, cpu=0, require=0, spin=None)
        reserve.drop()

        assert taken is not None
        assert again is None
        assert taken[0].type == PLAIN
        assert spawner.hung_up() == [False]
        taken[1].close_vmm_end()


def test_process_that_nobody_takes_is_dropped() -> None:
    with closing(FakeSpawner()) as spawner:
        reserve = SpareProcess(spawner, placed())

        assert reserve.take("debug", ipc=reserve.ipc, bpf=BPF, cpu=0, require=0, spin=None) is None
        reserve.drop()

        assert spawner.hung_up() == [True]


@pytest.mark.parametrize("other", [{"ipc": "pipe"}, {"bpf": b""}, {"cpu": 1}, {"cpu": None}, {"require": 1}])
def test_process_that_would_have_been_ordered_otherwise_is_not_taken(other: dict[str, object]) -> None:
    with closing(FakeSpawner()) as spawner:
        reserve = SpareProcess(spawner, placed())
        wanted: dict[str, object] = {"ipc": reserve.ipc, "bpf": BPF, "cpu": 0, "require": 0, "spin": None}

        assert reserve.take(PLAIN, **{**wanted, **other}) is None  # type: ignore[arg-type]
        reserve.drop()


def test_reserve_that_fails_leaves_nothing_open() -> None:
    before = os.listdir("/proc/self/fd")
    with closing(FakeSpawner(most=0)) as spawner, pytest.raises(SandboxError):
        SpareProcess(spawner, placed())

    assert os.listdir("/proc/self/fd") == before


@pytest.fixture
def prestart(monkeypatch: pytest.MonkeyPatch) -> Prestart:
    class Spawner(FakeSpawner):
        @classmethod
        def start(cls, **_: object) -> Spawner:
            return cls()

    monkeypatch.setattr(early_signals, "exit_callbacks", [])
    return Prestart(Spawner)


def test_machine_is_placed_where_its_processes_wait(prestart: Prestart) -> None:
    prestart.start()
    prestart.reserve()

    placement = prestart.place("auto", 2)

    assert placement.vcpus == 2
    with closing(prestart.take()):
        reserve = prestart.take_reserve()
        assert reserve is not None
        assert reserve.placement is placement
        assert prestart.take_reserve() is None
        reserve.drop()
    placement.close()


def test_machine_with_a_cpu_of_its_own_is_placed_there(prestart: Prestart) -> None:
    cpu = min(os.sched_getaffinity(0))
    prestart.start()
    prestart.reserve()

    assert prestart.place(str(cpu), 1).cpu == cpu
    assert prestart.place("none", 1).cpu is None
    prestart.drop()


def test_another_spawner_drops_the_reserve(prestart: Prestart) -> None:
    prestart.start()
    prestart.reserve()

    with closing(prestart.take(without=1)):
        assert prestart.take_reserve() is None


def test_without_a_spawner_there_is_no_reserve(prestart: Prestart) -> None:
    prestart.reserve()

    assert prestart.take_reserve() is None
    with closing(prestart.place("auto", 1)) as placement:
        assert placement.cpu in (None, *os.sched_getaffinity(0))
