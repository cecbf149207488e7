"""What the dispatcher asks of boot processes; those here, and their template, are the test's own."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing
from types import SimpleNamespace
from typing import Final

import pytest

from kvmbox.base.errors import StartError
from kvmbox.tools.warm import dispatcher, frames
from kvmbox.tools.warm.boot_result import REFUSAL, lost, pack_result
from kvmbox.tools.warm.client import News
from kvmbox.tools.warm.orders import PREPARE, RUN, RUN_IT, Request, pack_order, read_request
from kvmbox.tools.warm.waiting_orders import Job, JobQueue
from tests.support.waiting import PATIENCE_S

DONE: Final = lost("it has ended").replaced(status=0)


class Template:
    """One that forks nothing: its boot processes are sockets, and a process that sleeps has their pidfds."""

    pid = 0
    ready = True
    retired = False
    served = 0
    fatal = ""

    def __init__(self) -> None:
        self.boots: dict[int, socket.socket] = {}
        """The boot processes' ends of their sockets, of those that live."""
        self._sleeper = subprocess.Popen(["sleep", "infinity"])
        self._ours, self._theirs = socket.socketpair()
        self._news: deque[News] = deque()
        self._turns = threading.Semaphore(0)
        self._last_words: tuple[int, bytes] | None = None

    def fileno(self) -> int:
        """The dispatcher has done all that there was to do, and waits."""
        self._turns.release()
        return self._theirs.fileno()

    def order(self, identifier: int, ends: Sequence[int], *, spawns: bool = False) -> bool:
        self.boots[identifier] = end = socket.socket(fileno=os.dup(ends[0]))
        end.settimeout(PATIENCE_S)
        self._tell(frames.BORN, identifier, os.pidfd_open(self._sleeper.pid))
        return True

    def take_news(self) -> News:
        if self._last_words is not None:
            (boot, words), self._last_words = self._last_words, None
            with self.boots.pop(boot) as end:
                end.send(words)
            return News(frames.DIED, boot, 0, "", -1)
        if not self._news:
            self._theirs.recv(100)
            raise BlockingIOError
        return self._news.popleft()

    def _tell(self, kind: int, boot: int, descriptor: int = -1) -> None:
        self._news.append(News(kind, boot, 0, "", descriptor))
        self._ours.send(b"!")

    def end(self, boot: int) -> None:
        """The boot process has ended."""
        self._tell(frames.DIED, boot)
        self.boots.pop(boot).close()

    def settle(self) -> None:
        """Until the dispatcher has heard of all that was said before."""
        for _ in range(4):
            while self._turns.acquire(blocking=False):
                pass
            self._ours.send(b"!")
            assert self._turns.acquire(timeout=PATIENCE_S)

    def requests(self) -> dict[int, Request]:
        """What boot processes were asked for since."""
        self.settle()
        asked = [one for one in self.boots.items() if select.select([one[1]], [], [], 0)[0]]
        found = {boot: read_request(end.recv) for boot, end in asked}
        for boot in [boot for boot, request in found.items() if request is None]:
            self.end(boot)  # which is not needed any more
        return {boot: request for boot, request in found.items() if request is not None}

    def answer(self, boot: int, data: bytes) -> None:
        """The boot process says that, and ends."""
        self.boots[boot].send(data)
        self.settle()
        self.end(boot)

    def answer_at_its_end(self, boot: int, data: bytes) -> None:
        """The boot process says that and ends when the dispatcher has looked at its socket for this turn."""
        self._last_words = boot, data
        self._ours.send(b"!")

    def start(self) -> Template:
        """Start it, or another one like it."""
        self.retired = False
        return self

    def close(self) -> None:
        """The dispatcher has no use for it."""

    def end_all(self) -> None:
        """The test is over."""
        for end in (*self.boots.values(), self._ours, self._theirs):
            end.close()
        self._sleeper.kill()
        self._sleeper.wait()


