"""Processes in reserve, and the account of those that were lost: a pool and processes that are none."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from kvmbox.base.errors import DeviceGoneError, DeviceProcessError, ProtocolError, SandboxError
from kvmbox.parts.restart import standby as module
from kvmbox.parts.restart.recovery import Restart
from kvmbox.parts.restart.standby import StandbyProcesses
from kvmbox.remote.process.device_pool import Design, DevicePool, PoolMember, _Member

GONE = DeviceGoneError("uart", "is gone: its channel ended")


class FakeListener:
    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def fileno(self) -> int:
        return self.descriptor


class FakeProcess:
    """A device process; it is not ready until somebody waits for it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.log: list[str] = []
        self.wait_status: int | None = None
        self.ready = True
        self.listener: FakeListener | None = FakeListener(100 + number)

    def kill(self) -> None:
        self.log.append("kill")

    def end(self) -> str:
        return f"was killed by signal {self.wait_status}"

    def release(self) -> None:
        self.log.append("release")
        self.listener = None


class FakeLink:
    """A link whose closing is remembered."""

    def __init__(self, number: int, closed: list[int]) -> None:
        self.vmm = (number,)
        self._closed = closed

    def close_vmm_end(self) -> None:
        self._closed.append(self.vmm[0])


class FakePool:
    """Hands out processes with rising numbers, until it is told to fail."""

    def __init__(self, *names: str) -> None:
        self.design = SimpleNamespace(ipc="socketpair")
        self.ordered: list[FakeProcess] = []
        self.waited: list[int] = []
        self.closed: list[int] = []
        self.links = 0
        self.fails_to_spawn = self.fails_to_wait = False
        self.deaths: dict[int, str] = {}
        self.unreported: set[int] = set()
        """The processes whose death the spawner has not reported."""
        self.members: dict[str, Any] = {
            name: PoolMember(name, [], FakeProcess(-1 - index), None)  # type: ignore[arg-type]  # a fake
            for index, name in enumerate(names or ("uart", "pit"))
        }

    def make_link(self) -> FakeLink:
        self.links += 1
        return FakeLink(self.links, self.closed)

    def spawn(self, name: str, link: FakeLink) -> FakeProcess:
        assert name == "standby"
        if self.fails_to_spawn:
            raise SandboxError("cannot fork")
        self.ordered.append(FakeProcess(link.vmm[0]))
        return self.ordered[-1]

    def wait_for(self, process: FakeProcess) -> None:
        self.waited.append(process.number)
        if self.fails_to_wait:
            raise SandboxError("cannot jail")

    def knows_end(self, error: DeviceProcessError, process: FakeProcess) -> bool:
        return not isinstance(error, DeviceGoneError) or process.number not in self.unreported

    def explain_process(self, error: DeviceProcessError, process: FakeProcess) -> DeviceProcessError:
        if isinstance(error, DeviceGoneError):
            return DeviceProcessError(error.device_type, self.deaths.get(process.number, "died"))
        return error


class Bench:
    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, budget: int = 16) -> None:
        self.pool = FakePool()
        self.said: list[str] = []
        self.forgotten: list[int] = []
        self.wakes = 0
        monkeypatch.setattr(module, "DeviceProcess", FakeProcess)
        self.standby = StandbyProcesses(
            cast(DevicePool, self.pool),
            budget=budget,
            pause_time=lambda: None,
            resume_time=lambda: None,
            wake=self._wake,
        )

    def _wake(self) -> None:
        self.wakes += 1

    def tend(self) -> None:
        self.standby.tend(self.said.append, self.forgotten.append)

    def lose(self, name: str = "uart", error: DeviceProcessError = GONE, *, used: int = 1) -> None:
        """What a channel's recovery does."""
        for _ in range(used):
            assert self.standby.take_from_budget()
            self.standby.replace(name, error)
        self.standby.restarted(Restart(name, used, 40, 2_500_000))


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


