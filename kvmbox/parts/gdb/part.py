"""--gdb: the link that is open before the VMM confines itself, and the debugger of the machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvmbox.host.files.atomic_file import TemporaryFile
from kvmbox.host.sockets.client_link import Link
from kvmbox.host.sockets.endpoint import Endpoint
from kvmbox.parts.gdb.debugger import Debugger
from kvmbox.run.api.monitor_commands import Monitor
from kvmbox.run.part import Opening, Part, Standing

if TYPE_CHECKING:
    from collections.abc import Callable

    from kvmbox.run.result.run_result import Draft


class Gdb(Part):
    """The link of a debugger's client, which is there before there is a machine to debug."""

    def __init__(self, gdb: Endpoint) -> None:
        self._endpoint = gdb
        self._debugger: Debugger | None = None
        self._link: Link | None = None
        self._end: Callable[[], None] = lambda: None
        self.accepts = not gdb.is_pipe

    def open(self, opening: Opening) -> None:
        """See `Part`."""
        endpoint, caller = self._endpoint, opening.caller
        self._link = Link(endpoint, caller.take_stdio() if endpoint.is_pipe else None)
        if endpoint.path is not None:
            _, self._end = caller.committer([TemporaryFile(endpoint.path)])

    def attach(self, machine: Standing) -> None:
        """See `Part`."""
        assert self._link is not None
        loop = machine.loop
        self._debugger = Debugger(
            self._link,
            machine.kvm,
            machine.memory,
            machine.source.symbols,
            machine.config.cpus,
            machine.judge,
            loop.standstill,
            loop.timeless,
            loop.ends.reset,
            Monitor(machine),
            machine.say,
        )
        loop.exit_filter = self._debugger.filter_exit

    def report(self, draft: Draft) -> None:
        """Tell the client the exit status of the run."""
        if self._debugger is not None:
            self._debugger.finish(draft.status)

    def close(self) -> None:
        """Close everything, and remove the name of the socket."""
        if self._link is not None:
            self._link.close()
        self._end()


PART = Gdb
