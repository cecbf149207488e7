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
template never does, or the end, it kills the spawner. It can do so whatever the spawner does. Device
processes die with their spawner, as ever. A spawner dies with the template, by its death signal.

The stage of a spawner tells the template who the spawner is, and only then the boot process is born. A stage
that dies before may have left a spawner that nobody knows: then the template gives up, and all spawners end.
"""

from __future__ import annotations

import gc
import os
import select

from kvmbox import bytecode
from kvmbox.devices import catalog
from kvmbox.jail import linux, passing, spawner
from kvmbox.jail.descriptors import CONTROL_FD
from kvmbox.jail.title import ProcessTitle
from kvmbox.tools.warm import frames

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Final, NoReturn

# What is imported here is in every device process: no contextlib, no functools.

BIRTH_FD: Final = 4
"""Where a stage tells the template who the spawner is. The spawner has it until it is confined."""

ANY_LANDLOCK: Final = 1000
"""A limit on the Landlock ABI that is none."""


class _Spawner:
    """One spawner, or its stage."""

    def __init__(self, boot: int, lifeline: int) -> None:
        self.boot = boot
        self.lifeline = lifeline
        self.is_born = False
        self.is_killed = False


class SpawnerTemplate:
    """The serving loop and its state."""

    def __init__(self, entries: Sequence[Callable[..., int | None]], title: ProcessTitle) -> None:
        self._entries = entries
        self._title = title
        self._pid = os.getpid()
        self._spawners: dict[int, _Spawner] = {}  # by pid
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
        if kind != frames.BOOT or len(descriptors) != 2:
            raise OSError(f"frame of kind {kind} with {len(descriptors)} descriptors")
        control, lifeline = descriptors
        # SAFETY: the only thread forks, so no lock is held by another; the child never returns from here.
        pid = os.fork()
        if pid == 0:
            os.dup2(control, CONTROL_FD, inheritable=False)
            linux.close_range(BIRTH_FD + 1)
            self._title.set(f"kvmbox: spawner of {boot}")  # which its parent does not tell
            spawner.live(lambda: self._be_spawner(boot))
        os.close(control)
        self._spawners[pid] = _Spawner(boot, lifeline)
        self._poller.register(lifeline, select.POLLIN)

    def _be_spawner(self, boot: int) -> None:
        def register(pid: int) -> None:
            passing.send(BIRTH_FD, frames.pack(frames.BORN, boot, pid))

        choices = ANY_LANDLOCK, linux.SECCOMP_MODE_FILTER, 0
        spawner.serve(boot, self._pid, self._entries, self._title, choices, register)

    def _take_births(self) -> None:
        while True:
            try:
                message = passing.receive(self._births, wait=False)
            except BlockingIOError:
                return
            assert message is not None  # the other end is here, too
            _, boot, pid, _ = frames.unpack(message[0])
            (stage,) = [key for key, one in self._spawners.items() if one.boot == boot]
            born = self._spawners[pid] = self._spawners.pop(stage)
            born.is_born = True
            passing.send(CONTROL_FD, frames.pack(frames.BORN, boot))

    def _kill_at(self, lifeline: int) -> None:
        self._poller.unregister(lifeline)
        for pid, one in self._spawners.items():
            if one.lifeline == lifeline:
                one.is_killed = True
                os.kill(pid, linux.SIGKILL)  # not reaped yet, so the pid is still its own

    def _reap(self) -> None:
        while self._spawners:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            self._take_births()
            dead = self._spawners.pop(pid, None)
            if dead is None:
                continue  # a stage
            if not dead.is_born:
                raise OSError("a spawner died while it started")
            self._tell_end(dead, status)

    def _tell_end(self, dead: _Spawner, status: int) -> None:
        if not dead.is_killed:
            self._poller.unregister(dead.lifeline)
        try:  # noqa: SIM105 - see the imports
            passing.send(dead.lifeline, frames.pack(frames.DIED, dead.boot, status), wait=False)
        except OSError:
            pass  # nobody wants to know
        os.close(dead.lifeline)


def main(parent_pid: int, entry_names: Sequence[str]) -> NoReturn:
    """The life of the spawner template; `parent_pid` is the template of boot processes."""
    status = 1
    try:
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
        status = 0
    except BaseException as error:  # noqa: BLE001 - told to the parent, then the process ends
        passing.send(CONTROL_FD, frames.pack(frames.FATAL, text=f"{type(error).__name__}: {error}"))
    finally:
        os._exit(status)
