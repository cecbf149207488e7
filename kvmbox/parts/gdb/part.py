"""The start and the end of --gdb: what must be open before the VMM confines itself, and what closes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from kvmbox.errors import StartError
from kvmbox.parts.gdb.debugger import Debugger
from kvmbox.parts.gdb.endpoint import Endpoint
from kvmbox.parts.gdb.link import Link, SocketFile
from kvmbox.run.caller import Caller

if TYPE_CHECKING:
    from collections.abc import Callable

    from kvmbox.board import DeviceSpec
    from kvmbox.kvm.system import Kvm
    from kvmbox.outcome import Decision
    from kvmbox.parts.crash_report.aftermath import SymbolContent
    from kvmbox.run.loop import MainLoop


class GdbStart:
    """The link of --gdb, which is there before there is a machine to debug."""

    def __init__(self, endpoint: Endpoint, caller: Caller) -> None:
        """Open it. Raises UsageError and StartError."""
        self._debugger: Debugger | None = None
        self._end: Callable[[], None] | None = None
        self._link: Final = Link(endpoint, caller.take_stdio() if endpoint.is_pipe else None)
        self.accepts: Final = not endpoint.is_pipe
        """Whether a client will connect when the VMM has confined itself."""
        if endpoint.path is not None:
            try:
                _, self._end = caller.committer([SocketFile(endpoint.path)])
            except OSError as error:
                self._link.close()
                raise StartError(f"--gdb: cannot start a process: {error.strerror}") from error

    def attend(
        self,
        kvm: Kvm,
        board: Sequence[DeviceSpec],
        symbols: Sequence[SymbolContent],
        cpus: int,
        decision: Decision,
        main_loop: MainLoop,
        screen: Callable[[], str],
        say: Callable[[str], None],
    ) -> None:
        """The machine is about to run: see `Debugger`."""
        self._debugger = Debugger(
            self._link,
            kvm,
            board,
            symbols,
            cpus,
            decision,
            main_loop.standstill,
            main_loop.timeless,
            main_loop.reset,
            screen,
            say,
        )
        main_loop.debugger = self._debugger

    def finish(self, status: int) -> None:
        """Tell the client the exit status of the run."""
        if self._debugger is not None:
            self._debugger.finish(status)

    def close(self) -> None:
        """Close everything, and remove the name of the socket."""
        self._link.close()
        if self._end is not None:
            self._end()
            self._end = None
