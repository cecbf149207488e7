"""The report of a guest that has come to a bad end: wanted at such an end, and before it by --source."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kvmbox.base.outcome import CLEAN, UNEXPECTED, Outcome
from kvmbox.parts.crash_report.examination import Examination, examine, last_lines_of, no_source
from kvmbox.parts.crash_report.hang_profile import HangProfile
from kvmbox.parts.crash_report.source_tree import SourceTree
from kvmbox.run.loop.vcpu_pause import Visitor
from kvmbox.run.part import Opening, Part, Standing

if TYPE_CHECKING:
    from kvmbox.base.symbol_file import SymbolFile
    from kvmbox.host.console.serial_ports import Console
    from kvmbox.run.machine.one_boot import Boot
    from kvmbox.run.result.run_result import Draft


class CrashReport(Part, Visitor):
    """Examines the vCPUs when the guest has ended, and samples them when its time is over."""

    def __init__(self, source: Sequence[str] = ()) -> None:
        """`source` are directories with source files."""
        self._source = source
        self._tree: SourceTree | None = None
        self._symbols: Sequence[SymbolFile] = ()
        self._console: Console | None = None
        self._profile: HangProfile | None = None
        self._found = Examination()

    def open(self, _opening: Opening) -> None:
        """See `Part`."""
        if self._source:
            self._tree = SourceTree(self._source)
            self.readable = self._tree.directories

    def attach(self, machine: Standing) -> None:
        """See `Part`."""
        self._symbols, self._console = machine.source.symbols, machine.console
        machine.loop.standstill.admit(self)

    def timed_out(self, boot: Boot) -> None:
        """See `Visitor`."""
        self._profile = HangProfile.of(boot.vcpus)

    def boot_ends(self, boot: Boot, end: Outcome | None) -> None:
        """See `Visitor`."""
        if end is not None:
            text = no_source if self._tree is None else self._tree.line
            self._found = examine(boot.vcpus, boot.guest.memory, end, self._symbols, self._profile, text)

    def report(self, draft: Draft) -> None:
        """See `Part`. The guest's state tells more than a hint that fits any such end."""
        if draft.status in (CLEAN, UNEXPECTED):
            return
        found = self._found
        if found.diagnosis is not None:
            draft.hint = found.diagnosis
        draft.facts["cpus"] = found.cpus
        if not found.report:
            return
        lines = () if self._console is None else last_lines_of(self._console.last_lines())
        draft.facts["last_lines"] = lines
        last = [f"Last line of {port}: {text}" for port, text in lines]
        draft.report = "\n".join((found.report, *last))
        draft.summary = "\n".join((found.summary, *last))

    def close(self) -> None:
        """See `Part`."""
        if self._tree is not None:
            self._tree.close()


PART = CrashReport
