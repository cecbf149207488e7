"""All device processes of one machine: started together, named when they fail, ended together.

    pool = DevicePool(Design())            # the spawner starts; nothing else has been opened yet
    pool.launch(board, bpf, cpu=0)         # one process per device type, in parallel
    pool.connect(grants, now, changed)     # jailed, greeted, ready for requests
    ...
    pool.close()                           # no process and no zombie is left

The `Design` says where models run and how requests reach them. Only this module knows the difference between
`--sandbox none`, `thread` and processes. All other modules see channels.

A pool belongs to the thread that makes it. Any thread may use its channels.
"""

from __future__ import annotations

import select
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Literal, get_args

from kvmbox.base.errors import DeviceGoneError, DeviceProcessError, GivenUpError, SandboxError
from kvmbox.base.value_classes import Value
from kvmbox.contract.device_spec import DeviceSpec, by_type
from kvmbox.host.time.starvation import Starvation
from kvmbox.jail import layers
from kvmbox.jail.linux import SECCOMP_MODE_DISABLED, SECCOMP_MODE_FILTER, SECCOMP_MODE_STRICT
from kvmbox.remote.channel.connection import Channel, output_has_room
from kvmbox.remote.channel.deadlines import REPLY_SLICES, START_SLICES, WAIT_SLICE_MS
from kvmbox.remote.channel.grants import Grants
from kvmbox.remote.channel.hello import greet
from kvmbox.remote.channel.implementations import channel_kind
from kvmbox.remote.channel.on_demand import NoProcess
from kvmbox.remote.process import prestart
from kvmbox.remote.process.crash_policy import LossPolicy, ProcessControl
from kvmbox.remote.process.late_starts import ProcessStarts
from kvmbox.remote.process.spawner_client import NS_PER_MS, READY_TIMEOUT_NS, DeviceProcess, SpawnerClient
from kvmbox.remote.process.spin_permits import SpinPermits
from kvmbox.remote.transport.interface import Link, Opens
from kvmbox.remote.transport.ipc_table import make_link
from kvmbox.wire import protocol

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kvmbox.remote.process.device_thread import DeviceThread

Sandbox = Literal["none", "thread", "process", "per-device"]
SANDBOX_CHOICES: tuple[Sandbox, ...] = get_args(Sandbox)
NONE, THREAD, PROCESS, PER_DEVICE = SANDBOX_CHOICES

Seccomp = Literal["filter", "strict", "off"]
SECCOMP_MODES: dict[Seccomp, int] = {
    "filter": SECCOMP_MODE_FILTER,
    "strict": SECCOMP_MODE_STRICT,
    "off": SECCOMP_MODE_DISABLED,
}

JOIN_SECONDS = 1.0


class Design(Value):
    """The three choices of the RFC, and the layers to leave out (a mask of `jail.layers`).

    `ipc` is a transport, or `ipc_table.AUTO` as long as nothing has started.
    """

    sandbox: Sandbox = PROCESS
    seccomp: Seccomp = "filter"
    ipc: str = "socketpair"
    without: int = 0

    @property
    def has_processes(self) -> bool:
        """Whether models run in processes of their own."""
        return self.sandbox in (PROCESS, PER_DEVICE)

    @property
    def filters(self) -> bool:
        """Whether the device processes need a compiled filter."""
        return self.has_processes and self.seccomp == "filter"

    def __str__(self) -> str:
        if self.sandbox == NONE:
            return "none: models run in the vCPU thread"
        return f"{self.sandbox}, {self.seccomp if self.has_processes else 'no seccomp'}, {self.ipc}"


class PoolMember:
    """One process: its devices in index order, how it lives, and its channel once connected."""

    def __init__(
        self,
        device_type: str,
        devices: list[DeviceSpec],
        process: DeviceProcess | DeviceThread | None,
        link: Link | None,
    ) -> None:
        """`process` and `link` are None where the models run in the vCPU thread, or do not run yet."""
        self.device_type = device_type
        self.devices = devices
        self.process = process
        self.link = link
        self.channel: Channel | None = None
        self._blamed: tuple[object, DeviceProcessError] | None = None

    @property
    def cause(self) -> DeviceProcessError | None:
        """Why the present process is being killed, if that is known."""
        blamed = self._blamed
        return blamed[1] if blamed is not None and blamed[0] is self.process else None

    def blame(self, process: DeviceProcess | DeviceThread, cause: DeviceProcessError) -> None:
        """`process`, which may have been replaced by now, is killed because of `cause`."""
        self._blamed = process, cause

    @property
    def layers(self) -> int:
        """The sandbox layers in force (`jail.layers`)."""
        return self.process.layers if self.process is not None else 0


