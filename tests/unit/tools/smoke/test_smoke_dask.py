"""The Dask executor with a client that has no cluster, and what runs on a worker without Dask."""

from __future__ import annotations

import hashlib
import math
import sys
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kvmbox.base.errors import StartError
from kvmbox.tools.smoke.execute import dask_worker
from kvmbox.tools.smoke.execute.dask_executor import (
    CALL_THREAD,
    MOST_LOOKS,
    MOST_TRIES,
    DaskExecutor,
    connect,
)
from kvmbox.tools.smoke.execute.remote_values import boot_data, observation_data, observation_from
from kvmbox.tools.smoke.suite.test_case import Boot, Observation
from tests.support.dask import GOOD, FakeClient
from tests.support.smoke import FakeExecutor, seen

NEVER = 1e6
"""Seconds between looks: these tests look themselves."""


@contextmanager
def executor_on(client: FakeClient) -> Iterator[DaskExecutor]:
    with DaskExecutor(client, "tcp://there", look_every=NEVER, wait_for=client.wait_for) as executor:
        try:
            yield executor
        finally:
            for answer in client.frozen.values():
                answer.set()
    assert client.closed


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "k.elf"
    path.write_bytes(b"kernel")
    return path


def test_file_goes_once_to_each_worker_and_results_come_back(image: Path) -> None:
    client = FakeClient({"a": GOOD, "b": GOOD})
    with executor_on(client) as executor:
        futures = [executor.submit(Boot(str(image))) for _ in range(3)]
        key = f"{hashlib.sha256(b'kernel').hexdigest()}/k.elf"
        assert sorted(client.stores) == [("a", key), ("b", key)]
        assert [task.data["image"] for task in client.tasks] == [key] * 3
        for number, task in enumerate(client.tasks):
            task.end(observation_data(seen(number)))
        assert [future.result(0).status for future in futures] == [0, 1, 2]


def test_worker_that_has_the_file_does_not_get_it_again(image: Path) -> None:
    key = f"{hashlib.sha256(b'kernel').hexdigest()}/k.elf"
    client = FakeClient({"a": GOOD, "b": GOOD}, has={("a", key)})
    with executor_on(client) as executor:
        executor.submit(Boot(str(image)))
        assert client.stores == [("b", key)]
        assert client.tasks[0].workers == ["a", "b"]


def test_slots_follow_the_usable_workers(image: Path) -> None:
    client = FakeClient({"a": GOOD, "b": {**GOOD, "problem": "no /dev/kvm"}, "c": OSError("gone")}, threads=3)
    with executor_on(client) as executor:
        assert executor.slots == 6
        client.probes["d"] = GOOD
        executor.look()
        assert executor.slots == 12
        executor.submit(Boot(str(image)))
        assert client.tasks[0].workers == ["a", "d"]
        client.probes.clear()
        executor.look()
        assert executor.slots == 1


@pytest.mark.parametrize(
    ("probes", "words"),
    [
        ({}, "dask worker tcp://there"),
        ({"a": {**GOOD, "problem": "cannot open /dev/kvm"}}, "worker a: cannot open /dev/kvm"),
        ({"a": {**GOOD, "version": "0.0"}}, "worker a: it has kvmbox 0.0, and this is "),
        ({"a": ModuleNotFoundError("No module named 'kvmbox'")}, "No module named 'kvmbox'"),
        ({"a": [1]}, "its answer is none of kvmbox"),
        ({"a": {**GOOD, "hardware": 1}}, "its answer is none of kvmbox"),
        ({"a": {**GOOD, "version": 1}}, "its answer is none of kvmbox"),
        ({"a": {**GOOD, "problem": "x" * 10_000}}, f"worker a: {'x' * 500}…"),
    ],
)
def test_cluster_that_cannot_boot_is_refused(probes: dict[str, Any], words: str) -> None:
    with pytest.raises(StartError) as found:
        DaskExecutor(FakeClient(probes), "tcp://there")
    assert words in (found.value.hint or "")


