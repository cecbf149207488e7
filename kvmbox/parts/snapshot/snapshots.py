"""When snapshots are taken: what is wanted, and by whom.

A snapshot is wanted when the judge has seen a text, when the guest writes to a port, at a guest time, or by a
program. Whatever it is, all vCPUs are asked to pause at once, on the thread that found it: a vCPU
that has printed the text executes no further instruction. The snapshot is taken when all of them stand still
(`standstill`).

`capture` and what it needs are loaded for the first snapshot.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Final

from kvmbox.base.errors import SnapshotFileError, UsageError
from kvmbox.host.time.guest_clock import GuestClock
from kvmbox.run.loop.vcpu_pause import Visitor
from kvmbox.run.options.choices import SnapshotCondition, spec

MOST_SNAPSHOTS: Final = 64
"""How many snapshots a run may plan."""

GUEST_ENDED: Final = "the guest ended before"


class Request:
    """A snapshot that is wanted, or will be: written to `descriptor`, it gets its name by `commit`."""

    def __init__(
        self,
        path: str,
        descriptor: int,
        commit: Callable[[], None],
        ended: Callable[[], None] = lambda: None,
    ) -> None:
        """`commit` raises OSError. `ended` hears that it is done."""
        self.path = path
        self.descriptor = descriptor
        self.commit = commit
        self._ended = ended
        self.begun = False
        """Whether it has been wanted, or is done: it is taken once."""
        self.done = threading.Event()
        self.problem: str | None = None
        """Why there is no snapshot, once it is done; None if there is one."""

    def end(self, problem: str | None) -> None:
        """It is written, or will never be."""
        self.begun = True
        self.problem = problem
        self.done.set()
        self._ended()


Take = Callable[[Request], Callable[[], None]]


class PortWatch:
    """What the bus has at the port of conditions."""

    natural_sizes = frozenset({1, 2, 4})

    def __init__(self, come: Iterable[Callable[[], None]]) -> None:
        self._come = come

    def read(self, _offset: int, size: int) -> int:
        """As a port that no device claims."""
        return (1 << 8 * size) - 1

    def write(self, _offset: int, _size: int, _value: int) -> None:
        """The guest has written, whatever it was."""
        for come in self._come:
            come()


def _nothing() -> None:
    """Do nothing."""


class Snapshots(Visitor):
    """The snapshots of one machine. `want` on any thread; everything else by the main loop's."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wanted: deque[Request] = deque()
        self._planned: list[tuple[SnapshotCondition, Request]] = []
        self._times: list[tuple[int, Callable[[], None]]] = []
        self._stop: Callable[[], None] = _nothing
        self._take: Take | None = None
        self._ended = False

    # --- What is wanted -----------------------------------------------------------------------------------

    def plan(self, condition: SnapshotCondition, request: Request, come: Callable[[], None]) -> None:
        """It is to be wanted when the condition holds. `come` hears that its time has come, if it has one."""
        self._planned.append((condition, request))
        if condition.time is not None:
            self._times.append((condition.time, come))

    def want(self, request: Request) -> None:
        """Take it as soon as the vCPUs stand still, unless that was done already. On any thread."""
        with self._lock:
            if request.begun:
                return
            request.begun = True
            ended = self._ended
            if not ended:
                self._wanted.append(request)
        if ended:
            request.end(GUEST_ENDED)
        else:
            self._stop()

    # --- The main loop's ----------------------------------------------------------------------------------

    def connect(self, stop: Callable[[], None], take: Take) -> None:
        """`stop` asks all vCPUs to pause and wakes the main loop; `take` takes one snapshot of the machine,
        which stands still, and returns what is to be called when it goes on.
        """
        self._stop, self._take = stop, take
        if self._wanted:
            stop()

    @property
    def wants(self) -> bool:
        """See `Visitor`."""
        return self._take is not None and bool(self._wanted)

    def wake_in(self, clock: GuestClock) -> float | None:
        """See `Visitor`: until the next guest time of a condition."""
        if not self._times:
            return None
        left = clock.until(min(at for at, _ in self._times))
        return None if left is None else left / 1e9

    def tick(self, clock: GuestClock) -> None:
        """See `Visitor`."""
        for one in [one for one in self._times if one[0] <= clock.now()]:
            self._times.remove(one)
            one[1]()

    def visit(self) -> Callable[[], None]:
        """Take what is wanted. Raises DeviceProcessError."""
        assert self._take is not None
        unfinished: list[Callable[[], None]] = []
        try:
            while self._wanted:
                request = self._wanted.popleft()
                try:
                    unfinished.append(self._take(request))
                except BaseException as error:
                    request.end(str(error) or type(error).__name__)  # somebody may wait for it
                    raise
        except BaseException:
            _finish(unfinished)
            raise
        return partial(_finish, unfinished)

    def end(self) -> str | None:
        """The guest has ended. Returns in words which planned snapshot is missing, or None."""
        with self._lock:
            self._ended = True
            left = list(self._wanted)
            self._wanted.clear()
        for request in left:
            request.end(GUEST_ENDED)
        for condition, request in self._planned:
            if not request.done.is_set():
                return f"{condition.words} (--snapshot-when)"
        return None


def _finish(unfinished: Iterable[Callable[[], None]]) -> None:
    for finish in unfinished:
        finish()


def check(options: Mapping[str, Any]) -> None:
    """Refuse what no snapshot can be taken beside. `options` are all of a machine. Raises UsageError."""
    if len(options["snapshot_when"]) > MOST_SNAPSHOTS:
        raise UsageError(f"--snapshot-when more than {MOST_SNAPSHOTS} times")
    if any(disk.mode == "write" for disk in options["disks"]):
        raise UsageError(
            "--snapshot-when contradicts --disk FILE,write",
            hint="the file goes on, and the snapshot would not: leave ',write' out",
        )
    if options["virtio_console"] is not None:
        raise UsageError("--snapshot-when contradicts --virtio-console", hint="use a serial port instead")


def condition(value: Any) -> SnapshotCondition:
    """A value of --snapshot-when. Raises UsageError."""
    return spec("--snapshot-when", value, SnapshotCondition, parse_condition)


def parse_condition(text: str) -> SnapshotCondition:
    """'TEXT=FILE', 'port:NUMBER=FILE' or 'time:SECONDS=FILE'. Raises UsageError."""
    when, equals, path = text.rpartition("=")
    kind, colon, rest = when.partition(":")
    if not equals or not path or not when:
        raise UsageError(
            f"--snapshot-when '{text}' is not WHEN=FILE",
            hint="WHEN is a text that the guest prints, port:0x5f0 or time:1.5",
        )
    if colon and kind == "port":
        try:
            port = int(rest, 0)
        except ValueError:
            port = -1
        if not 0 <= port <= 0xFFFF:
            raise UsageError(f"--snapshot-when: '{rest}' is not a port from 0 to 0xffff")
        return SnapshotCondition(path, port=port)
    if colon and kind == "time":
        try:
            seconds = float(rest)
        except ValueError:
            seconds = -1.0
        if not 0 <= seconds <= 1e9:
            raise UsageError(f"--snapshot-when: '{rest}' is not a number of seconds")
        return SnapshotCondition(path, time=int(seconds * 1e9))
    wanted = rest if colon and kind == "text" else when
    if not wanted:
        raise UsageError("--snapshot-when wants a text that is not empty")
    return SnapshotCondition(path, text=wanted.encode("utf-8", "surrogateescape"))


def refused(path: str, why: object) -> SnapshotFileError:
    """The error of a snapshot that was not written."""
    return SnapshotFileError(f"cannot write snapshot '{path}': {why}")