class _Member(ProcessControl):
    """The process of one member, as its channel sees it: `crash_policy.ProcessControl`."""

    def __init__(self, pool: DevicePool, name: str) -> None:
        self._pool = pool
        self._name = name

    def killer(self) -> Callable[[DeviceProcessError], None]:
        """See ProcessControl."""
        member = self._pool.members[self._name]
        process = member.process

        def kill(cause: DeviceProcessError) -> None:
            if process is not None:
                member.blame(process, cause)
                process.kill()

        return kill

    def starvation(self, waiter: int = 0) -> Callable[[], bool]:
        """See ProcessControl."""
        if self._pool.spawner is not None and self._pool.members[self._name].process is None:
            return lambda: True  # it is about to be started: the thread that does it has got no further
        return Starvation(self._pool.pid_of(self._name), waiter).is_starved


class DevicePool:
    """The device processes of a machine, by device type, or by device where each has its own."""

    def __init__(self, design: Design = Design()) -> None:  # noqa: B008 - it cannot be changed
        """Start the spawner, if there are processes: before /dev/kvm is opened. It dies with the thread.

        Raises SandboxError.
        """
        self.design = design
        self.spawner: SpawnerClient | None = None
        if design.has_processes:
            mode = SECCOMP_MODES[design.seccomp]
            without = design.without | (layers.SECCOMP if mode == SECCOMP_MODE_DISABLED else 0)
            self.spawner = prestart.OWN.take(seccomp=mode, without=without)
        self.members: dict[str, PoolMember] = {}
        self._lock = threading.RLock()  # the spawner's client is not thread-safe; a rescue is on any thread
        self._order: Callable[[str, Link], DeviceProcess] | None = None
        self.loss_policy = LossPolicy()
        """What becomes of lost processes; to be set before `connect`."""
        self._unused: dict[str, NoProcess] = {}
        self.starts = ProcessStarts(self.start_member)
        """The processes that start when they are needed."""
        self.spin: SpinPermits | None = None
        self.ready_by: int | None = None
        """When the start has failed if a process does not serve, in ns of the monotonic clock."""
        self.tap: Callable[[str], Callable[[bytes, bytes], None]] | None = None
        """What gives each channel its recorder, by device type; to be set before `connect`."""

    def launch(
        self,
        board: Sequence[DeviceSpec],
        bpf: bytes,
        *,
        cpu: int | None,
        spare_cpus: Collection[int] = (),
        may_spin: bool = False,
        require: int = 0,
        on_demand: bool = False,
    ) -> None:
        """Request a process for each device type of `board`. Return before they run. Raises SandboxError.

        With `on_demand`, those whose devices allow it are requested when they are needed.

        With shared memory, and `may_spin`, the one that is asked most spins on one of `spare_cpus`, or
        anywhere if `cpu` is None.
        """
        if self.spawner is not None:
            if may_spin:
                self.spin = SpinPermits(cpu, spare_cpus, pid_of=self.pid_of)
            spawn = self.spawner.spawn
            self._order = lambda name, link: spawn(name, link.device, bpf, cpu=cpu, require=require)
        for name, devices in by_type(board, per_device=self.design.sandbox == PER_DEVICE).items():
            link: Link | None = None
            process: DeviceProcess | DeviceThread | None = None
            if self.design.sandbox == THREAD:
                from kvmbox.remote.process.device_thread import DeviceThread

                link = self.make_link()
                process = DeviceThread(name, link, cpu=cpu)
            elif on_demand and all(device.on_demand for device in devices):
                # Without processes, the models are loaded when they are needed.
                starts = ProcessStarts(_direct) if self.spawner is None else self.starts
                if self.spawner is not None:
                    starts.names.append(name)
                self._unused[name] = NoProcess(starts, devices)
            elif self.spawner is not None:
                link = self.make_link()
                process = self.spawn(name, link)
            self.members[name] = PoolMember(name, devices, process, link)

    def make_link(self) -> Link:
        """A link of the kind that the design wants. Raises SandboxError."""
        return make_link(self.design.ipc, self.spin)

    def spawn(self, name: str, link: Link) -> DeviceProcess:
        """Ask for one more process, as `launch` did, on the device's end of `link`. Raises SandboxError."""
        assert self._order is not None
        with self._lock:
            return self._order(name, link)

    def wait_for(self, process: DeviceProcess) -> None:
        """Wait until `process` is jailed and serves; SandboxError if it does not come to that."""
        assert self.spawner is not None
        with self._lock:
            self.spawner.wait_ready(process, self._time_left())

    def start_member(self, name: str) -> Link:
        """Start a process that was not started with the others. Raises SandboxError."""
        member = self.members[name]
        # In place of one that cannot even be ordered: whoever looks for it finds that it never was.
        member.process = DeviceProcess(name)
        link = self.make_link()
        try:
            # Known before it is waited for: the main thread may have to kill it.
            member.process = process = self.spawn(name, link)
            self.wait_for(process)
        except SandboxError:
            link.close_vmm_end()
            raise
        member.link = link
        return link

    def _time_left(self) -> int:
        """How long, in ns, a process may take to serve."""
        return READY_TIMEOUT_NS if self.ready_by is None else max(0, self.ready_by - time.monotonic_ns())

    def _start_slices(self, waited_ns: int) -> int:
        """How many slices the first reply of a process may take, if the first ones have taken so long."""
        slice_ns = WAIT_SLICE_MS * NS_PER_MS
        slices = max(1, START_SLICES - waited_ns // slice_ns)  # all of them have been ready for as long
        return slices if self.ready_by is None else min(slices, 1 + self._time_left() // slice_ns)

    def wait_ready(self) -> None:
        """Wait until every process is jailed and serves; SandboxError if one does not come to that."""
        for member in self.members.values():
            process = member.process
            if not isinstance(process, DeviceProcess):
                continue
            try:
                self.wait_for(process)
            except SandboxError:
                # One that refused to serve (a layer is missing) would refuse again, and one whose pidfd has
                # not come shows that the spawner hangs. Any other was lost, which the first request finds.
                rescued = member.channel is not None and member.channel.survival.rescues
                if not rescued or process.failure is not None or process.pidfd < 0:
                    raise

    def pid_of(self, name: str) -> int:
        """The pid of a member's process, or the number of its thread; 0 where it has neither."""
        process = self.members[name].process
        return process.pid if process is not None else 0

    def connect(
        self,
        grants: Mapping[str, Grants],
        *,
        now: Callable[[], int],
        deadline_changed: Callable[[str, int, int], None],
        wait_for_output: Callable[[], None] = output_has_room,
    ) -> None:
        """Wait for the processes and greet them. `grants` are by device name; SandboxError if one fails.

        Each channel gets its survival from `loss_policy` before any process is waited for: one that is lost
        at or before its first request is as good as replaced if that rescues. The callbacks are those of
        `Channel`.
        """
        for member in self.members.values():
            name = member.device_type
            link: Opens = member.link or self._unused.get(name) or _direct(name)
            member.channel = channel_kind()(
                member.device_type,
                link,
                [grants[device.name] for device in member.devices],
                now=now,
                deadline_changed=partial(deadline_changed, member.device_type),
                wait_for_output=wait_for_output,
                record=self.tap(member.device_type) if self.tap is not None else None,
                survival=self.loss_policy.survival(member.devices, _Member(self, member.device_type)),
            )
            if isinstance(link, NoProcess):
                link.attach(member.channel)
        self.wait_ready()
        began = time.monotonic_ns()
        for member in self.members.values():
            channel = self.channel(member.device_type)
            try:
                waited = time.monotonic_ns() - began
                version = greet(channel, member.devices, slices=self._start_slices(waited))
            except DeviceProcessError as error:
                raise self.explain(error) from error
            if version != protocol.VERSION:
                raise SandboxError(
                    f"device process '{member.device_type}' speaks protocol {version}, "
                    f"this kvmbox speaks {protocol.VERSION}",
                    hint="two versions of kvmbox are mixed on this system: install it anew",
                )

    @property
    def channels(self) -> list[Channel]:
        """All channels, connected."""
        return [member.channel for member in self.members.values() if member.channel is not None]

    def channel(self, name: str) -> Channel:
        """The channel of a process that is connected."""
        channel = self.members[name].channel
        assert channel is not None
        return channel

    def places(self) -> Iterator[tuple[str, int, DeviceSpec]]:
        """Where each device is: the type of its process, its index there, and what it was made from."""
        for member in self.members.values():
            for index, device in enumerate(member.devices):
                yield member.device_type, index, device

    def watch(self, poll: select.poll) -> None:
        """Register the descriptors that report a death or a forbidden call. May be repeated."""
        if self.spawner is not None:
            poll.register(self.spawner.fileno(), select.POLLIN)
        processes = [member.process for member in self.members.values()]
        processes.append(self.loss_policy.spare)
        for process in processes:
            if process is not None and process.listener is not None:
                poll.register(process.listener.fileno(), select.POLLIN)

    def tend(self, poll: select.poll, say: Callable[[str], None]) -> None:
        """Watch the processes that have come since the last call, and keep one in reserve where that is
        wanted. By the thread that polls; `say` tells the person a line.
        """
        changed = self.loss_policy.tend(say, partial(_forget, poll))
        if self.starts.take_news() or changed:
            self.watch(poll)

    def explains_at_once(self, error: DeviceProcessError) -> bool:
        """Whether `explain` does not wait for the spawner."""
        member = self.members.get(error.device_type)
        process = member.process if member is not None else None
        return self.spawner is None or process is None or self.knows_end(error, process)

    @staticmethod
    def knows_end(error: DeviceProcessError, process: DeviceProcess | DeviceThread) -> bool:
        """Whether `explain_process` does not wait for the spawner."""
        return not isinstance(error, DeviceGoneError) or process.wait_status is not None

    def check(self) -> DeviceProcessError | None:
        """The error of a device process that has failed, or None.

        Waits for the lock of the spawner's client, which a rescue holds until its replacement serves
        (`READY_TIMEOUT_NS` at most). `explain` waits for that, too.
        """
        for member in self.members.values():
            process = member.process
            error = self._forbidden_call(member.device_type, process)
            if process is not None and error is not None:
                member.blame(process, error)
                return error
        if self.spawner is not None:
            try:
                with self._lock:
                    self.spawner.poll_deaths()
            except DeviceProcessError as error:
                return error
        for member in self.members.values():
            process = member.process
            if process is not None and process.wait_status is not None:
                told = member.channel.told() if member.channel is not None else None
                return told or self._death(member.device_type, process)
        return None

    def kill(self, name: str) -> None:
        """Kill the process (SIGKILL). A thread that waits for its reply then reads end of file."""
        process = self.members[name].process
        if process is not None:
            process.kill()

    def explain(self, error: DeviceProcessError) -> DeviceProcessError:
        """The error with the cause that only the spawner knows: how the process died, and on which call."""
        member = self.members.get(error.device_type)
        if member is None or member.process is None or self.spawner is None:
            return error
        if isinstance(error, GivenUpError):
            return GivenUpError(member.cause or self.explain_process(error.cause, member.process), error.why)
        if isinstance(error, DeviceGoneError) and member.cause is not None:
            return member.cause
        found = self.explain_process(error, member.process)
        if found is error or member.channel is None:
            return found
        told = member.channel.told()
        return found if told is None or told is error else told

    def explain_process(
        self, error: DeviceProcessError, process: DeviceProcess | DeviceThread
    ) -> DeviceProcessError:
        """The same for one process, which may be nobody's any more."""
        assert self.spawner is not None
        # A process that is held in a forbidden call looks hung to the thread that waits for its reply.
        found = self._forbidden_call(error.device_type, process)
        if found is not None or not isinstance(error, DeviceGoneError):
            return found or error
        poll = select.poll()
        self.watch(poll)
        if process.listener is not None:
            poll.register(process.listener.fileno(), select.POLLIN)
        for _ in range(REPLY_SLICES):
            found = self._forbidden_call(error.device_type, process)
            if found is not None:
                return found
            try:
                with self._lock:
                    self.spawner.poll_deaths()
            except DeviceProcessError as spawner_error:
                return spawner_error
            if process.wait_status is not None:
                return self._death(error.device_type, process)
            for descriptor, mask in poll.poll(WAIT_SLICE_MS):
                if not mask & select.POLLIN:
                    # The listener of a dead process hangs up: it would end all slices at once, before the
                    # spawner has told how the process died.
                    poll.unregister(descriptor)
        return error

    @staticmethod
    def _forbidden_call(name: str, process: DeviceProcess | DeviceThread | None) -> DeviceProcessError | None:
        call = process.take_forbidden_call() if process is not None else None
        return None if call is None else _killed_for(name, call)

    def _death(self, name: str, process: DeviceProcess | DeviceThread) -> DeviceProcessError:
        if not isinstance(process, DeviceProcess):
            return DeviceGoneError(name, "has ended")
        if process.forbidden is not None:
            return _killed_for(name, process.forbidden)
        how = process.end()
        assert how is not None
        if self.design.seccomp == "strict" and how.endswith("(SIGKILL)"):
            how += ", as a forbidden system call under strict seccomp is, too"
        return DeviceProcessError(name, how)

    def close(self) -> None:
        """End all processes. Idempotent."""
        for member in self.members.values():
            if member.channel is not None:
                member.channel.close()
            elif member.link is not None:
                member.link.close_vmm_end()
            member.link = None
        self.loss_policy.close()
        if self.spawner is not None:
            self.spawner.close()
        elif self.design.sandbox == THREAD:
            for member in self.members.values():
                if member.process is not None and not isinstance(member.process, DeviceProcess):
                    member.process.join(JOIN_SECONDS)


def _direct(_device_type: str) -> Opens:
    from kvmbox.remote.transport.direct import DirectLink

    return DirectLink()


def _forget(poll: select.poll, descriptor: int) -> None:
    with suppress(KeyError):
        poll.unregister(descriptor)


def _killed_for(name: str, call: object) -> DeviceProcessError:
    return DeviceProcessError(
        name,
        f"was killed (SIGKILL): it called {call}, which its seccomp filter forbids",
        hint="its model is broken or was taken over by the guest: please report it",
    )
