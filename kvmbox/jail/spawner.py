"""The spawner: a small process that forks device processes, jails them and reports their deaths.

Theory of operation
-------------------

The VMM starts the spawner before everything else, as a new interpreter with an empty environment and one
descriptor. So the spawner has no data of the VMM that could leak. It imports the modules that device
processes need, confines itself, and serves the frames of `spawner_frames`. It always has a single thread,
which makes fork safe.

A new pid namespace applies to the children of the process that creates it. So with a pid namespace, the
process that the VMM started is only a *stage*. It creates the namespaces, clones the spawner as a sibling,
reports the spawner with STAGED, and exits. The spawner is PID 1 and sees no process of the host, not even its
parent.

A signalfd reports deaths to the spawner. The spawner reaps all children, and reports the wait status of each
device process. A device process is READY when its report socket has delivered the listener and has ended,
*and* the listener then has the call that proves the filter (see `lock_up`), which the spawner answers.

The spawner dies with the VMM's main thread (by death signal, or by end of file on the control socket). Every
device process dies with the spawner (by death signal, or by the end of the pid namespace). The spawner has no
filter, because filters are inherited.

If there are ids for device processes (see `identity`), the spawner keeps the capabilities to set
these ids and to kill processes with them. The capabilities are valid in its user namespace, which has no
other ids.
"""

from __future__ import annotations

import gc
import mmap
import os
import select

from kvmbox.base import bytecode
from kvmbox.contract import catalog
from kvmbox.jail import descriptor_passing, identity, kept_modules, label, landlock, layers, linux, notify
from kvmbox.jail import lock_up as jail
from kvmbox.jail.child_lifecycle import live
from kvmbox.jail.fixed_descriptors import CHANNEL_FD, CONTROL_FD, REPLY_FD, REPORT_FD
from kvmbox.jail.namespaces import Stage, isolate
from kvmbox.jail.title import ProcessTitle
from kvmbox.wire import spawner_frames as frames

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, Final, NoReturn

    from kvmbox.jail.namespaces import Isolation, Way

NO_PROOF: Final = b"it made another call than the one that proves its filter"
"""Why a device process was killed that never got READY."""

IGNORED_SIGNALS: Final = (
    linux.SIGINT,
    linux.SIGQUIT,
    linux.SIGHUP,
    linux.SIGTSTP,
    linux.SIGTTIN,
    linux.SIGTTOU,
)
"""What a terminal sends to a whole foreground group: the VMM decides what becomes of its processes."""


GIVING_IDS: Final = 1 << linux.CAP_SETUID | 1 << linux.CAP_SETGID | 1 << linux.CAP_KILL
"""What it takes to give a process another id, and to kill it then."""


class _Device:
    """A device process, from its fork to its death."""

    def __init__(self, identifier: int, report: int, user: int | None) -> None:
        self.identifier = identifier
        self.user = user
        self.report = report  # -1 once it has ended
        self.ready: bytes | None = None
        self.listener = -1
        self.cause = b""  # why it was killed, if that was not asked for