def test_tend_orders_one_process_and_only_one(bench: Bench) -> None:
    for _ in range(3):
        bench.tend()
    assert [process.number for process in bench.pool.ordered] == [1]
    assert bench.standby.spare is not None
    assert bench.pool.waited == []  # it gets ready while nobody needs it


def test_replace_takes_the_spare_kills_the_old_one_and_gives_its_link(bench: Bench) -> None:
    bench.tend()
    old = bench.pool.members["uart"].process
    link = bench.standby.replace("uart", GONE)
    assert link.vmm == (1,)
    assert old.log == ["kill"]
    assert bench.pool.waited == [1]
    assert bench.pool.members["uart"].process is bench.pool.ordered[0]
    assert bench.pool.members["uart"].link is link
    assert bench.standby.spare is None


def test_replace_without_a_spare_orders_one_and_waits_for_it(bench: Bench) -> None:
    assert bench.standby.replace("uart", GONE).vmm == (1,)
    assert bench.standby.replace("uart", GONE).vmm == (2,)
    assert bench.pool.waited == [1, 2]


def test_replace_that_cannot_have_one_closes_what_it_had(bench: Bench) -> None:
    bench.pool.fails_to_wait = True
    old = bench.pool.members["uart"].process
    with pytest.raises(SandboxError, match="cannot jail"):
        bench.standby.replace("uart", GONE)
    assert bench.pool.closed == [1]
    assert bench.pool.members["uart"].process is old


def test_facts_tell_which_restarts_there_were_and_how_many_are_left(bench: Bench) -> None:
    bench.lose("uart", used=2)
    bench.lose("pit")
    bench.tend()
    assert bench.standby.facts() == {
        "by_type": {"uart": 1, "pit": 1},
        "durations": [2_500_000, 2_500_000],
        "replayed": 80,
        "budget": 13,
    }


def test_tend_replaces_a_spare_that_died(bench: Bench) -> None:
    bench.tend()
    (spare,) = bench.pool.ordered
    spare.wait_status = 9
    bench.tend()
    assert spare.log == ["release"]
    assert bench.forgotten == [101]
    assert bench.pool.closed == [1]
    assert [process.number for process in bench.pool.ordered] == [1, 2]


def test_tend_gives_up_on_spares_that_die_in_a_row_before_they_are_jailed(bench: Bench) -> None:
    def lose_spare(*, ready: bool) -> None:
        bench.tend()
        spare = bench.pool.ordered[-1]
        spare.wait_status, spare.ready = 9, ready

    for ready in (False, False, True, False, False):
        lose_spare(ready=ready)
    assert bench.said == []
    lose_spare(ready=False)
    for _ in range(3):
        bench.tend()
    assert bench.said == ["no further standby device process is started: 3 in a row was killed by signal 9"]
    assert len(bench.pool.ordered) == 6
    assert bench.standby.take_from_budget()  # a restart may still order one


def test_tend_that_cannot_order_says_so_once_and_ends_restarts(bench: Bench) -> None:
    bench.pool.fails_to_spawn = True
    for _ in range(3):
        bench.tend()
    assert bench.said == ["cannot start a standby device process: cannot fork"]
    assert not bench.standby.take_from_budget()


def test_budget_is_for_all_devices_together_and_never_less_than_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench(monkeypatch, budget=3)
    assert [bench.standby.take_from_budget() for _ in range(6)] == [True] * 3 + [False] * 3
    assert bench.standby.budget == 0
    bench.tend()
    assert bench.pool.ordered == []  # nobody could use it


def test_restarted_counts_at_once_and_wakes_the_main_thread(bench: Bench) -> None:
    bench.lose("uart")
    bench.lose("pit")
    bench.lose("uart")
    assert bench.standby.restarts == {"uart": 2, "pit": 1}
    assert bench.standby.durations == [2_500_000] * 3
    assert bench.standby.replayed == 120
    assert bench.wakes == 3
    assert bench.said == []


