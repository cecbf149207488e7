"""The spawner template: a process that has loaded what spawners and device processes need, and forks a
spawner for each boot process.

Theory of operation
-------------------

The template of boot processes (`template`) starts it, as a new interpreter with an empty environment. So it
has a layout of memory of its own, and no data of a VMM. It has one thread and reads nothing but the orders of
its parent. It has no part in what spawners and their VMMs say to each other.

A spawner is confined as one that its VMM has started (`kvmbox.jail.spawner`). But its parent is this
template: the death of its VMM is no death signal for it, and the VMM has no right to signal it. Instead the
template has the other end of the VMM's *lifeline* (`lent_spawner`). If there is anything to read, which the
template never does, or the end, it kills the spawner. It can do so whatever the spawner does. It also has a
pidfd of the VMM, as a VMM that is taken over could give its end of the lifeline to a device process. Device
processes die with their spawner, as ever. A spawner dies with the template, by its death signal.

The stage of a spawner tells the template who the spawner is, and only then the boot process is born. A stage
that is killed before may have left a spawner that nobody knows: then the template gives up, and all spawners
end. So the template itself never kills a stage: it kills the spawner once it knows it. A stage that fails has
made no spawner: its boot process is born without one, and no other is concerned.
"""

from __future__ import annotations

import gc
import os
import select

from kvmbox import bytecode
from kvmbox.devices import catalog
from kvmbox.jail import linux, passing, spawner
from kvmbox.jail.descriptors import CONTROL_FD
from kvmbox.jail.life import live
from kvmbox.jail.title import ProcessTitle
from kvmbox.tools.warm import frames

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Final, NoReturn

# What is imported here is in every device process: no contextlib, no functools.

BIRTH_FD: Final = 4
"""Where a stage tells the template who the spawner is. The spawner has it until it is confined."""

FAILED: Final = 1 << 8
"""The wait status of a stage that has made no spawner."""

ANY_LANDLOCK: Final = 1000
"""A limit on the Landlock ABI that is none."""


class _Spawner:
    """One spawner, or its stage."""

    def __init__(self, boot: int, watched: Sequence[int]) -> None:
        self.boot = boot
        self.watched = watched
        """The end of the lifeline, and the pidfd of the VMM."""
        self.pid = 0  # once its stage has told it
        self.is_doomed = False


class SpawnerTemplate:
    """The serving loop and its state."""

    def __init__(self, entries: Sequence[Callable[..., int | None]], title: ProcessTitle) -> None:
        self._entries = entries
        self._title = title
        self._pid = os.getpid()
        self._spawners: dict[int, _Spawner | None] = {}  # by pid; None is a stage that has told
        self._watched: dict[int, _Spawner] = {}  # by descriptor
        birth, self._births = passing.socket_pair()
        if birth != BIRTH_FD:
            os.dup2(birth, BIRTH_FD, inheritable=False)
        self._signals = linux.signal_descriptor(linux.SIGCHLD)
        self._poller = select.poll()
        for descriptor in (CONTROL_FD, self._births, self._signals):
            self._poller.register(descriptor, select.POLLIN)

    def serve(self) -> None:
        """Serve until the parent closes its socket. Raises OSError if a spawner may be lost."""
        while True:
            for descriptor, _ in self._poller.poll():
                if descriptor == CONTROL_FD:
                    message = passing.receive(CONTROL_FD)
                    if message is None:
                        return
                    self._fork(*message)
                elif descriptor == self._births:
                    self._take_births()
                elif descriptor == self._signals:
                    os.read(self._signals, 16 * linux.SIGNALFD_SIGINFO_SIZE)
                else:
                    self._kill_at(descriptor)
            self._reap()

    def _fork(self, frame: bytes, descriptors: list[int]) -> None:
        kind, boot, _, _ = frames.unpack(frame)
        if kind != frames.BOOT or len(descriptors) != 3:
            raise OSError(f"frame of kind {kind} with {len(descriptors)} descriptors")
        control, *watched = descriptors
        one = _Spawner(boot, watched)
        for descriptor in watched:
            self._watched[descriptor] = one
            self._poller.register(descriptor, select.POLLIN)
        try:
            # SAFETY: the only thread forks, so no lock is held by another; the child never returns from here.
            pid = os.fork()
        except OSError:  # there are too many processes, for one
            os.close(control)
            self._tell_end(one, FAILED)
            return
        if pid == 0:
            os.dup2(control, CONTROL_FD, inheritable=False)
            linux.close_range(BIRTH_FD + 1)
            os.setsid()
            self._title.set(f"kvmbox: spawner of {boot}")  # which its parent does not tell
            live(lambda: self._be_spawner(boot), spawner.fatal)
        os.close(control)
        self._spawners[pid] = one

    def _be_spawner(self, boot: int) -> None:
        def register(pid: int) -> None:
            passing.send(BIRTH_FD, frames.pack(frames.BORN, os.getpid(), pid))

        choices = ANY_LANDLOCK, linux.SECCOMP_MODE_FILTER, 0
        spawner.serve(boot, self._pid, self._entries, self._title, choices, register)

    def _take_births(self, reaped: int = 0) -> None:
        while True:
            try:
                message = passing.receive(self._births, wait=False)
            except BlockingIOError:
                return
            assert message is not None  # the other end is here, too
            _, stage, pid, _ = frames.unpack(message[0])
            born, self._spawners[stage] = self._spawners[stage], None
            assert born is not None  # it tells once
            born.pid = pid
            self._spawners[pid] = born
            passing.send(CONTROL_FD, frames.pack(frames.BORN, born.boot))
            if born.is_doomed and pid != reaped:
                os.kill(pid, linux.SIGKILL)  # not reaped yet, so the pid is still its own

    def _kill_at(self, descriptor: int) -> None:
        self._poller.unregister(descriptor)
        one = self._watched.pop(descriptor)
        one.is_doomed = True
        if one.pid:
            os.kill(one.pid, linux.SIGKILL)  # as above

    def _reap(self) -> None:
        while self._spawners and (reaped := os.waitpid(-1, os.WNOHANG))[0]:
            pid, status = reaped
            self._take_births(pid)
            dead = self._spawners.pop(pid, _Spawner(0, ()))  # killed before its stage could tell
            if dead is None:
                continue  # a stage
            if not dead.pid and status != FAILED:
                raise OSError("a spawner died while it started")
            self._tell_end(dead, status)

    def _tell_end(self, dead: _Spawner, status: int) -> None:
        if not dead.pid:
            passing.send(CONTROL_FD, frames.pack(frames.BORN, dead.boot))  # without it
        try:  # noqa: SIM105 - see the imports
            passing.send(dead.watched[0], frames.pack(frames.DIED, dead.boot, status), wait=False)
        except OSError:
            pass  # nobody wants to know
        for descriptor in dead.watched:
            if self._watched.pop(descriptor, None):
                self._poller.unregister(descriptor)
            os.close(descriptor)


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
        gc.collect()
        gc.freeze()
        served = SpawnerTemplate(entries, title)
        passing.send(CONTROL_FD, frames.pack(frames.READY))
        served.serve()

    live(life, frames.fatal)
