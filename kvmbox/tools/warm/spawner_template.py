"""The spawner template: a process that has loaded what spawners and device processes need, and forks a
spawner for each boot process.

Theory of operation
-------------------

The template of boot processes (`template`) starts it, as a new interpreter with an empty environment. So it
has a layout of memory of its own, and no data of a VMM. It has one thread and reads nothing but the orders of
its parent, and of spawners that nobody has told anything yet. It hears nothing of what they and their VMMs
say to each other.

A spawner is confined as one that its VMM has started (`kvmbox.jail.spawner`). But its parent is this
template: the death of its VMM is no death signal for it, and the VMM has no right to signal it. Instead the
template has the other end of the VMM's *lifeline* (`lent_spawner`). If there is anything to read, which the
template never does, or the end, it kills the spawner. It can do so whatever the spawner does. It also has a
pidfd of the VMM, as a VMM that is taken over could give its end of the lifeline to a device process. Device
processes die with their spawner, as ever. A spawner dies with the template, by its death signal.

A spawner has no stage: the template clones it into all namespaces that the host allows (`namespaces.Cloned`),
and tells the VMM who it is. As root, a spawner enters its user namespace last of all. Then it asks the
template for the map of ids, and goes on when that has answered, map or no map. Root without CAP_SYS_ADMIN has
to change its id before it enters a user namespace, so it needs a stage: if it may have such a namespace, the
template makes no spawners (`can_isolate`), and each VMM starts its own.
"""

from __future__ import annotations

import os
import select

from kvmbox.base import bytecode
from kvmbox.contract import catalog
from kvmbox.jail import descriptor_passing, identity, linux, namespaces, spawner
from kvmbox.jail.child_lifecycle import live, settle
from kvmbox.jail.fixed_descriptors import CONTROL_FD, MAP_FD
from kvmbox.jail.namespaces import Cloned, can_clone
from kvmbox.jail.title import ProcessTitle
from kvmbox.tools.warm import frames
from kvmbox.wire import spawner_frames

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Final, NoReturn

# What is imported here is in every device process: no contextlib, no functools.

FAILED: Final = 1 << 8
"""The wait status of a spawner that could not be made."""

ANY_LANDLOCK: Final = 1000
"""A limit on the Landlock ABI that is none."""


class _Spawner:
    """One spawner."""

    def __init__(self, boot: int, lifeline: int, vmm: int, asked: int) -> None:
        """`vmm` is the pidfd of its VMM, and `asked` where it asks for its map of ids."""
        self.boot, self.lifeline, self.asked = boot, lifeline, asked
        self.watched = lifeline, vmm, asked
        self.pid = 0