def test_durations_are_bounded(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SAMPLE", 3)
    for _ in range(5):
        bench.lose()
    assert len(bench.standby.durations) == 3
    assert bench.standby.restarts == {"uart": 5}


def test_tend_tells_a_line_for_each_restart_with_how_the_lost_process_died(bench: Bench) -> None:
    bench.pool.deaths = {-1: "was killed by signal 9 (SIGKILL)"}
    old = bench.pool.members["uart"].process
    bench.lose()
    bench.tend()
    bench.tend()
    assert bench.said == [
        "device process 'uart' was killed by signal 9 (SIGKILL): restarted, 40 requests replayed in 2.5 ms "
        "(restart 1, 15 left)"
    ]
    assert old.log == ["kill", "release"]
    assert bench.forgotten == [99]


def test_restart_whose_cause_is_not_known_yet_is_told_later_and_in_its_order(bench: Bench) -> None:
    bench.pool.deaths = {-1: "died late", -2: "was the PIT"}
    bench.pool.unreported = {-1}
    bench.lose("uart")
    bench.lose("pit", DeviceGoneError("pit", "is gone"))
    bench.tend()
    assert bench.said == []  # the main thread does not wait for a slow spawner
    bench.pool.unreported.clear()
    bench.tend()
    assert [line.partition(": restarted")[0] for line in bench.said] == [
        "device process 'uart' died late",
        "device process 'pit' was the PIT",
    ]


def test_restart_whose_cause_is_not_known_at_the_end_is_told_all_the_same(bench: Bench) -> None:
    bench.pool.unreported = {-1}
    bench.lose("uart")
    bench.standby.tell(bench.said.append, bench.forgotten.append, waits=True)
    assert bench.said[0].startswith("device process 'uart' died: restarted")


def test_tell_names_what_it_did_wrong_rather_than_that_we_killed_it_for_that(bench: Bench) -> None:
    bench.lose("pit", ProtocolError("pit", "broke the protocol: a frame of 3 bytes"))
    bench.tend()
    assert bench.said[0].startswith(
        "device process 'pit' broke the protocol: a frame of 3 bytes: restarted, "
    )


def test_tell_believes_who_had_it_killed_rather_than_the_end_of_its_channel(bench: Bench) -> None:
    member = bench.pool.members["uart"]
    member.blame(member.process, DeviceProcessError("uart", "is hung: no reply within 500 ms"))
    bench.lose("uart", GONE)
    bench.tend()
    assert bench.said[0].startswith("device process 'uart' is hung: no reply within 500 ms: restarted, ")
    assert member.cause is None  # its replacement is not to blame


def test_tell_names_the_replacements_that_were_lost_too_and_each_with_its_own_restart(bench: Bench) -> None:
    bench.pool.deaths = {-1: "died first", 1: "died second", 2: "died third", -2: "was the PIT"}
    bench.lose("uart", used=2)
    bench.lose("pit", DeviceGoneError("pit", "is gone"))
    bench.lose("uart")
    bench.tend()
    assert [line.partition(": restarted")[0] for line in bench.said] == [
        "device process 'uart' died first; its replacement: device process 'uart' died second",
        "device process 'pit' was the PIT",
        "device process 'uart' died third",
    ]
    assert [line.partition("(restart ")[2] for line in bench.said] == [
        "1, 12 left)",
        "2, 12 left)",
        "3, 12 left)",
    ]


def test_close_closes_the_spares_end_and_nothing_else(bench: Bench) -> None:
    bench.lose()
    bench.tend()
    for _ in range(2):
        bench.standby.close()
    assert bench.pool.closed == [2]


def test_killer_of_a_process_that_was_replaced_meanwhile_spares_the_replacement() -> None:
    pool = DevicePool(Design(sandbox="none"))
    old, new = FakeProcess(1), FakeProcess(2)
    member = pool.members["uart"] = PoolMember("uart", [], old, None)  # type: ignore[arg-type]  # a fake
    kill = _Member(pool, "uart").killer()
    member.process = new  # type: ignore[assignment]  # as above
    kill(DeviceProcessError("uart", "is hung"))
    assert (old.log, new.log) == (["kill"], [])
    assert member.cause is None
