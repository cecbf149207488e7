"""What a program asks of a machine that runs: a call is made while all vCPUs stand still."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from kvmbox.run.standstill import Visitor

if TYPE_CHECKING:
    from kvmbox.run.part import Standing

GUEST_ENDED = "the guest ended before"

Answer = TypeVar("Answer")
Call = Callable[["Standing"], Callable[[], Answer]]
"""Looks at a machine that stands still; returns what gives the answer, once the guest goes on.

Raises DeviceProcessError."""


class NoMachineError(Exception):
    """There is no machine any more that stands still; the text says why."""


class _Request(Generic[Answer]):
    """One call that somebody waits for."""

    def __init__(self, call: Call[Answer]) -> None:
        self.call = call
        self.done = threading.Event()
        self.finish: Callable[[], Answer] | None = None
        self.problem = GUEST_ENDED


class Requests(Visitor):
    """The requests of one machine. `ask` on any thread but the main loop's; everything else by that."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wanted: deque[_Request[Any]] = deque()
        self._machine: Standing | None = None
        self._ended = False

    def ask(self, call: Call[Answer]) -> Answer:
        """Make a call while the machine stands still, and return its answer.

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
        if request.finish is None:
            raise NoMachineError(request.problem)
        return request.finish()

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
        answered: list[_Request[Any]] = []
        try:
            while self._wanted:
                request = self._wanted[0]
                try:
                    request.finish = request.call(self._machine)
                except BaseException as error:
                    request.problem = str(error) or type(error).__name__
                    raise
                answered.append(self._wanted.popleft())
        except BaseException:
            _tell(answered)
            raise
        return lambda: _tell(answered)

    def end(self) -> None:
        """The guest has ended, or will not run: nobody waits any longer."""
        with self._lock:
            self._ended = True
            left, self._wanted = self._wanted, deque()
        _tell(left)


def _tell(requests: deque[_Request[Any]] | list[_Request[Any]]) -> None:
    for request in requests:
        request.done.set()
