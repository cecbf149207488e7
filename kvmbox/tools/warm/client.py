"""The other side of a template: start it, have it fork processes, hear of them, end it.

A pool has the template of boot processes, which has the template of their spawners.
Everything here belongs to the thread that starts the template: the template's death signal fires when this
thread ends (prctl(2), PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final, NamedTuple

from kvmbox.base.compiled import is_compiled
from kvmbox.base.errors import StartError
from kvmbox.jail import descriptor_passing
from kvmbox.remote.process import interpreter, spawner_client
from kvmbox.remote.process.spawner_client import device_entry, is_readable
from kvmbox.tools.warm import frames

INTERPRETER_FLAGS: Final = ("-P", "-X", "utf8")

END_PATIENCE_MS: Final = 2_000
"""How long a template may take to end, once its socket is closed."""


class News(NamedTuple):
    """A frame of the template. `descriptor` is a boot process's pidfd for BORN, else -1."""

    kind: int
    identifier: int
    number: int
    text: str
    descriptor: int


class TemplateClient:
    """One template process."""

    def __init__(self, pid: int, pidfd: int, control: int) -> None:
        """Use `start`."""
        self.pid = pid
        self.ready = False
        """Whether it has imported everything."""
        self.retired = False
        """Whether it is to fork no more boot processes."""
        self.served = 0
        """How many boots it has had."""
        self.fatal = ""
        """Why it has given up, if it has said so."""
        self._pidfd = pidfd
        self._control = control

    @classmethod
    def start(cls) -> TemplateClient:
        """Start one of boot processes; returns before it is ready. Raises StartError."""
        code = f"from kvmbox.tools.warm.template import main; main({os.getpid()}, {is_compiled()})"
        return cls._start("a warm worker", code, INTERPRETER_FLAGS, os.environ)

    @classmethod
    def start_spawners(cls) -> TemplateClient:
        """Start one of spawners, without an environment, as a VMM starts its spawner. See `start`."""
        module = "kvmbox.tools.warm.spawner_template"
        code = f"from {module} import main; main({os.getpid()}, {(device_entry(),)!r})"
        code = f"bytecode.load('spawner'); {code}"
        return cls._start("the spawner template", code, spawner_client.INTERPRETER_FLAGS, {})

    @classmethod
    def _start(
        cls, name: str, code: str, flags: Sequence[str], environment: Mapping[str, str]
    ) -> TemplateClient:
        try:
            return cls(*interpreter.start(name, code, flags, environment, StartError))
        except OSError as error:
            raise StartError(f"cannot start {name}: {error.strerror}", hint="see 'ulimit -n'") from error

    def fileno(self) -> int:
        """For poll: readable when `take_news` has something to do."""
        return self._control

    def order(self, identifier: int, ends: Sequence[int], *, spawns: bool = False) -> bool:
        """Have a process forked, which gets the descriptors `ends`. A boot process with `spawns` has the
        spawner of a plain run at once. False if the template cannot be asked.
        """
        try:
            descriptor_passing.send(
                self._control, frames.pack(frames.BOOT, identifier, spawns), ends, wait=False
            )
        except OSError:  # it has died, or is behind with its work
            return False
        return True

    def take_news(self) -> News | None:
        """The next frame, or None at the end of file. Raises BlockingIOError if there is none yet."""
        message = descriptor_passing.receive(self._control, wait=False)
        if message is None:
            return None
        frame, descriptors = message
        kind, identifier, number, text = frames.unpack(frame)
        if kind == frames.READY:
            self.ready = True
        elif kind == frames.FATAL:
            self.fatal = text
        return News(kind, identifier, number, text, descriptors[0] if descriptors else -1)

    def close(self) -> None:
        """End it, and with it what it has forked. Never raises. Idempotent."""
        if self._control < 0:
            return
        os.close(self._control)
        self._control = -1
        if not is_readable(self._pidfd, END_PATIENCE_MS):
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        with suppress(ChildProcessError):  # a program that ignores SIGCHLD has the kernel reap
            os.waitpid(self.pid, 0)
        os.close(self._pidfd)
