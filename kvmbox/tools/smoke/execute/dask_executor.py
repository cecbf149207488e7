"""Boots on the workers of a Dask cluster (`kvmbox[dask]`): the scheduler decides which worker boots what.

Files go to the workers by content, once to each. Dask gives the boots of a lost worker to others; a boot
whose workers are all lost is submitted anew. So is a boot of a worker that does not answer, because it is
frozen or its host has no time for it: Dask takes it for lost after five minutes only. Whoever may use a Dask
scheduler may run any program on its workers: the cluster is trusted, the guests are not.

Whatever Dask is asked, a thread waits for the answer, and whoever wants the answer waits for a limited time:
a frozen scheduler answers nothing, and Dask has no limit. The main thread, which looks for signals, waits for
`SUBMIT_S` once, and not again while Dask is that slow.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Protocol, Self, TypeVar

from kvmbox import __version__
from kvmbox.base.errors import StartError
from kvmbox.base.outcome import INTERRUPTED, KVMBOX_FAILED
from kvmbox.base.regular_file import open_regular_file
from kvmbox.boot import bundled
from kvmbox.tools.smoke.execute import dask_worker
from kvmbox.tools.smoke.execute.remote_values import boot_data, observation_from, with_files
from kvmbox.tools.smoke.suite.test_case import Boot, Observation, no_result

BOOTS_PER_THREAD: Final = 2
"""How many boots are submitted for each thread of a usable worker: one that runs, and one that waits."""
CONNECT_S: Final = 10.0
"""How long the scheduler may take to answer."""
LOOK_S: Final = 1.0
"""How often is looked which workers there are."""
ANSWER_S: Final = 15.0
"""How long a worker may take to answer, before others get its boots; and the scheduler, before it is lost."""
SUBMIT_S: Final = 1.0
"""How long `submit` waits until a boot is on its way, which it is soon after in any case."""
END_S: Final = 5.0
"""How long the end of a session waits for the cluster."""
SCHEDULER: Final = "scheduler"
"""What stands for the scheduler among the names of those that are asked."""
MOST_THREADS: Final = 4096
"""How many threads a worker is believed to have."""
MOST_WORDS: Final = 500
"""How many characters of an error of Dask are shown."""
CALL_THREAD: Final = "kvmbox smoke dask call"
SEND_THREAD: Final = "kvmbox smoke dask send"
FETCH_THREAD: Final = "kvmbox smoke dask result"
MOST_LOOKS: Final = 30
"""How many looks in a row may find no usable worker: those that come back need a while."""
MOST_TRIES: Final = 5
"""How often a boot is submitted whose task Dask drops."""
_CANNOT_START: Final = StartError.exit_status
_PROBES: Final = [{"version": str, "problem": problem, "hardware": bool} for problem in (str, type(None))]

T = TypeVar("T")


def _wait_for(answers: Mapping[str, Future[Any]]) -> None:
    wait(answers.values(), ANSWER_S)


class Task(Protocol):
    """What of a `distributed.Future` is used."""

    @property
    def status(self) -> str: ...
    def result(self, timeout: float) -> Any: ...
    def exception(self) -> BaseException | None: ...
    def add_done_callback(self, call: Callable[[Any], None]) -> None: ...


class Client(Protocol):
    """What of a `distributed.Client` is used."""

    def nthreads(self) -> Mapping[str, int]: ...
    def processing(self) -> Mapping[str, Iterable[Any]]: ...
    def run(
        self, function: Callable[..., Any], *args: Any, workers: list[str], on_error: str
    ) -> Mapping[str, Any]: ...
    def submit(self, function: Callable[..., Any], *args: Any, **options: Any) -> Task: ...
    def cancel(self, futures: list[Any]) -> None: ...
    def close(self) -> None: ...


def connect(address: str) -> DaskExecutor:
    """An executor on the scheduler at `address`. Raises StartError."""
    try:
        from distributed import Client as DaskClient
    except ImportError as error:
        raise StartError(
            f"--dask needs the Python package distributed: {error}", hint="pip install 'kvmbox[dask]'"
        ) from error
    try:
        client = DaskClient(address, timeout=CONNECT_S, set_as_default=False)
    except (OSError, ValueError) as error:
        raise StartError(
            f"cannot reach the Dask scheduler at '{address}': {_words(error)}",
            hint="start one with 'dask scheduler'; its address is such as tcp://HOST:8786",
        ) from error
    try:
        return DaskExecutor(client, address)
    except BaseException:
        _in_thread(client.close)  # nobody waits for it: it may be why this fails
        raise


@dataclass(eq=False, slots=True)
class _Pending:
    """A boot without a result. `files` are paths by key; `workers` may boot it; `task`, named `key`, does."""

    data: dict[str, Any]
    files: dict[str, str]
    future: Future[Observation]
    workers: frozenset[str] = frozenset()
    task: Task | None = None
    key: str = ""
    tries: int = 0


@dataclass(slots=True)
class _Usable:
    threads: int
    hardware: bool
    files: set[str] = field(default_factory=set)


class DaskExecutor:
    """Boots on the workers that can boot. It closes its client."""

    def __init__(
        self,
        client: Client,
        address: str,
        *,
        look_every: float = LOOK_S,
        wait_for: Callable[[Mapping[str, Future[Any]]], object] = _wait_for,
    ) -> None:
        """`address` is for messages; `look_every` is in seconds. `wait_for` waits as long as workers may take
        for their answers. Raises StartError if no worker can boot.
        """
        self._client = client
        self._address = address
        self._session = uuid.uuid4().hex
        self._lock = threading.Lock()  # for `_pending` and `_cancelled`; never held while Dask is asked
        self._sending = threading.RLock()  # for what is known of workers
        self._pending: set[_Pending] = set()
        self._known: set[str] = set()
        self._usable: dict[str, _Usable] = {}
        self._unusable: dict[str, str] = {}
        self._looks = 0
        self._lost: str | None = None
        self._cancelled = False
        self._ending: threading.Thread | None = None
        self._sender: threading.Thread | None = None
        self._stop = threading.Event()
        self._look_every = look_every
        self._wait_for = wait_for
        self._back: set[str] = set()
        self._count = 0
        try:
            self._find_workers()
        except Exception as error:
            raise StartError(f"the Dask scheduler at '{address}' fails: {_words(error)}") from error
        if not self._usable:
            raise self._no_worker()
        self._watcher = threading.Thread(target=self._watch, name="kvmbox smoke dask", daemon=True)

    @property
    def slots(self) -> int:
        """As many as keep the usable workers busy; never 0, since a boot that waits is found by `look`."""
        return max(1, BOOTS_PER_THREAD * sum(one.threads for one in list(self._usable.values())))

    @property
    def has_hardware_virtualization(self) -> bool:
        """Whether KVM of all usable workers has VMX or SVM below it."""
        return all(one.hardware for one in list(self._usable.values()))

    def submit(self, boot: Boot) -> Future[Observation]:
        """Send a boot to the scheduler, and its files to the workers that lack them."""
        future: Future[Observation] = Future()
        files: dict[str, str] = {}
        try:
            packed = with_files(_with_bundled(boot), lambda path: _add(files, path))
        except OSError as error:
            words = f"cannot read '{error.filename}': {error.strerror}"
            future.set_result(no_result(_CANNOT_START, words))
            return future
        pending = _Pending(boot_data(packed), files, future)
        with self._lock:
            if self._cancelled:
                future.set_result(_interrupted())
                return future
            self._pending.add(pending)
        sender = threading.Thread(target=self._send_first, args=(pending,), name=SEND_THREAD, daemon=True)
        sender.start()
        if self._sender is None or not self._sender.is_alive():
            sender.join(SUBMIT_S)
        self._sender = sender
        return future

    def _send_first(self, pending: _Pending) -> None:
        with self._sending:
            if pending.task is None:  # `look` has not been faster
                self._send(pending)

    def cancel(self) -> None:
        """End all boots now."""
        with self._lock:
            if self._cancelled:
                return
            self._cancelled = True
            pending, self._pending = self._pending, set()
        self._stop.set()
        for one in pending:
            one.future.set_result(_interrupted())
        tasks = [one.task for one in pending if one.task is not None]
        self._ending = threading.Thread(
            target=self._end, args=(tasks,), name="kvmbox smoke dask end", daemon=True
        )
        self._ending.start()

    def __enter__(self) -> Self:
        self._watcher.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.cancel()
        assert self._ending is not None
        end = time.monotonic() + END_S
        for thread in (self._ending, self._watcher):
            thread.join(max(0.0, end - time.monotonic()))
        wait((_in_thread(self._client.close),), END_S)

    def look(self) -> None:
        """See which workers there are now, and submit anew what no worker will boot."""
        with self._sending:
            try:
                self._find_workers()
                stuck = self._stuck_keys()
            except Exception as error:  # noqa: BLE001 - Dask raises whatever its transport raises
                self._lost = f"the Dask scheduler at '{self._address}' is lost: {_words(error)}"
                self._fail_all(StartError(self._lost))
                return
            self._looks = 0 if self._usable else self._looks + 1
            if self._looks >= MOST_LOOKS:
                self._fail_all(self._no_worker())
                return
            with self._lock:
                pending = list(self._pending)
            for one in pending:
                if one.task is None or not one.workers & self._usable.keys() or one.key in stuck:
                    self._send(one)

    def _watch(self) -> None:
        while not self._stop.wait(self._look_every):
            self.look()

    def _find_workers(self) -> None:
        threads = self._ask(self._client.nthreads)
        with self._lock:
            back, self._back = self._back, set()
            has_pending = bool(self._pending)
        for gone in self._known - threads.keys() | back:
            self._usable.pop(gone, None)
            self._unusable.pop(gone, None)
        new = sorted(threads.keys() - self._known | threads.keys() & back)
        self._known = set(threads)
        asked = self._usable if has_pending else ()
        for worker, answer in self._run(dask_worker.ping, workers=asked).items():
            if answer is not True:
                self._usable.pop(worker)
                self._unusable[worker] = _words(answer)
                if not isinstance(answer, TimeoutError):
                    self._known.discard(worker)  # the next look asks what it is, if it is there
        for worker, found in self._run(dask_worker.probe, workers=new).items():
            problem = _problem(found, threads[worker])
            if problem is None:
                self._usable[worker] = _Usable(threads[worker], found["hardware"])
            else:
                self._unusable[worker] = problem

    def _stuck_keys(self) -> set[Any]:
        """The tasks that wait for workers that do not answer."""
        if len(self._usable) == len(self._known):
            return set()
        shares = self._ask(self._client.processing).items()
        return {key for worker, keys in shares if worker not in self._usable for key in keys}

    def _run(self, function: Callable[..., Any], *args: Any, workers: Iterable[str]) -> Mapping[str, Any]:
        """Call a function on workers: what each returns or raises, TimeoutError if nothing came in time."""
        calls = {
            worker: _in_thread(self._client.run, function, *args, workers=[worker], on_error="return")
            for worker in workers
        }
        self._wait_for(calls)
        answers: dict[str, Any] = {}
        for worker, call in calls.items():
            if call.done():
                answers[worker] = call.result().get(worker)
            else:
                answers[worker] = TimeoutError("it does not answer")
                call.add_done_callback(partial(self._answers_again, worker))
        return answers

    def _ask(self, function: Callable[..., T], *args: Any, **options: Any) -> T:
        """What the scheduler answers. Raises TimeoutError if it does not, and what Dask raises."""
        answer = _in_thread(function, *args, **options)
        self._wait_for({SCHEDULER: answer})
        if not answer.done():
            raise TimeoutError("it does not answer")
        return answer.result()

    def _answers_again(self, worker: str, _call: Future[Any]) -> None:
        """A late answer has come: the next look begins with this worker anew."""
        with self._lock:
            self._back.add(worker)

    def _send(self, pending: _Pending) -> None:
        """Submit to the workers that have all of its files; without one, `look` tries again."""
        with self._lock:
            if pending not in self._pending:
                return
        old, pending.task = pending.task, None
        try:
            if old is not None:
                self._ask(self._client.cancel, [old])
            for key, path in pending.files.items():
                self._spread(key, path)
            workers = [name for name, one in self._usable.items() if pending.files.keys() <= one.files]
            if not workers:
                return
            pending.tries += 1
            self._count += 1
            pending.workers = frozenset(workers)
            pending.key = f"kvmbox-smoke-{self._session}-{self._count}"
            task = self._ask(
                self._client.submit,
                dask_worker.boot,
                self._session,
                pending.data,
                key=pending.key,
                pure=False,
                workers=workers,
                allow_other_workers=False,
            )
        except _ChangedFile as error:
            self._answer(pending, no_result(_CANNOT_START, str(error)))
            return
        except Exception as error:  # noqa: BLE001 - Dask raises whatever its transport raises
            self._fail_all(StartError(f"the Dask scheduler at '{self._address}' fails: {_words(error)}"))
            return
        pending.task = task
        with self._lock:
            unwanted = self._cancelled
        if unwanted:
            _in_thread(self._client.cancel, [task])
            return
        task.add_done_callback(lambda done: self._ended(pending, done))

    def _spread(self, key: str, path: str) -> None:
        """Send a file to the usable workers that lack it."""
        lacking = [name for name, one in self._usable.items() if key not in one.files]
        if not lacking:
            return
        answers = self._run(dask_worker.has, key, workers=lacking)
        wanting = [name for name in lacking if answers.get(name) is not True]
        if wanting:
            try:
                content = _read(path)
            except OSError as error:
                raise _ChangedFile(f"cannot read '{path}': {error.strerror}") from error
            if _key(path, content) != key:
                raise _ChangedFile(f"'{path}' has changed since the boot was submitted")
            answers = {**answers, **self._run(dask_worker.store, key, content, workers=wanting)}
        for name in lacking:
            if answers.get(name) is True:
                self._usable[name].files.add(key)
            else:  # it is lost, and forgotten by the next look; or its disk is full
                self._usable.pop(name)
                self._unusable[name] = f"cannot keep a file: {_words(answers.get(name))}"

    def _ended(self, pending: _Pending, task: Task) -> None:
        """A task has ended, in a thread of Dask."""
        if pending.task is not task:
            return  # submitted anew: this one does not count
        if task.status in ("cancelled", "lost") and _is_tried_again(pending):
            return
        # A result is still with the worker, which may be frozen by now: no other one waits for it.
        threading.Thread(target=self._fetch, args=(pending, task), name=FETCH_THREAD, daemon=True).start()

    def _fetch(self, pending: _Pending, task: Task) -> None:
        """Get the result of a task that has ended. If it does not come in time, `look` submits the boot."""
        try:
            seen = _observed(task)
        except TimeoutError:
            if pending.task is not task or _is_tried_again(pending):
                return
            seen = no_result(KVMBOX_FAILED, "no worker that booted it gave its result")
        self._answer(pending, seen)

    def _answer(self, pending: _Pending, seen: Observation) -> None:
        with self._lock:
            if pending not in self._pending:
                return
            self._pending.remove(pending)
        pending.future.set_result(seen)

    def _fail_all(self, error: StartError) -> None:
        with self._lock:
            pending, self._pending = self._pending, set()
        for one in pending:
            one.future.set_exception(error)

    def _end(self, tasks: list[Task]) -> None:
        with self._sending:  # nothing is being submitted from here on
            if self._lost is not None or not tasks:
                return
            try:
                self._ask(self._client.cancel, tasks)
                self._run(dask_worker.end, self._session, workers=self._usable)
            except Exception:  # noqa: BLE001 - the cluster is gone; the time limits of its boots end them
                return

    def _no_worker(self) -> StartError:
        if not self._unusable:
            return StartError(
                f"the Dask scheduler at '{self._address}' has no worker",
                hint=f"start some on hosts with /dev/kvm: dask worker {self._address}",
            )
        worker, problem = min(self._unusable.items())
        return StartError(
            f"no worker of the Dask scheduler at '{self._address}' can boot guests",
            hint=f"worker {worker}: {problem}",
        )


def _in_thread(function: Callable[..., T], *args: Any, **options: Any) -> Future[T]:
    """Dask waits for ever, so a thread does."""
    answer: Future[T] = Future()

    def call() -> None:
        try:
            found = function(*args, **options)
        except Exception as error:  # noqa: BLE001 - Dask raises whatever its transport raises
            answer.set_exception(error)
        else:
            answer.set_result(found)

    threading.Thread(target=call, name=CALL_THREAD, daemon=True).start()
    return answer


class _ChangedFile(Exception):
    """A file of a boot is not what it was."""


def _is_tried_again(pending: _Pending) -> bool:
    """Leave the boot to `look`, which submits it anew; False if it was submitted often enough."""
    if pending.tries >= MOST_TRIES:
        return False
    pending.task = None
    return True


def _observed(task: Task) -> Observation:
    """What a task tells that has ended. TimeoutError if its worker does not answer."""
    try:
        if task.status == "finished":
            return observation_from(task.result(ANSWER_S))
        error = task.exception() if task.status == "error" else None
    except TimeoutError:
        raise
    except ValueError as invalid:
        return no_result(KVMBOX_FAILED, f"the worker's answer is no result: {invalid}")
    except Exception as failed:  # noqa: BLE001 - Dask raises whatever its transport raises
        error = failed
    if type(error).__name__ == "KilledWorker":
        return no_result(KVMBOX_FAILED, "each worker that booted it was lost")
    words = f"the worker failed: {_words(error)}" if error is not None else "Dask dropped it again and again"
    return no_result(KVMBOX_FAILED, words)


def _interrupted() -> Observation:
    return no_result(INTERRUPTED, "the session ended")


def _problem(found: object, threads: object) -> str | None:
    """Why a worker is not used, from what `probe` has returned or raised there, and its number of threads."""
    if isinstance(found, BaseException):
        return _words(found)
    if not isinstance(found, dict) or {name: type(value) for name, value in found.items()} not in _PROBES:
        return "its answer is none of kvmbox"
    if found["version"] != __version__:
        return f"it has kvmbox {_cut(found['version'])}, and this is {__version__}"
    if not isinstance(threads, int) or not 0 < threads <= MOST_THREADS:
        return "its number of threads is none"
    return None if found["problem"] is None else _cut(found["problem"])


def _words(error: object) -> str:
    """An exception in one line."""
    line = _cut(" ".join(str(error).split()))
    return f"{type(error).__name__}: {line}" if line else type(error).__name__


def _cut(text: str) -> str:
    return text if len(text) <= MOST_WORDS else f"{text[:MOST_WORDS]}…"


def _with_bundled(boot: Boot) -> Boot:
    """The name of a bundled guest as its file, and how it boots, which the name says."""
    found = bundled.find(boot.image)
    if found is None or os.path.exists(boot.image):
        return boot
    options = dict(boot.options)
    if bundled.is_flat(found) and options.get("boot", "auto") == "auto":
        options["boot"] = "real"
    return boot.replaced(image=found, options=options)


def _add(files: dict[str, str], path: str) -> str:
    key = _key(path, _read(path))
    files[key] = path
    return key


def _key(path: str, content: bytes) -> str:
    return f"{hashlib.sha256(content).hexdigest()}/{os.path.basename(path)}"


def _read(path: str) -> bytes:
    with open(open_regular_file(path), "rb") as file:
        return file.read()
