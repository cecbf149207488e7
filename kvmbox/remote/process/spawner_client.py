"""The VMM's side of the spawner: start the spawner, request device processes, watch them, end them.

    client = SpawnerClient.start()                       # first of all
    uart = client.spawn("uart", device_end, bpf)         # returns at once; they start in parallel
    client.wait_ready(uart, timeout_ns)                  # jailed and serving, or SandboxError
    ...                                                  # poll client.fileno() and uart.listener
    for death in client.poll_deaths(): ...
    client.close(timeout_ns)                             # no process and no zombie is left

Everything in this module belongs to the thread that starts the spawner. This thread must live until `close`,
because the death signal of the spawner fires when the *thread* that started it exits (prctl(2),
PR_SET_PDEATHSIG). The only exception is `DeviceProcess.kill`, which any thread may call before `close`.

Who kills: the spawner kills device processes on request. So the VMM needs no right over them. How the VMM
ends the spawner itself is in `spawner_process`.
If the spawner has not killed a process within KILL_PATIENCE_NS, the next request kills the spawner, and every
device process dies with it. A thread that waits for the end of a device process repeats the request: the
watchdog in each slice, and the thread that joins the vCPU thread after half a second. So a hung spawner
delays an end, but does not prevent it.

Pids are only for messages, and are those that the VMM sees. The numbers of the spawner mean nothing outside
its pid namespace. Every wait has a deadline.
"""

from __future__ import annotations

import fcntl
import os
import resource
import select
import time
from _thread import get_ident  # module threading can wait until the spawner starts
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from kvmbox.base.compiled import is_compiled
from kvmbox.base.errors import DeviceProcessError, SandboxError
from kvmbox.base.light_typing import signal
from kvmbox.jail import descriptor_passing, layers, linux
from kvmbox.jail.linux import SECCOMP_MODE_FILTER, SECCOMP_MODE_STRICT
from kvmbox.remote.channel.deadlines import WAIT_SLICE_MS
from kvmbox.remote.process import interpreter
from kvmbox.wire import spawner_frames as frames

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kvmbox.remote.process.spawner_process import SpawnerProcess
    from kvmbox.sandbox.listener import ForbiddenCall, NotificationListener

DEFAULT_ENTRY: Final = "kvmbox.jail.device_process:main"
COMPILED_ENTRY: Final = "kvmbox.fast.compiled_serving:main"


def device_entry() -> str:
    """What device processes run: the VMM's choice, because they have no environment to read it from."""
    return COMPILED_ENTRY if is_compiled() else DEFAULT_ENTRY


ANY_LANDLOCK: Final = 1000
"""A limit on the Landlock ABI that is none."""

NS_PER_MS: Final = 1_000_000
SLICE_NS: Final = WAIT_SLICE_MS * NS_PER_MS
READY_TIMEOUT_NS: Final = 20_000 * NS_PER_MS
"""One that dies is known at once. This is for slow hosts: emulated, labelled and busy took more than 5 s. A
host that stands still is not slow: it costs no more than a slice."""

CLOSE_TIMEOUT_NS: Final = 1_000 * NS_PER_MS
KILL_PATIENCE_NS: Final = 2_000 * NS_PER_MS
"""How long the spawner may take to kill a device process, which takes it 50 µs, and longer where it waits
for a CPU of an emulated host."""

MOST_DESCRIPTORS: Final = 1024
"""`pin` limits open files to that, or to the limit that there is: a table of a million would be memory."""

PIN_TRIES: Final = 64
"""How many numbers in a row may be taken, where `pin` looks for a free one."""

INTERPRETER_FLAGS: Final = ("-I", "-S", "-X", "utf8")

# The same as -I but for the one variable, which -I would ignore: in strict mode the interpreter's own
# allocator, which maps and unmaps arenas, must not be used.
STRICT_INTERPRETER_FLAGS: Final = ("-P", "-s", "-S", "-X", "utf8")


def describe_wait_status(status: int) -> str:
    """A wait status in words: 'was killed by signal 9 (SIGKILL)', 'exited with status 1'."""
    if os.WIFSIGNALED(status):
        from signal import Signals

        number = os.WTERMSIG(status)
        try:
            name = Signals(number).name
        except ValueError:
            name = "a real-time signal"
        return f"was killed by signal {number} ({name})"
    return f"exited with status {os.WEXITSTATUS(status)}"


