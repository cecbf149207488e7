"""Many boots from one program: a queue of orders, and a reserve of boot processes that wait for them.

    pool ── template ─┬─ boot process                                     runs a guest
                      ├─ boot process                                     waits for an order
                      ├─ boot process                                     has told its result, and ends
                      └─ spawner template ─┬─ spawner ── device processes   of the first
                                           └─ spawner ── device processes   of the second

A pool starts one template (`template`), and has the template fork boot processes (`boot_process`). Each of
them serves one order. As many as there are workers run a guest. As many wait for an order, and their device
processes jail themselves meanwhile. As many, at most, have been told the order that they will get, or that
is likely to come again, and have prepared its machine (`prepared_machines`). Those that have told their
results end beside the next boots.

The template is replaced if it dies, after `renew_after` boots, and after a boot in which a device process,
KVM or kvmbox failed, and the spawner template with it. All boot processes of a template have one layout of
memory, and all their device processes another. Who attacks them must not learn a layout by trying.
"""

from __future__ import annotations

import os
import re
import stat
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Final, Self

from kvmbox.base.errors import UsageError
from kvmbox.boot import bundled
from kvmbox.remote.process.device_pool import PER_DEVICE, PROCESS, THREAD
from kvmbox.run.options.choices import DEFAULT_SANDBOX
from kvmbox.tools.warm.boot_result import WarmResult
from kvmbox.tools.warm.dispatcher import GRACE_S, Dispatcher
from kvmbox.tools.warm.orders import pack_order
from kvmbox.tools.warm.waiting_orders import Job, JobQueue

RENEW_AFTER: Final = 1000
"""How many boots a template serves."""

HARMLESS: Final = frozenset(
    (
        *("append", "boot", "cpu", "cpus", "debug_exit", "expect", "fail_on", "firmware_tables", "image"),
        *("initrd", "ipc", "memory", "modules", "no_reboot", "pin", "require", "rtc_base"),
        *("sandbox", "seccomp", "serial_limit", "success_status", "timeout", "uart_pace", "without"),
    )
)
"""The options of a machine that opens nothing but what it boots, for reading."""

MOST_PREPARED: Final = 16 << 20
"""How many bytes the files may have of a machine that is prepared."""

MOST_SECONDS: Final = 1e9
"""Nobody waits for a boot that may take so long."""


class WarmPool:
    """A pool of warm workers. A context manager; any thread may call its methods."""

    def __init__(
        self, workers: int | None = None, *, renew_after: int = RENEW_AFTER, grace: float = GRACE_S
    ) -> None:
        """`workers` is how many guests run at a time, by default one for each CPU of this process.

        `renew_after` is how many boots a template serves. `grace` is how long, in seconds, a boot may go on
        behind its time-out before it is ended from outside; as long again, and it is killed. Returns before
        the workers are warm. UsageError if a number is below 1.
        """
        self.workers: Final = len(os.sched_getaffinity(0)) if workers is None else workers
        if self.workers < 1:
            raise UsageError(f"a pool cannot have {self.workers} workers")
        if renew_after < 1:
            raise UsageError(f"a template cannot serve {renew_after} boots")
        self._queue = JobQueue()
        self._dispatcher = Dispatcher(self._queue, workers=self.workers, renew_after=renew_after, grace=grace)
        self._thread = threading.Thread(target=self._dispatcher.serve, name="kvmbox warm pool", daemon=True)
        self._thread.start()

    def submit(
        self, options: Mapping[str, Any], *, dialogue: Sequence[tuple[str | bytes, bytes]] = ()
    ) -> Future[WarmResult]:
        """Queue one boot. `options` are the arguments of `kvmbox.Machine`, "image" among them.

        With "from_snapshot" instead of "image", the file of a snapshot, they are those of
        `kvmbox.Machine.from_snapshot`.

        `dialogue` has pairs of a regular expression and bytes. The bytes are sent to the console when it has
        shown a match behind the one before. The console is captured: "stdio" and `say` cannot be had.

        The future runs from the moment at which a boot process gets the order. It can be cancelled until
        then. It raises nothing else: whatever goes wrong is in the result, wrong options too.
        UsageError if the options cannot be sent to another process, RuntimeError if the pool is closed.
        """
        _refuse_streams(options)
        order = pack_order(options, [(_pattern(one), answer) for one, answer in dialogue], os.getcwd())
        spawns, prepares = _wants_plain_spawner(options), can_be_prepared(options)
        job = Job(order, bounded(options.get("timeout")), spawns=spawns, prepares=prepares)
        self._queue.put(job)
        self._dispatcher.wake()
        return job.future

    def close(self, *, cancel: bool = False) -> None:
        """Wait for all boots, and end every process. Idempotent.

        With `cancel`, boots that have not started are cancelled, and those that run are ended; their results
        say so.
        """
        self._queue.close(cancel=cancel)
        self._dispatcher.wake()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close(cancel=error is not None)
        except BaseException:  # Ctrl-C while the last boots are waited for
            self.close(cancel=True)
            raise


def bounded(timeout: object) -> float | None:
    """The time-out of a boot as far as the pool minds it. `Machine` refuses what is none."""
    return timeout if isinstance(timeout, int | float) and 0 < timeout < MOST_SECONDS else None


def _wants_plain_spawner(options: Mapping[str, Any]) -> bool:
    """Whether the spawner of a plain run is wanted. A wrong answer costs time, nothing else."""
    return (
        options.get("sandbox", DEFAULT_SANDBOX) in (PROCESS, PER_DEVICE)
        and options.get("seccomp") in (None, "filter")
        and not options.get("without")
    )


def can_be_prepared(options: Mapping[str, Any]) -> bool:
    """Whether a machine with these options can be prepared before it is wanted: nobody else notices that, and
    what waits does not take much memory. If it could and this says no, that costs time, nothing else.
    """
    if not options.keys() <= HARMLESS or options.get("sandbox") == THREAD:
        return False
    try:
        modules = [str(one).partition(",")[0] for one in options.get("modules", ())]
        files = [os.fspath(options["image"]), *modules]
        files += [options["initrd"]] if options.get("initrd") else []
        found = [os.stat(path) for path in files if not bundled.find(path) or os.path.exists(path)]
    except (KeyError, OSError, TypeError, ValueError):
        return False  # the boot says what is wrong
    regular = all(stat.S_ISREG(one.st_mode) for one in found)
    return regular and sum(one.st_size for one in found) <= MOST_PREPARED


def _pattern(wanted: str | bytes) -> bytes:
    pattern = wanted.encode() if isinstance(wanted, str) else wanted
    try:
        re.compile(pattern)
    except re.error as error:
        raise UsageError(f"the dialogue's pattern {pattern!r} is no regular expression: {error}") from error
    return pattern


def _refuse_streams(options: Mapping[str, Any]) -> None:
    """UsageError for what belongs to the calling process. Whatever else is wrong is found by `Machine`."""
    serial = options.get("serial", ())
    named = serial.values() if isinstance(serial, Mapping) else [str(one).partition("=")[2] for one in serial]
    streams = {"stdio", "stdout", "stderr"}
    if options.get("console", "capture") != "capture" or streams & {*map(str, named)}:
        raise UsageError("a warm worker has no stdio", hint="its console is captured: see WarmResult.output")
    if options.get("debugcon") in streams:
        raise UsageError("a warm worker has no stdio", hint="debugcon 'auto' is captured with the console")
    if options.get("say") is not None:
        raise UsageError("a warm worker cannot call 'say'", hint="see WarmResult.messages")