class Pool:
    """A queue and its dispatcher, for two guests at a time, where there is a CPU more."""

    def __init__(self, template: Template) -> None:
        self._template = template
        self._queue = JobQueue()
        self._dispatcher = dispatcher.Dispatcher(self._queue, workers=2, renew_after=1000)
        self._thread = threading.Thread(target=self._dispatcher.serve)
        self._thread.start()

    def submit(self, name: str) -> Job:
        job = Job(pack_order({"image": name}, (), "/"), None, spawns=False, prepares=True)
        self._queue.put(job)
        self._dispatcher.wake()
        return job

    def cancel_and_close(self, name: str) -> None:
        """Queue a job that nobody wants, as the last one: the dispatcher hears of all that at once."""
        job = Job(pack_order({"image": name}, (), "/"), None, spawns=False)
        self._queue.put(job)
        assert job.future.cancel()
        self._queue.close(cancel=False)
        self._dispatcher.wake()

    def close(self) -> None:
        self._queue.close(cancel=True)
        self._dispatcher.wake()
        while self._thread.is_alive():
            for boot in list(self._template.boots):
                self._template.end(boot)
            self._thread.join(0.01)


@pytest.fixture
def template(monkeypatch: pytest.MonkeyPatch) -> Iterator[Template]:
    made = Template()
    monkeypatch.setattr(dispatcher, "TemplateClient", made)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: range(3))
    yield made
    made.end_all()


@pytest.fixture
def pool(template: Template) -> Iterator[Pool]:
    with closing(Pool(template)) as made:
        yield made


def hangs_up(end: socket.socket) -> bool:
    """Whether the dispatcher tells the boot process that it is not needed."""
    return end.recv(1) == b""


def image(request: Request) -> str:
    assert request.order is not None
    return str(request.order.options["image"])


def test_each_order_that_cannot_be_prepared_is_tried_once(template: Template, pool: Pool) -> None:
    for name in ("runs", "runs too"):
        pool.submit(name)
    runs = template.requests()
    assert sorted(map(image, runs.values())) == ["runs", "runs too"]
    bad = [pool.submit(name) for name in ("bad", "as bad")]

    tried = []
    for _ in range(8):
        for boot, request in template.requests().items():
            assert request.kind == PREPARE
            tried.append(image(request))
            template.answer(boot, REFUSAL)

    assert tried == ["bad", "as bad"]
    assert not any(job.future.running() for job in bad)
    template.boots[next(iter(runs))].send(pack_result(DONE))
    assert [image(request) for request in template.requests().values()] == ["bad"]


def test_order_whose_files_have_changed_is_not_prepared_again(template: Template, pool: Pool) -> None:
    for _ in range(2):
        pool.submit("written anew")
        ((boot, request),) = template.requests().items()
        assert request.kind == RUN
        template.answer(boot, pack_result(DONE))
    for request in template.requests().values():
        assert (request.kind, image(request)) == (PREPARE, "written anew")
    pool.submit("written anew")
    ((boot, request),) = template.requests().items()
    assert request.kind == RUN_IT
    template.answer(boot, REFUSAL)

    for _ in range(2):
        requests = template.requests()
        assert [request.kind for request in requests.values()] == [RUN]
        for boot in requests:
            template.answer(boot, pack_result(DONE))
        assert not template.requests()
        pool.submit("written anew")


@pytest.mark.parametrize(("words", "goes_on"), [(REFUSAL, True), (b"", False)])
def test_refusal_that_comes_with_the_end_is_no_death(
    template: Template, pool: Pool, words: bytes, goes_on: bool
) -> None:
    for name in ("runs", "runs too"):
        pool.submit(name)
    template.requests()
    pool.submit("bad")
    ((boot, request),) = template.requests().items()
    assert (request.kind, image(request)) == (PREPARE, "bad")
    template.answer_at_its_end(boot, words)
    template.settle()
    pool.submit("good")
    asked = [image(request) for request in template.requests().values() if request.kind == PREPARE]
    assert asked == (["good"] if goes_on else [])


def test_pool_whose_last_job_is_cancelled_ends(template: Template, pool: Pool) -> None:
    template.settle()
    pool.cancel_and_close("nobody wants this")

    assert all(map(hangs_up, template.boots.values()))


def test_pool_that_gives_up_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    def start() -> None:
        raise StartError("there is no process left")

    monkeypatch.setattr(dispatcher, "TemplateClient", SimpleNamespace(start=start))
    queue = JobQueue()
    job = Job(b"", None, spawns=False)
    queue.put(job)
    queue.close(cancel=False)
    serving = threading.Thread(
        target=dispatcher.Dispatcher(queue, workers=1, renew_after=1000).serve, daemon=True
    )
    serving.start()
    serving.join(PATIENCE_S)

    assert not serving.is_alive()
    assert job.future.result().reason == "there is no process left"