@pytest.mark.parametrize("threads", [0, -1, 10**400, "4", 2.5])
def test_worker_with_an_absurd_number_of_threads_is_not_used(threads: Any) -> None:
    with pytest.raises(StartError) as found:
        DaskExecutor(FakeClient({"a": GOOD}, threads=threads), "tcp://there")
    assert found.value.hint == "worker a: its number of threads is none"


def test_hardware_virtualization_is_that_of_all_usable_workers() -> None:
    both = {"a": {**GOOD, "hardware": True}, "b": GOOD}
    with executor_on(FakeClient(both)) as executor:
        assert not executor.has_hardware_virtualization
    with executor_on(FakeClient({"a": both["a"], "b": {**GOOD, "problem": "x"}})) as executor:
        assert executor.has_hardware_virtualization


def test_boot_whose_workers_are_all_lost_goes_to_new_ones_and_counts_once(image: Path) -> None:
    client = FakeClient({"a": GOOD})
    with executor_on(client) as executor:
        future = executor.submit(Boot(str(image)))
        client.probes.clear()
        executor.look()
        assert len(client.tasks) == 1
        client.probes["b"] = GOOD
        executor.look()
        executor.look()
        first, second = client.tasks
        assert (first.status, second.workers) == ("cancelled", ["b"])
        first.end(observation_data(seen(1)))
        assert not future.done()
        second.end(observation_data(seen(0)))
        second.end(observation_data(seen(3)))
        assert future.result(0).status == 0


def test_boot_of_a_worker_that_does_not_answer_goes_to_another_one_and_counts_once(image: Path) -> None:
    client = FakeClient({"a": GOOD, "b": GOOD})
    with executor_on(client) as executor:
        futures = [executor.submit(Boot(str(image))) for _ in range(2)]
        stuck, other = client.tasks
        client.shares = {"a": (stuck.key,), "b": (other.key,)}
        client.frozen["a"] = threading.Event()
        executor.look()
        executor.look()
        assert [(task.status, task.workers) for task in client.tasks] == [
            ("cancelled", ["a", "b"]),
            ("pending", ["a", "b"]),
            ("pending", ["b"]),
        ]
        assert executor.slots == 2
        stuck.end(observation_data(seen(1)))
        client.tasks[2].end(observation_data(seen(0)))
        other.end(observation_data(seen(3)))
        assert [future.result(0).status for future in futures] == [0, 3]


def test_result_that_a_frozen_worker_keeps_is_made_anew_by_another_one(image: Path) -> None:
    client = FakeClient({"a": GOOD, "b": GOOD})
    with executor_on(client) as executor:
        future = executor.submit(Boot(str(image)))
        (kept,) = client.tasks
        kept.is_kept = True
        kept.end(observation_data(seen(1)))
        assert not future.done()
        client.frozen["a"] = threading.Event()
        executor.look()
        assert client.tasks[1].workers == ["b"]
        client.tasks[1].end(observation_data(seen(0)))
        assert future.result(0).status == 0


def test_results_that_are_kept_again_and_again_are_an_error(image: Path) -> None:
    client = FakeClient({"a": GOOD})
    with executor_on(client) as executor:
        future = executor.submit(Boot(str(image)))
        for _ in range(MOST_TRIES):
            assert not future.done()
            client.tasks[-1].is_kept = True
            client.tasks[-1].end(observation_data(seen(0)))
            executor.look()
        assert len(client.tasks) == MOST_TRIES
        assert future.result(0).reason == "no worker that booted it gave its result"


def test_worker_that_answers_late_is_used_again(image: Path) -> None:
    client = FakeClient({"a": GOOD})
    with executor_on(client) as executor:
        executor.submit(Boot(str(image)))
        woken = client.frozen["a"] = threading.Event()
        executor.look()
        assert executor.slots == 1
        del client.frozen["a"]
        woken.set()
        for thread in threading.enumerate():
            if thread.name == CALL_THREAD:
                thread.join()
        executor.look()
        assert client.tasks[1].workers == ["a"]


def test_cluster_whose_only_worker_does_not_answer_is_refused() -> None:
    frozen = threading.Event()
    client = FakeClient({"a": GOOD}, frozen={"a": frozen})
    with pytest.raises(StartError) as found:
        DaskExecutor(client, "tcp://there", wait_for=client.wait_for)
    assert found.value.hint == "worker a: TimeoutError: it does not answer"
    frozen.set()


