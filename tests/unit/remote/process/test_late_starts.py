"""Processes that start in the midst of a run: a pool, processes and links that are none."""

from __future__ import annotations

import select
import threading
from types import SimpleNamespace
from typing import Any, cast

import pytest

from kvmbox.base.errors import SandboxError
from kvmbox.contract.device_spec import DeviceSpec
from kvmbox.remote.process.device_pool import (
    PER_DEVICE,
    PROCESS,
    THREAD,
    Design,
    DevicePool,
    PoolMember,
    _Member,
)
from kvmbox.remote.process.late_starts import ProcessStarts
from kvmbox.remote.process.spawner_client import DeviceProcess

BOARD = [
    DeviceSpec("A", "eager", "debugcon"),
    DeviceSpec("B", "lazy", "acpi_pm", on_demand=True),
    DeviceSpec("C", "lazy", "acpi_pm", on_demand=True),
    DeviceSpec("D", "mixed", "acpi_pm", on_demand=True),
    DeviceSpec("E", "mixed", "debugcon"),
]


class FakePool:
    """Logs what is asked of it; `fails` is the step that does."""

    def __init__(self, fails: str = "") -> None:
        self.log: list[str] = []
        self.members: dict[str, Any] = {"lazy": PoolMember("lazy", BOARD[1:3], None, None)}
        self._fails = fails

    def _step(self, step: str) -> None:
        self.log.append(step)
        if self._fails == step:
            raise SandboxError(f"cannot {step}")

    def make_link(self) -> Any:
        self._step("link")
        return SimpleNamespace(close_vmm_end=lambda: self.log.append("close"))

    def spawn(self, name: str, link: object) -> DeviceProcess:
        del link
        self._step("spawn")
        return DeviceProcess(name, 77)

    def wait_for(self, process: DeviceProcess) -> None:
        assert self.members["lazy"].process is process  # who watches over the wait can have it killed
        self._step("wait")


def starts_of(pool: FakePool, news: threading.Event | None = None) -> ProcessStarts:
    starts = ProcessStarts(lambda name: DevicePool.start_member(cast(Any, pool), name), news)
    starts.attend(pause_time=lambda: None, resume_time=lambda: None, wake=lambda: pool.log.append("wake"))
    return starts


def test_start_orders_a_process_waits_for_it_and_wakes_the_main_thread_to_watch_it() -> None:
    pool = FakePool()
    starts = starts_of(pool)
    assert not starts.take_news()
    link = starts.start("lazy")
    assert pool.log == ["link", "spawn", "wait", "wake"]
    member = pool.members["lazy"]
    assert (member.process.pid, member.link) == (77, link)
    assert not starts.made["lazy"].failed
    assert starts.take_news()
    assert not starts.take_news()


class StartsAfterTheLook(threading.Event):
    """A process starts right after the main thread has found that none had."""

    def is_set(self) -> bool:
        found = super().is_set()
        self.set()
        return found


def test_start_in_the_midst_of_a_question_is_news_for_the_next_one() -> None:
    starts = starts_of(FakePool(), StartsAfterTheLook())
    assert not starts.take_news()
    assert starts.take_news()


@pytest.mark.parametrize(
    ("step", "log"),
    [
        ("link", ["link", "wake"]),
        ("spawn", ["link", "spawn", "close", "wake"]),
        ("wait", ["link", "spawn", "wait", "close", "wake"]),
    ],
)
def test_start_that_fails_leaves_no_link_and_a_process_that_can_be_asked_about(
    step: str, log: list[str]
) -> None:
    pool = FakePool(step)
    starts = starts_of(pool)
    with pytest.raises(SandboxError, match=f"cannot {step}"):
        starts.start("lazy")
    assert pool.log == log
    member = pool.members["lazy"]
    assert isinstance(member.process, DeviceProcess)
    assert member.link is None
    assert starts.made["lazy"].failed


class FakeSpawner:
    """Remembers which processes were asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.layers = 0

    def spawn(self, name: str, channel: object, bpf: bytes, **_: object) -> DeviceProcess:
        del channel, bpf
        self.asked.append(name)
        return DeviceProcess(name, 77)

    def close(self) -> None:
        pass


def launched(
    sandbox: Any, *, on_demand: bool, monkeypatch: pytest.MonkeyPatch
) -> tuple[DevicePool, list[str]]:
    spawner = FakeSpawner()
    pool = DevicePool(Design(sandbox="none"))
    pool.design = Design(sandbox=sandbox)
    pool.spawner = cast(Any, spawner) if sandbox != THREAD else None
    monkeypatch.setattr(pool, "make_link", lambda: SimpleNamespace(device=(), close_vmm_end=lambda: None))
    monkeypatch.setattr(
        "kvmbox.remote.process.device_thread.DeviceThread",
        lambda name, link, cpu: SimpleNamespace(name=name, pid=0, join=lambda seconds: None),
    )
    pool.launch(BOARD, b"", cpu=None, on_demand=on_demand)
    return pool, spawner.asked


@pytest.mark.parametrize(
    ("sandbox", "on_demand", "asked", "later"),
    [
        (PROCESS, True, ["eager", "mixed"], ["lazy"]),
        (PROCESS, False, ["eager", "lazy", "mixed"], []),
        (PER_DEVICE, True, ["A", "E"], ["B", "C", "D"]),
        (THREAD, True, [], []),
    ],
)
def test_launch_leaves_for_later_what_may_be_where_that_is_a_process(
    sandbox: Any, on_demand: bool, asked: list[str], later: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pool, found = launched(sandbox, on_demand=on_demand, monkeypatch=monkeypatch)
    assert found == asked
    assert pool.starts.names == later
    assert all((pool.members[name].process is None) == (name in later) for name in pool.members)
    pool.close()


def test_pool_whose_process_is_not_there_finds_nothing_wrong_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    pool, _ = launched(PROCESS, on_demand=True, monkeypatch=monkeypatch)
    monkeypatch.setattr(pool.spawner, "poll_deaths", list, raising=False)
    pool.wait_ready = lambda: None  # type: ignore[method-assign]  # the others are none
    assert pool.check() is None
    assert pool.pid_of("lazy") == 0
    pool.kill("lazy")
    control = _Member(pool, "lazy")
    assert control.starvation()()  # a request that has not come as far as the start is not overdue
    pool.close()


@pytest.mark.parametrize(("sandbox", "name"), [(PROCESS, "eager"), (PER_DEVICE, "A"), (THREAD, "eager")])
def test_reply_may_be_late_for_the_sake_of_the_thread_that_waits(
    sandbox: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool, _ = launched(sandbox, on_demand=False, monkeypatch=monkeypatch)
    # This thread runs, and has hardly had any CPU time since.
    assert _Member(pool, name).starvation(threading.get_ident())()
    pool.close()


def test_tend_watches_what_has_come(monkeypatch: pytest.MonkeyPatch) -> None:
    pool, _ = launched(PROCESS, on_demand=True, monkeypatch=monkeypatch)
    watched: list[object] = []
    monkeypatch.setattr(pool, "watch", watched.append)
    poll = select.poll()
    said: list[str] = []
    pool.tend(poll, said.append)
    assert watched == []
    monkeypatch.setattr(pool, "wait_for", lambda process: None)
    pool.starts.start("lazy")
    pool.tend(poll, said.append)
    pool.tend(poll, said.append)
    assert watched == [poll]
    pool.members["lazy"].link = None
    pool.close()
