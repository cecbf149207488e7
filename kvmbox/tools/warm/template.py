"""The template: a process that has imported all that a run needs, and forks one boot process for each run.

The template is a new interpreter, which a pool starts (`pool`). It never opens /dev/kvm or an image, and
it never reads an order or a result: so nothing of a guest can be in what boot processes inherit. It has one
thread, so that forking is safe.

It starts the template of spawners (`spawner_template`), and is ready with it. A boot process that wants a
spawner is born when the spawner is there. If the spawner template dies, this one gives up.

The template ends when the pool closes its socket, or when the thread that started the template ends. Its boot
processes get their death signal then.
"""

from __future__ import annotations

import os
import select
from itertools import chain
from typing import NoReturn

from kvmbox.base import bytecode
from kvmbox.host.files.descriptor_limit import allow_enough
from kvmbox.jail import descriptor_passing, linux
from kvmbox.jail.child_lifecycle import live, settle
from kvmbox.jail.fixed_descriptors import CONTROL_FD
from kvmbox.jail.title import ProcessTitle
from kvmbox.remote.process.spawner_client import describe_wait_status
from kvmbox.tools.warm import boot_process, frames
from kvmbox.tools.warm.client import TemplateClient
from kvmbox.tools.warm.preload import preload


class Template:
    """The serving loop and its state."""

    def __init__(self, title: ProcessTitle, spawners: TemplateClient) -> None:
        self._title = title
        self._spawners = spawners
        self._has_spawners = False
        self._boots: dict[int, int] = {}  # identifier by pid
        self._unborn: dict[int, int] = {}  # pidfds of boot processes whose spawner is not there yet, by pid
        self._signals = linux.signal_descriptor(linux.SIGCHLD)

    def serve(self) -> None:
        """Serve until the pool closes its socket."""
        poller = select.poll()
        poller.register(CONTROL_FD, select.POLLIN)
        poller.register(self._signals, select.POLLIN)
        poller.register(self._spawners.fileno(), select.POLLIN)
        while True:
            for descriptor, _ in poller.poll():
                if descriptor == CONTROL_FD:
                    message = descriptor_passing.receive(CONTROL_FD)
                    if message is None:
                        return
                    self._fork(*message)
                elif descriptor == self._spawners.fileno():
                    self._take_spawner_news()
                else:
                    os.read(self._signals, 16 * linux.SIGNALFD_SIGINFO_SIZE)
            self._reap()

    def _fork(self, frame: bytes, descriptors: list[int]) -> None:
        kind, identifier, wanted, _ = frames.unpack(frame)
        spawns = wanted and self._has_spawners
        if kind != frames.BOOT or len(descriptors) != 1:
            raise ValueError(f"frame of kind {kind} with {len(descriptors)} descriptors")
        (channel,) = descriptors
        parent = os.getpid()
        pairs: list[tuple[int, int]] = []
        try:
            for _ in range(2 if spawns else 0):  # to talk to the spawner, and its lifeline
                pairs.append(descriptor_passing.socket_pair())
            # SAFETY: the only thread forks, so no lock is held by another; the child never returns from here.
            pid = os.fork()
        except OSError as error:
            for descriptor in (channel, *chain(*pairs)):
                os.close(descriptor)
            descriptor_passing.send(CONTROL_FD, frames.pack(frames.FAILED, identifier, error.errno or 0))
            return
        if pid == 0:
            boot_process.live(channel, parent, self._title.set, [own for own, _ in pairs])
        self._boots[pid] = identifier
        self._unborn[pid] = os.pidfd_open(pid)  # before anything can reap it
        if not spawns:
            self._tell_birth(pid)
        elif not self._spawners.order(pid, [*(end for _, end in pairs), self._unborn[pid]]):
            raise OSError("the spawner template does not answer")
        for descriptor in (channel, *chain(*pairs)):
            os.close(descriptor)

    def _take_spawner_news(self) -> None:
        news = self._spawners.take_news()
        if news is None or news.kind == frames.FATAL:
            raise OSError(f"the spawner template gave up: {self._spawners.fatal or 'it said nothing'}")
        if news.kind == frames.READY:
            self._has_spawners = bool(news.number)
            descriptor_passing.send(CONTROL_FD, frames.pack(frames.READY))
        else:
            self._tell_birth(news.identifier)

    def _tell_birth(self, pid: int) -> None:
        pidfd = self._unborn.pop(pid, -1)
        if pidfd >= 0:
            descriptor_passing.send(CONTROL_FD, frames.pack(frames.BORN, self._boots[pid]), [pidfd])
            os.close(pidfd)

    def _reap(self) -> None:
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            if pid == self._spawners.pid:
                raise OSError(f"the spawner template {describe_wait_status(status)}")
            self._tell_birth(pid)
            descriptor_passing.send(CONTROL_FD, frames.pack(frames.DIED, self._boots.pop(pid), status))


def main(parent_pid: int, compiled: bool) -> NoReturn:
    """The life of the template; `parent_pid` is the pool's process."""

    def life() -> None:
        linux.close_range(CONTROL_FD + 1)
        linux.die_with_parent(parent_pid)
        title = ProcessTitle.find()
        title.set("kvmbox: template")
        linux.block_signals(linux.SIGCHLD)
        allow_enough()
        spawners = TemplateClient.start_spawners()
        preload(compiled)
        bytecode.leave()
        kept = settle()  # noqa: F841 - as long as this process forks
        Template(title, spawners).serve()
        spawners.close()

    live(life, frames.fatal)