class Death(NamedTuple):
    """The death of a device process. `wait_status` is that of waitpid(2)."""

    pid: int
    wait_status: int

    def __str__(self) -> str:
        return describe_wait_status(self.wait_status)


class DeviceProcess:
    """One device process. The attributes fill in as the spawner reports; `pid` 0 means not yet."""

    def __init__(
        self, device_type: str, pid: int = 0, *, killer: Callable[[DeviceProcess], None] | None = None
    ) -> None:
        """`killer` has it killed."""
        self.type = device_type
        self.pid = pid
        self.pidfd = -1
        self.listener: NotificationListener | None = None
        self.layers = 0
        """The layers in force (`jail.layers`), once it is ready."""
        self.landlock_abi = 0
        self.failure: str | None = None
        """Why it never served."""
        self.wait_status: int | None = None
        """How it died, once it has."""
        self.cause = ""
        """Why the spawner killed it, if nobody had asked for that."""
        self.forbidden: ForbiddenCall | None = None
        """The call that it was killed for."""
        self.kill_asked_at: int | None = None
        """When the spawner was first told to kill it (monotonic ns)."""
        self._killer = killer

    @property
    def ready(self) -> bool:
        """Jailed: every layer is in force, and it serves or has served."""
        return bool(self.layers)

    def end(self) -> str | None:
        """How it died, in words, once it has."""
        if self.wait_status is None:
            return None
        return describe_wait_status(self.wait_status) + (f" because {self.cause}" if self.cause else "")

    def kill(self) -> None:
        """Request SIGKILL for the process. May be repeated until its end. Never raises, never waits."""
        if self._killer is not None and self.wait_status is None:
            self._killer(self)

    def take_forbidden_call(self) -> ForbiddenCall | None:
        """If the process is held in a forbidden call: kill it and return the call. Never blocks."""
        call = self.listener.receive() if self.listener else None
        if call is not None:
            self.forbidden = call  # before the kill: another thread may wait for its end, to tell the cause
            self.kill()
        return call

    def release(self) -> None:
        """Close the descriptors that watch the process, which is dead or about to be. Idempotent."""
        if self.listener:
            self.listener.close()
            self.listener = None
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1


class SpawnerChild:
    """A spawner that is a child of this process. See SpawnerProcess."""

    def __init__(self, pid: int, pidfd: int) -> None:
        """The process that was started: the spawner, or its stage."""
        self.pid = pid
        self._pidfd = pidfd
        self._stage: tuple[int, int] | None = None  # pid and pidfd, once its time is over

    def go_on_as(self, pid: int, pidfd: int) -> None:
        """See SpawnerProcess."""
        self._stage = self.pid, self._pidfd
        self.pid, self._pidfd = pid, pidfd
        self._reap_stage()

    def _reap_stage(self) -> None:
        if self._stage is not None:
            pid, pidfd = self._stage
            _reap(pid, pidfd, kill=False)
            os.close(pidfd)
            self._stage = None

    def kill(self) -> None:
        """See SpawnerProcess."""
        _signal(self._pidfd, signal.SIGKILL)

    def resume(self) -> None:
        """See SpawnerProcess."""
        _signal(self._pidfd, signal.SIGCONT)

    def end(self, *, kill: bool) -> int | None:
        """See SpawnerProcess. None if the kernel has reaped it, as SIGCHLD is ignored in this process."""
        self._reap_stage()
        return _reap(self.pid, self._pidfd, kill=kill)

    def pin(self) -> int:
        """See SpawnerProcess: the limit of open files, which is lowered to its number for good."""
        limit = descriptor_limit()
        for number in range(limit - 1, limit - 1 - PIN_TRIES, -1):
            try:
                pinned = fcntl.fcntl(self._pidfd, fcntl.F_DUPFD_CLOEXEC, number)
            except OSError:
                continue  # what is at this number was inherited, or there is no limit above it
            break
        else:
            raise SandboxError(f"no descriptor below {limit} is free for the spawner's pidfd")
        resource.setrlimit(resource.RLIMIT_NOFILE, (pinned, pinned))
        os.close(self._pidfd)
        self._pidfd = pinned
        return pinned

    def close(self) -> None:
        """See SpawnerProcess."""
        os.close(self._pidfd)