def test_boot_that_has_another_worker_left_is_left_to_dask(image: Path) -> None:
    client = FakeClient({"a": GOOD, "b": GOOD})
    with executor_on(client) as executor:
        executor.submit(Boot(str(image)))
        del client.probes["a"]
        executor.look()
        assert len(client.tasks) == 1


def test_no_worker_for_long_ends_the_session(image: Path) -> None:
    client = FakeClient({"a": GOOD})
    with executor_on(client) as executor:
        future = executor.submit(Boot(str(image)))
        client.probes.clear()
        for _ in range(MOST_LOOKS):
            assert not future.done()
            executor.look()
        with pytest.raises(StartError, match="has no worker"):
            future.result(0)


def test_lost_scheduler_ends_the_session(image: Path) -> None:
    client = FakeClient({"a": GOOD})
    with executor_on(client) as executor:
        future = executor.submit(Boot(str(image)))
        client.failure = OSError("closed")
        executor.look()
        with pytest.raises(StartError, match=r"'tcp://there' is lost: OSError: closed"):
            future.result(0)


def test_scheduler_that_does_not_answer_ends_the_session(image: Path) -> None:
    client = FakeClient({"a": GOOD})
    with executor_on(client) as executor:
        future = executor.submit(Boot(str(image)))
        client.thaws = threading.Event()
        executor.look()
        with pytest.raises(StartError, match=r"'tcp://there' is lost: TimeoutError: it does not answer"):
            future.result(0)
        client.thaws.set()


def test_scheduler_that_does_not_answer_from_the_start_is_refused() -> None:
    client = FakeClient({"a": GOOD}, thaws=threading.Event())
    with pytest.raises(StartError, match=r"'tcp://there' fails: TimeoutError: it does not answer"):
        DaskExecutor(client, "tcp://there", wait_for=client.wait_for)
    assert client.thaws is not None
    client.thaws.set()


def test_submit_and_cancel_wait_for_nobody_who_waits_for_the_scheduler(image: Path) -> None:
    client = FakeClient({"a": GOOD})
    asked, goes_on = threading.Event(), threading.Event()

    def wait_until_told(answers: Mapping[str, Future[Any]]) -> None:
        if client.thaws is not None:
            asked.set()
            goes_on.wait()
        client.wait_for(answers)

    with DaskExecutor(client, "tcp://there", look_every=NEVER, wait_for=wait_until_told) as executor:
        client.thaws = threading.Event()
        looking = threading.Thread(target=executor.look)
        looking.start()
        asked.wait()
        futures = [executor.submit(Boot(str(image))) for _ in range(50)]
        executor.cancel()
        assert {future.result(0).status for future in futures} == {130}
        goes_on.set()
        client.thaws.set()
        looking.join()
    assert client.tasks == []


class KilledWorker(Exception):
    """As Dask's."""


@pytest.mark.parametrize(
    ("end", "words"),
    [
        ({"status": "error", "error": KilledWorker("x")}, "each worker that booted it was lost"),
        ({"status": "error", "error": KeyError("x")}, "the worker failed: KeyError: 'x'"),
        ({"value": {"status": 0}}, "the worker's answer is no result"),
        ({"value": observation_data(seen(seconds=math.inf))}, "its seconds is out of bounds"),
        ({"value": observation_data(seen(seconds=10**400))}, "its seconds is out of bounds"),
    ],
)
def test_failure_of_a_task_is_an_error_of_its_test(image: Path, end: dict[str, Any], words: str) -> None:
    client = FakeClient({"a": GOOD})
    with executor_on(client) as executor:
        future = executor.submit(Boot(str(image)))
        client.tasks[0].end(**end)
        assert future.result(0).status == 14
        assert words in future.result(0).reason