class SpawnerTemplate:
    """The serving loop and its state."""

    def __init__(self, entries: Sequence[Callable[..., int | None]], title: ProcessTitle) -> None:
        self._entries = entries
        self._title = title
        self._pid = os.getpid()
        self._spawners: dict[int, _Spawner] = {}  # by pid
        self._watched: dict[int, _Spawner] = {}  # by descriptor
        self._signals = linux.signal_descriptor(linux.SIGCHLD)
        self._poller = select.poll()
        for descriptor in (CONTROL_FD, self._signals):
            self._poller.register(descriptor, select.POLLIN)

    def serve(self) -> None:
        """Serve until the parent closes its socket."""
        while True:
            for descriptor, _ in self._poller.poll():
                if descriptor == CONTROL_FD:
                    message = descriptor_passing.receive(CONTROL_FD)
                    if message is None:
                        return
                    self._make(*message)
                elif descriptor == self._signals:
                    os.read(self._signals, 16 * linux.SIGNALFD_SIGINFO_SIZE)
                else:
                    self._hear(descriptor)
            while self._spawners and (reaped := os.waitpid(-1, os.WNOHANG))[0]:
                self._tell_end(self._spawners.pop(reaped[0]), reaped[1])

    def _make(self, frame: bytes, descriptors: list[int]) -> None:
        kind, boot, _, _ = frames.unpack(frame)
        if kind != frames.BOOT or len(descriptors) != 3:
            raise OSError(f"frame of kind {kind} with {len(descriptors)} descriptors")
        asked, ask = descriptor_passing.socket_pair()
        control, lifeline, vmm = descriptors
        one = _Spawner(boot, lifeline, vmm, asked)
        way, pid = _cloned()
        if pid == 0:
            os.dup2(control, CONTROL_FD, inheritable=False)
            os.dup2(ask, MAP_FD, inheritable=False)
            linux.close_range(MAP_FD + 1)
            os.setsid()
            self._title.set(f"kvmbox: spawner of {boot}")  # which its parent does not tell
            choices = ANY_LANDLOCK, linux.SECCOMP_MODE_FILTER, 0
            served = boot, self._pid, self._entries, self._title, choices, way
            live(lambda: spawner.serve(*served), spawner.fatal)
        for descriptor in one.watched:
            self._watched[descriptor] = one
            self._poller.register(descriptor, select.POLLIN)
        descriptor_passing.send(CONTROL_FD, frames.pack(frames.BORN, boot))
        if pid > 0:
            one.pid = pid
            self._spawners[pid] = one
            _introduce(pid, control)
        else:
            self._tell_end(one, FAILED)
        os.close(control)
        os.close(ask)

    def _hear(self, descriptor: int) -> None:
        self._poller.unregister(descriptor)
        one = self._watched.pop(descriptor)
        if descriptor != one.asked:
            os.kill(one.pid, linux.SIGKILL)  # not reaped yet, so the pid is still its own
        elif descriptor_passing.receive(descriptor) is not None:
            if (proc := namespaces.open_proc()) >= 0:
                identity.map_ids(proc, one.pid, one.boot)
                os.close(proc)
            try:  # noqa: SIM105 - see the imports
                descriptor_passing.send(descriptor, b"go on")
            except OSError:
                pass  # it has died

    def _tell_end(self, dead: _Spawner, status: int) -> None:
        try:  # noqa: SIM105 - see the imports
            descriptor_passing.send(dead.lifeline, frames.pack(frames.DIED, dead.boot, status), wait=False)
        except OSError:
            pass  # nobody wants to know
        for descriptor in dead.watched:
            if self._watched.pop(descriptor, None):
                self._poller.unregister(descriptor)
            os.close(descriptor)


def _cloned() -> tuple[Cloned, int]:
    """The way of a spawner, and its pid: 0 in the spawner, -1 if there are too many processes, for one."""
    way = Cloned()
    # SAFETY: the only thread forks, so no lock is held by another; the child never returns from `_make`.
    try:
        return way, linux.clone(way.cloned_into)
    except OSError:
        try:
            way.leave_out()
            return way, linux.clone(way.cloned_into)
        except OSError:
            return way, -1


def can_isolate() -> bool:
    """Whether spawners that this process clones get all that one gets which its VMM starts."""
    return bool(Cloned().cloned_into) or not can_clone(namespaces.CLONE_NEWUSER)


def _introduce(pid: int, control: int) -> None:
    """Tell a VMM who its spawner is."""
    pidfd = os.pidfd_open(pid)
    try:  # noqa: SIM105 - see the imports
        descriptor_passing.send(control, spawner_frames.pack(spawner_frames.STAGED, 0, pid), [pidfd])
    except OSError:
        pass  # it is gone
    os.close(pidfd)


def main(parent_pid: int, entry_names: Sequence[str]) -> NoReturn:
    """The life of the spawner template; `parent_pid` is the template of boot processes."""

    def life() -> None:
        linux.close_range(CONTROL_FD + 1)
        linux.die_with_parent(parent_pid)
        title = ProcessTitle.find()
        title.set("kvmbox: spawner template")
        for device_type in catalog.USUAL:
            catalog.load_usual(device_type)
        entries = spawner.prepare(entry_names)
        bytecode.leave()
        kept = settle()  # noqa: F841 - as long as this process forks
        served = SpawnerTemplate(entries, title)
        descriptor_passing.send(CONTROL_FD, frames.pack(frames.READY, number=can_isolate()))
        served.serve()

    live(life, frames.fatal)