def descriptor_limit() -> int:
    """How many files this process may have open once it is confined."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST_DESCRIPTORS if soft == resource.RLIM_INFINITY else min(soft, MOST_DESCRIPTORS)


def _signal(pidfd: int, number: int) -> None:
    from contextlib import suppress  # it can wait until the spawner starts, as in all of this module

    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, number)


def _reap(pid: int, pidfd: int, *, kill: bool) -> int | None:
    # If it does not exit by itself, it is made to.
    if kill or not is_readable(pidfd, CLOSE_TIMEOUT_NS // NS_PER_MS):
        _signal(pidfd, signal.SIGKILL)
    try:
        return os.waitpid(pid, 0)[1]
    except ChildProcessError:
        return None


class SpawnerClient:
    """The connection to one spawner and its device processes."""

    def __init__(self, process: SpawnerProcess, control: int, entries: Sequence[str]) -> None:
        """Use `start`, unless there is a spawner. `control` is our end of its socket, `entries` are those of
        `start`.
        """
        self.process = process
        self._owner = get_ident()
        self._owned = False  # by our user, the spawner's user namespace
        self._staged = False
        self._stage_tells = False
        self._control = control
        self._entries = list(entries)
        self._processes: dict[int, DeviceProcess] = {}
        self._deaths: list[Death] = []
        self._next_identifier = 1
        self.layers = 0
        """The layers of the spawner itself, once it has said hello."""
        self.missing: dict[str, str] = {}
        """Why there are no others, by the layer's name, once it has said hello."""
        self._end: str | None = None  # why there is no spawner any more
        self._fatal: str | None = None
        self._disobeyed = False

    @classmethod
    def start(
        cls,
        *,
        entries: Sequence[str] | None = None,
        payload_directory: str | None = None,
        landlock_limit: int = ANY_LANDLOCK,
        seccomp: int = SECCOMP_MODE_FILTER,
        without: int = 0,
    ) -> SpawnerClient:
        """Start a spawner; returns before it is up. Call it first of all; it dies with the calling thread.

        `entries` are the 'module:function' that device processes may run, called with the channel's
        descriptor; what they return is the exit status; `device_entry()` by default. They are imported
        before the spawner confines itself, from kvmbox or, if it is given, from `payload_directory`.
        `landlock_limit` is the highest Landlock ABI to use, 0 for none. `seccomp` is the mode of all its
        device processes, `without` a mask of layers that they are to do without. Raises SandboxError.
        """
        entries = (device_entry(),) if entries is None else tuple(entries)
        directories = [] if payload_directory is None else [os.path.abspath(payload_directory)]
        code = (
            f"sys.path += {directories!r}; bytecode.load('spawner'); from kvmbox.jail.spawner import main; "
            f"main({os.getpid()}, {entries!r}, {landlock_limit}, {seccomp}, {without})"
        )
        strict = seccomp == SECCOMP_MODE_STRICT
        flags = STRICT_INTERPRETER_FLAGS if strict else INTERPRETER_FLAGS
        environment = {"PYTHONMALLOC": "malloc"} if strict else {}
        pid, pidfd, control = interpreter.start("the spawner", code, flags, environment, SandboxError)
        return cls(SpawnerChild(pid, pidfd), control, entries)

    @property
    def pid(self) -> int:
        """The spawner's pid, as this process sees it; waits until it has said hello, or is gone."""
        self.wait_hello()
        return self.process.pid

    def wait_hello(self, timeout_ns: int = READY_TIMEOUT_NS) -> bool:
        """Wait until the spawner is confined, so that `layers` and `missing` tell how, and whether it is."""
        self._pump_until(lambda: self._settled, timeout_ns)
        return self._settled

    @property
    def _settled(self) -> bool:
        """Whether it has said hello, and we know which process it is: STAGED comes from another one, and may
        come later.
        """
        return bool(self.layers) and (self._staged or not self._stage_tells)

    def fileno(self) -> int:
        """For poll: readable when `poll_deaths` has something to do."""
        return self._control

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
        """Request a device process. Return at once; `wait_ready` has the result.

        `channel` is the device's end: a socket; or the pipe to read requests from and the one to write
        replies to; or those two and shared memory, which the entry gets mapped. They are sent away and
        closed here, in all cases. `bpf` is the compiled filter, `cpu` the only CPU it may use, `require` a
        mask of layers, beyond those that are always required, without which it must not serve. `entry` is
        one of those given to `start`, the first of them if it is not given.
        Raises SandboxError.
        """
        identifier = self._next_identifier
        process = DeviceProcess(device_type, killer=lambda one: self._kill(identifier, one))
        number = frames.NO_CPU if cpu is None else cpu
        # Known before it is asked for: a signal may strike between the two, and the answer comes anyway.
        self._next_identifier += 1
        self._processes[identifier] = process
        try:
            payload = frames.pack_spawn(self._entries.index(entry or self._entries[0]), device_type, bpf)
            frame = frames.pack(frames.SPAWN, identifier, number, require & ~layers.VMM, payload)
            descriptor_passing.send(self._control, frame, channel)
        except OSError as error:
            self._pump()
            del self._processes[identifier]
            raise SandboxError(
                f"cannot start device process '{device_type}': {self._end or error}"
            ) from error
        finally:
            for descriptor in channel:
                os.close(descriptor)
        return process

    def wait_ready(self, process: DeviceProcess, timeout_ns: int = READY_TIMEOUT_NS) -> None:
        """Wait until `process` is jailed and serves.

        Raises SandboxError that says why it does not; the process is then dead or being killed.
        """
        self._pump_until(lambda: process.ready or process.wait_status is not None, timeout_ns)
        if not process.ready:
            why = self._end or f"it was not ready within {timeout_ns // NS_PER_MS} ms"
            if process.wait_status is not None:
                why = process.failure or f"it {process.end()} before it was ready"
            process.kill()
            raise SandboxError(f"cannot start device process '{process.type}': {why}")
        self.wait_hello(timeout_ns)  # STAGED may come last of all

    def _kill(self, identifier: int, process: DeviceProcess) -> None:
        from contextlib import suppress

        if self._control < 0 or self._end is not None:
            return
        now = time.monotonic_ns()
        if process.kill_asked_at is None:
            process.kill_asked_at = now
        # Again and again: the first may have found the socket full.
        with suppress(OSError):
            descriptor_passing.send(self._control, frames.pack(frames.KILL, identifier), wait=False)
        overdue = now - process.kill_asked_at > KILL_PATIENCE_NS
        if overdue and get_ident() == self._owner and not is_readable(process.pidfd):
            self._disobeyed = True
            self.process.kill()

    def capabilities_needed(self, *, moves_processes: bool = False) -> int:
        """The capabilities, as a mask, without which this process could not end its device processes, or with
        `moves_processes` give one of them another CPU. None, where they have the same user id, or live in a
        user namespace that was made by this process's user: over that its owner has every right.
        """
        if not self.layers & layers.OTHER_UID or self._owned:
            return 0
        return 1 << linux.CAP_KILL | (1 << linux.CAP_SYS_NICE if moves_processes else 0)

    def poll_deaths(self) -> list[Death]:
        """The deaths of device processes since the last call. Never blocks.

        Raises DeviceProcessError if the spawner itself is dead: then every device process is, too.
        """
        self._pump()
        deaths, self._deaths = self._deaths, []
        if not deaths and self._end is not None:
            raise DeviceProcessError("spawner", self._end.removeprefix("the spawner "))
        return deaths

    def close(self, timeout_ns: int = CLOSE_TIMEOUT_NS) -> None:
        """End everything: afterwards no device process, no spawner and no zombie is left. Idempotent.

        A spawner that does not obey within `timeout_ns` is killed. Never raises.
        """
        if self._control < 0:
            return
        from contextlib import suppress

        deadline = time.monotonic_ns() + timeout_ns
        # A spawner that somebody stopped must go on to end its children.
        self.process.resume()
        with suppress(OSError):
            descriptor_passing.send(self._control, frames.pack(frames.SHUTDOWN), wait=False)
        while self._end is None and self._hears(deadline):
            pass
        if self._end is None:
            self._reap(kill=True)
        for process in self._processes.values():
            process.release()
        self.process.close()
        os.close(self._control)
        self._control = -1

    def _hears(self, deadline: int) -> bool:
        """As `_pump`, which never raises here: a spawner that can be understood no more is killed."""
        try:
            return self._pump(deadline)
        except (OSError, frames.FrameError):
            self._reap(kill=True)
            return True

    def _pump_until(self, done: Callable[[], bool], timeout_ns: int) -> None:
        """Receive frames until `done`, the spawner's end, or nothing in so many slices.

        Not until a point of time: after a pause of the whole host, or of this process group by Ctrl-Z, the
        clock is far ahead, and nobody was idle.
        """
        while not done() and self._end is None and timeout_ns >= 0:
            if not self._pump(time.monotonic_ns() + min(timeout_ns, SLICE_NS)):
                timeout_ns -= SLICE_NS

    def _pump(self, deadline: int | None = None) -> bool:
        """Receive the frames of the spawner; wait for one frame until `deadline` (monotonic ns) if there is
        none. Returns whether anything came: a frame, or the spawner's end.
        """
        came = False
        while self._end is None:
            if deadline is not None and not came:
                is_readable(self._control, max(0, -((time.monotonic_ns() - deadline) // NS_PER_MS)))
            try:
                message = descriptor_passing.receive(self._control, wait=False)
            except BlockingIOError:
                return came
            came = True
            if message is None:
                self._reap(kill=False)
            else:
                self._take(*message)
        return came

    def _take(self, frame: bytes, descriptors: list[int]) -> None:
        kind, identifier, number, mask, payload = frames.unpack(frame)
        text = payload.decode(errors="replace")
        if kind == frames.STAGED:
            self._staged = True
            self.process.go_on_as(number, *descriptors)
            return
        if kind == frames.HELLO:
            self.layers = mask
            self._stage_tells = bool(identifier & frames.STAGED_TOO)
            self._owned = bool(identifier & frames.OWNED)
            self.missing = frames.unpack_reasons(payload)
            return
        if kind == frames.FATAL:
            self._fatal = text
            return
        process = self._processes[identifier]
        if kind == frames.PROCESS:
            (process.pidfd,) = descriptors
            process.pid = _pid_behind(process.pidfd) or number
        elif kind == frames.READY:
            from kvmbox.sandbox.listener import NotificationListener

            process.listener = NotificationListener(descriptors[0]) if descriptors else None
            process.landlock_abi = number
            process.layers = mask
        elif kind == frames.FAILED:
            process.failure = text
        elif kind == frames.DEATH:
            process.wait_status, process.cause = number, text
            self._deaths.append(Death(process.pid, number))
        else:
            raise frames.FrameError(f"frame of kind {kind} from the spawner")

    def _reap(self, *, kill: bool) -> None:
        """The spawner has closed its socket, or is to be killed: wait for its end, and remember it."""
        status = self.process.end(kill=kill)
        self._end = "the spawner died" if status is None else f"the spawner {describe_wait_status(status)}"
        if self._disobeyed:
            self._end = "the spawner was killed: it did not do so to a device process when it was told"
        elif self._fatal is not None:
            self._end = f"the spawner gave up: {self._fatal}"


def is_readable(descriptor: int, patience_ms: int = 0) -> bool:
    """Whether `descriptor` is readable within that time: a pidfd is when its process is dead. -1 never is."""
    poller = select.poll()
    if descriptor >= 0:
        poller.register(descriptor, select.POLLIN)
    return bool(poller.poll(patience_ms))


def _pid_behind(pidfd: int) -> int:
    """The pid of a process as this one sees it, from its pidfd; 0 if that cannot be told, or it is dead."""
    try:
        with open(f"/proc/self/fdinfo/{pidfd}", "rb") as file:  # as text it would load a codec
            for line in file:
                if line.startswith(b"Pid:"):
                    return max(0, int(line.split()[1]))
    except OSError:
        pass
    return 0