def test_task_that_dask_drops_is_submitted_a_few_times(image: Path) -> None:
    client = FakeClient({"a": GOOD})
    with executor_on(client) as executor:
        future = executor.submit(Boot(str(image)))
        for _ in range(MOST_TRIES):
            assert not future.done()
            client.tasks[-1].end(status="cancelled")
            executor.look()
        assert len(client.tasks) == MOST_TRIES
        assert future.result(0).status == 14


def test_file_that_is_missing_is_the_tests_error() -> None:
    client = FakeClient({"a": GOOD})
    with executor_on(client) as executor:
        seen_there = executor.submit(Boot("gone.elf")).result(0)
        assert (seen_there.status, seen_there.reason) == (
            4,
            "cannot read 'gone.elf': No such file or directory",
        )
        assert client.tasks == []


def test_worker_with_a_full_disk_is_not_used(image: Path) -> None:
    client = FakeClient({"a": GOOD, "b": GOOD}, full={"a"})
    with executor_on(client) as executor:
        executor.submit(Boot(str(image)))
        assert client.tasks[0].workers == ["b"]
        assert executor.slots == 2


def test_cancel_ends_what_runs_here_and_there(image: Path) -> None:
    client = FakeClient({"a": GOOD})
    with executor_on(client) as executor:
        future = executor.submit(Boot(str(image)))
        executor.cancel()
        executor.cancel()
        assert future.result(0).status == 130
        assert executor.submit(Boot(str(image))).result(0).status == 130
    assert [task.status for task in client.tasks] == ["cancelled"]
    assert client.ended == ["a"]


def test_flat_bundled_guest_boots_as_it_does_by_name() -> None:
    client = FakeClient({"a": GOOD})
    with executor_on(client) as executor:
        executor.submit(Boot("real16"))
        assert client.tasks[0].data["image"].endswith("/real16.bin")
        assert client.tasks[0].data["options"] == {"boot": "real"}


def test_missing_package_is_one_error_with_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(StartError, match="--dask needs the Python package distributed") as found:
        connect("tcp://there")
    assert found.value.hint == "pip install 'kvmbox[dask]'"


# --- On a worker ------------------------------------------------------------------------------------------


@dataclass
class Place:
    """A worker, of which only the directory counts."""

    local_directory: str


def test_worker_keeps_a_file_only_if_the_content_is_that_of_the_key(tmp_path: Path) -> None:
    worker = Place(str(tmp_path))
    key = f"{hashlib.sha256(b'kernel').hexdigest()}/k.elf"
    assert not dask_worker.has(key, worker)
    with pytest.raises(ValueError, match="changed on its way"):
        dask_worker.store(key, b"other", worker)
    assert not dask_worker.has(key, worker)
    assert dask_worker.store(key, b"kernel", worker) is True
    assert dask_worker.has(key, worker)
    assert [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()] == [b"kernel"]
    for bad in ("/etc/passwd", "../x", f"{'0' * 64}/.."):
        with pytest.raises(ValueError, match="is no key"):
            dask_worker.has(bad, worker)


def test_worker_boots_with_its_own_files_and_gives_plain_data() -> None:
    executor = FakeExecutor(lambda boot: seen(33, b"\xff"))
    boots = dask_worker.Boots(lambda: executor)
    data = boot_data(Boot("KEY", {"initrd": "OTHER"}))
    answer = boots.boot("s", data, lambda key: f"/cache/{key}")
    assert observation_from(answer) == seen(33, b"\xff")
    assert executor.boots == [Boot("/cache/KEY", {"initrd": "/cache/OTHER"})]
    assert executor.exited


def test_end_of_a_session_ends_its_boots_and_no_others() -> None:
    boots = dask_worker.Boots(lambda: ending)
    data = boot_data(Boot("KEY"))

    def end_other_then_own(boot: Boot) -> None:
        boots.end("other")
        assert not ending.cancelled

    class Ending(FakeExecutor):
        def submit(self, boot: Boot) -> Future[Observation]:
            future = super().submit(boot)
            boots.end("own")
            return future

    ending = Ending(end_other_then_own)
    assert boots.boot("own", data, str)["status"] == 130
    assert ending.cancelled
    assert boots.boot("own", data, str)["reason"] == "not begun: the session ended"
    assert len(ending.boots) == 1