class Spawner:
    """The serving loop and its state. One per process."""

    def __init__(
        self,
        entries: Sequence[Callable[..., int | None]],
        title: ProcessTitle,
        own_layers: int,
        isolation: Isolation,
        landlock_limit: int,
        seccomp: int,
        without: int,
    ) -> None:
        self._entries = entries
        self._title = title
        self._inherited = own_layers & (layers.EMPTY_ENVIRONMENT | layers.ISOLATION)
        self._reasons = isolation.reasons
        self._first_id = isolation.first_id if own_layers & layers.OWN_UID else None
        self._landlock_limit = landlock_limit
        self._seccomp = linux.SECCOMP_MODE_DISABLED if without & layers.SECCOMP else seccomp
        self._without = without
        self._pid = os.getpid()
        self._devices: dict[int, _Device] = {}  # by pid
        self._stopping = False
        self._poller = select.poll()
        self._signals = linux.signal_descriptor(linux.SIGCHLD)
        self._poller.register(CONTROL_FD, select.POLLIN)
        self._poller.register(self._signals, select.POLLIN)

    def serve(self) -> None:
        """Serve until the VMM asks to stop and every child is, or will be, reaped, or the VMM is gone."""
        while True:
            for descriptor, events in self._poller.poll():
                if descriptor == CONTROL_FD:
                    if (message := descriptor_passing.receive(CONTROL_FD)) is None:
                        return  # the VMM is gone, and the children go with us
                    self._obey(*message)
                elif descriptor == self._signals:
                    os.read(self._signals, 16 * linux.SIGNALFD_SIGINFO_SIZE)
                else:
                    self._hear(descriptor, events)
            if self._stopping and self._pid == 1:
                return  # the kernel ends what is in its namespace, before anybody can wait for it
            if not self._reap() and self._stopping:
                return

    def _obey(self, frame: bytes, descriptors: list[int]) -> None:
        kind, identifier, number, mask, payload = frames.unpack(frame)
        if kind == frames.SPAWN and descriptors and not self._stopping:
            self._spawn(identifier, number, mask, payload, descriptors)
        elif kind == frames.KILL and not descriptors:
            for device in self._devices.values():
                if device.identifier == identifier:
                    self._kill(device)
        elif kind == frames.SHUTDOWN and not descriptors:
            self._stopping = True
            for pid in self._devices:
                os.kill(pid, linux.SIGKILL)  # as above
        else:
            raise frames.FrameError(f"frame of kind {kind} with {len(descriptors)} descriptors")

    def _spawn(self, identifier: int, cpu: int, required: int, payload: bytes, channel: list[int]) -> None:
        entry, device_type, bpf = frames.unpack_spawn(payload)
        report, device_report = descriptor_passing.socket_pair()
        user = None
        if self._first_id is not None:
            user = identity.free_id(self._first_id, [device.user for device in self._devices.values()])
        order = jail.Order(
            device_type=device_type,
            parent_pid=self._pid,
            bpf=bpf,
            cpu=None if cpu == frames.NO_CPU else cpu,
            required=required,
            inherited=self._inherited & ~(layers.OWN_UID if user is None else 0),
            user=user,
            landlock_limit=self._landlock_limit,
            seccomp=self._seccomp,
            without=self._without,
            reasons=self._reasons,
            ready=lambda applied: frames.pack(
                frames.READY, identifier, min(landlock.abi(), self._landlock_limit), applied
            ),
        )
        # SAFETY: the only thread forks, so no lock is held by another; the child never returns from here.
        pid = os.fork()
        if pid == 0:
            _be_device(
                order,
                channel=channel,
                report=device_report,
                entry=self._entries[entry],
                identifier=identifier,
                title=lambda: self._title.set(f"kvmbox: {device_type}"),
            )
        for descriptor in channel:
            os.close(descriptor)
        os.close(device_report)
        self._devices[pid] = _Device(identifier, report, user)
        self._poller.register(report, select.POLLIN)
        pidfd = os.pidfd_open(pid)  # before anything can reap it
        descriptor_passing.send(CONTROL_FD, frames.pack(frames.PROCESS, identifier, pid), [pidfd])
        os.close(pidfd)

    def _hear(self, descriptor: int, events: int) -> None:
        """Take what a device process says, on its report socket or by its listener."""
        for device in self._devices.values():
            if device.report == descriptor:
                self._take_report(device)
                return
            if device.listener == descriptor:
                if events & select.POLLIN:
                    self._take_call(device)
                elif events & select.POLLHUP:
                    self._drop_listener(device)  # it is dead
                return

    def _take_report(self, device: _Device) -> None:
        """Take what there is on a report socket, perhaps its end."""
        while device.report >= 0:
            try:
                message = descriptor_passing.receive(device.report, wait=False)
            except BlockingIOError:
                return
            if message is None:
                self._poller.unregister(device.report)
                os.close(device.report)
                device.report = -1
                if device.ready is not None and device.listener < 0:
                    descriptor_passing.send(CONTROL_FD, device.ready)
                return
            frame, descriptors = message
            if frames.unpack(frame)[0] != frames.READY:
                descriptor_passing.send(CONTROL_FD, frame)
                continue
            device.ready = frame
            if descriptors:
                (device.listener,) = descriptors
                self._poller.register(device.listener, select.POLLIN)

    def _take_call(self, device: _Device) -> None:
        """Answer the call that proves the filter. A process that is stopped, or frozen with its container,
        and then goes on makes the call again; the one before is void.
        """
        call = notify.receive(device.listener)
        if call is None:
            return
        self._take_report(device)
        if call[3] != linux.SYS_GETPID or device.report >= 0:
            device.cause = NO_PROOF
            self._kill(device)
        elif device.ready is not None and notify.respond(device.listener, call[0], jail.PROOF):
            descriptor_passing.send(CONTROL_FD, device.ready, [device.listener])
            self._drop_listener(device)

    def _reap(self) -> bool:
        """Reap and report what has died; returns whether any child is left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if device := self._devices.get(pid):
                self._take_report(device)  # what it said before it died comes first
                self._forget(device)
                del self._devices[pid]
                death = frames.pack(frames.DEATH, device.identifier, status, 0, device.cause)
                descriptor_passing.send(CONTROL_FD, death)

    def _forget(self, device: _Device) -> None:
        if device.report >= 0:
            self._poller.unregister(device.report)
            os.close(device.report)
        self._drop_listener(device)

    def _drop_listener(self, device: _Device) -> None:
        if device.listener >= 0:
            self._poller.unregister(device.listener)
            os.close(device.listener)
        device.listener, device.ready = -1, None

    def _kill(self, device: _Device) -> None:
        for pid, other in self._devices.items():
            if other is device:
                os.kill(pid, linux.SIGKILL)  # not reaped yet, so the pid is still its own


def _be_device(
    order: jail.Order,
    *,
    channel: list[int],
    report: int,
    entry: Callable[..., int | None],
    identifier: int,
    title: Callable[[], None],
) -> NoReturn:
    """The life of a device process, from the fork. It leaves by _exit, whatever happens: nothing is
    flushed or collected, and nothing ever returns into the spawner's loop.
    """
    status = 1
    arguments: tuple[Any, ...] = ()
    try:
        try:
            title()
            linux.unblock_signals(linux.SIGCHLD)
            if len(channel) > 1:
                arguments = (REPLY_FD,)
            if len(channel) > 2:
                # SAFETY: as long as the process lives; its descriptor is closed with all the others below.
                arguments = (REPLY_FD, mmap.mmap(channel[2], 0))
            jail.arrange_descriptors(channel[:2], report)
            report = REPORT_FD
            jail.lock_up(order)
        except BaseException as error:
            # Under the filter this is a forbidden call, and ends the process as well.
            descriptor_passing.send(report, frames.pack(frames.FAILED, identifier, payload=_reason(error)))
            raise
        if order.seccomp != linux.SECCOMP_MODE_STRICT:  # there a collection cannot give memory back
            catalog.load_usual(order.device_type)  # nobody waits for that yet
            gc.enable()
        status = entry(CHANNEL_FD, *arguments) or 0
    finally:  # the entry has said what it could of an exception; see jail.server
        if order.seccomp == linux.SECCOMP_MODE_STRICT:
            linux.exit_thread(status)
        os._exit(status)


def _reason(error: BaseException) -> bytes:
    name = "" if isinstance(error, jail.JailError) else f"{type(error).__name__}: "  # that one is for users
    return frames.text_payload(f"{name}{error}")


def _load_entry(name: str) -> Callable[..., int | None]:
    """The function that 'module:function' names."""
    module_name, _, function_name = name.partition(":")
    module = __import__(module_name, fromlist=["_"])
    entry: Callable[..., int | None] = getattr(module, function_name)
    return entry


def prepare(entry_names: Sequence[str], *, strict: bool = False) -> list[Callable[..., int | None]]:
    """Load what device processes need, and be what a spawner is before it confines itself. Returns the
    entries. In `strict` mode an import would need memory in ways that are forbidden there.
    """
    for number in IGNORED_SIGNALS:
        linux.set_signal_action(number, linux.SIG_IGN)
    linux.block_signals(linux.SIGCHLD)
    os.umask(0o777)
    os.chdir("/")
    entries = [_load_entry(name) for name in entry_names]
    if strict or not kept_modules.keep("contract", "devices"):
        catalog.load_all()
    label.in_force()  # while its modules can be read
    return entries


def serve(
    vmm_pid: int,
    parent_pid: int,
    entries: Sequence[Callable[..., int | None]],
    title: ProcessTitle,
    choices: tuple[int, int, int],
    way: Way | None = None,
) -> None:
    """Confine this process, a child of `parent_pid`, and serve. `choices` are landlock_limit, seccomp and
    without, as in `device_process`. `way` is how it comes into its namespaces, by default as a stage. Raises
    whatever goes wrong.
    """
    landlock_limit, _, without = choices

    def hand_over(pid: int) -> None:
        """The last act of the stage: tell the VMM who the spawner is."""
        descriptor_passing.send(CONTROL_FD, frames.pack(frames.STAGED, 0, pid), [os.pidfd_open(pid)])

    way = way or Stage(vmm_pid, hand_over)
    isolation = isolate(vmm_pid, without, way)
    linux.close_range(CONTROL_FD + 1)
    applied = isolation.applied
    kept_modules = GIVING_IDS if applied & layers.OWN_UID else 0
    applied |= jail.confine(
        0 if applied & layers.PID_NS else parent_pid, landlock_limit, without, kept_modules
    )
    # Whoever dies closes its sockets first and sends death signals second, so this leaves no window.
    if descriptor_passing.hung_up(CONTROL_FD):
        raise OSError("the VMM died")
    reasons = isolation.reasons
    for layer in (layers.LANDLOCK, layers.LANDLOCK_NET, layers.LANDLOCK_SCOPES):
        if not applied & layer:
            reasons.setdefault(layer, landlock.why_missing(landlock_limit))
    if not without & layers.LABEL:
        applied |= jail.take_label(reasons, "spawner", machine=vmm_pid)
    # CPython itself may add LC_CTYPE to an empty environment (PEP 538); the other is the VMM's choice.
    if not set(os.environ) - {"LC_CTYPE", "PYTHONMALLOC"}:
        applied |= layers.EMPTY_ENVIRONMENT
    spawner = Spawner(entries, title, applied, isolation, *choices)
    gc.freeze()  # no collection writes into the pages that the children share
    missing = frames.pack_reasons({layers.NAMES[layer]: reason for layer, reason in reasons.items()})
    flags = (frames.STAGED_TOO if way.is_introduced else 0) | (frames.OWNED if isolation.owned else 0)
    descriptor_passing.send(CONTROL_FD, frames.pack(frames.HELLO, flags, frames.VERSION, applied, missing))
    spawner.serve()


def fatal(error: BaseException) -> bytes:
    """The frame that tells the VMM why the spawner gives up."""
    return frames.pack(frames.FATAL, payload=_reason(error))


def main(
    vmm_pid: int, entry_names: Sequence[str], landlock_limit: int, seccomp: int, without: int
) -> NoReturn:
    """The life of a spawner that its VMM has started. `landlock_limit` is the highest Landlock ABI to use,
    `seccomp` the mode of device processes (linux.SECCOMP_MODE_*), `without` a mask of layers to leave out.
    """

    def life() -> None:
        linux.close_range(CONTROL_FD + 1)
        title = ProcessTitle.find()
        title.set("kvmbox: spawner")
        entries = prepare(entry_names, strict=seccomp == linux.SECCOMP_MODE_STRICT)
        bytecode.leave()
        serve(vmm_pid, vmm_pid, entries, title, (landlock_limit, seccomp, without))

    live(life, fatal)
