"""What a program asks of a machine that runs: a call is made while all vCPUs stand still."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from kvmbox.base.errors import DeviceProcessError
from kvmbox.run.loop.vcpu_pause import Visitor

if TYPE_CHECKING:
    from kvmbox.run.part import Standing

GUEST_ENDED = "the guest ended before"

Answer = TypeVar("Answer")
Call = Callable[["Standing"], Callable[[], Answer]]
"""Looks at a machine that stands still; returns what gives the answer, once the guest goes on. Both are
called by the main loop. Raises DeviceProcessError, or anything for who asks."""


class NoMachineError(Exception):
    """There is no machine any more that stands still; the text says why."""


class _Request(Generic[Answer]):
    """One call that somebody waits for."""

    def __init__(self, call: Call[Answer]) -> None:
        self.call = call
        self.done = threading.Event()
        self.answers: list[Answer] = []
        """The answer, once there is one."""
        self.error: Exception = NoMachineError(GUEST_ENDED)
        """What is raised if there is none."""

    def begin(self, machine: Standing) -> Callable[[], None]:
        """Make the call; returns what ends it. What goes wrong is the business of who asks, unless a device
        process has failed: that is raised, too.
        """
        try:
            finish = self.call(machine)
        except DeviceProcessError as error:
            self.error = NoMachineError(str(error))
            raise
        except Exception as error:  # noqa: BLE001 - raised again in who asks
            self.error = error
            return self.done.set
        return lambda: self._finish(finish)

    def _finish(self, finish: Callable[[], Answer]) -> None:
        try:
            self.answers.append(finish())
        except Exception as error:  # noqa: BLE001 - as above
            self.error = error
        finally:
            self.done.set()


class Requests(Visitor):
    """The requests of one machine. `ask` on any thread but the main loop's; everything else by that."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wanted: deque[_Request[Any]] = deque()
        self._open: list[_Request[Any]] = []
        """Those that have begun, and that somebody may still wait for."""
        self._machine: Standing | None = None
        self._ended = False

    def ask(self, call: Call[Answer]) -> Answer:
        """Make a call while the machine stands still, and return its answer, or raise what it raises.

        Raises NoMachineError if the guest has ended, or ends before that.
        """
        request = _Request(call)
        with self._lock:
            if self._ended:
                raise NoMachineError(GUEST_ENDED)
            self._wanted.append(request)
            machine = self._machine
        if machine is not None:
            machine.loop.standstill.call()
        request.done.wait()
        if not request.answers:
            raise request.error
        return request.answers[0]

    # --- The main loop's ----------------------------------------------------------------------------------

    def attach(self, machine: Standing) -> None:
        """From now on, this is the machine."""
        with self._lock:
            self._machine = machine
            waiting = bool(self._wanted)
        machine.loop.standstill.admit(self)
        if waiting:
            machine.loop.standstill.call()

    @property
    def wants(self) -> bool:
        """See `Visitor`."""
        return bool(self._wanted)

    def visit(self) -> Callable[[], None]:
        """Make the calls. Raises DeviceProcessError: then the run ends, and with it what is waited for."""
        assert self._machine is not None
        self._open = [request for request in self._open if not request.done.is_set()]
        begun: list[Callable[[], None]] = []
        try:
            while self._wanted:
                begun.append(self._wanted[0].begin(self._machine))
                self._open.append(self._wanted.popleft())
        except DeviceProcessError:
            _finish(begun)
            raise
        return partial(_finish, begun)

    def end(self) -> None:
        """The guest has ended, or will not run: nobody waits any longer."""
        with self._lock:
            self._ended = True
            left = [*self._wanted, *self._open]
            self._wanted.clear()
        for request in left:
            request.done.set()


def _finish(begun: Iterable[Callable[[], None]]) -> None:
    for finish in begun:
        finish()
