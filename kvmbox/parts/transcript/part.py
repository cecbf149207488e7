"""The console for --html: beginning and end of what each port has printed, in memory until the run ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvmbox.run.part import Part, Standing

if TYPE_CHECKING:
    from kvmbox.host.console.serial_ports import Console
    from kvmbox.run.result.run_result import Draft


class Transcript(Part):
    """The console keeps it (`host.console.serial_ports`), as this part is there."""

    def __init__(self, *, transcript: bool) -> None:
        """`transcript` is why the part is here."""
        del transcript
        self._console: Console

    def attach(self, machine: Standing) -> None:
        """See `Part`."""
        self._console = machine.console

    def report(self, draft: Draft) -> None:
        """See `Part`."""
        draft.facts["console"] = {port: kept.excerpt for port, kept in self._console.recent.items()}


PART = Transcript
