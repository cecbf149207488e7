"""--core, --core-always: the part of a run that leaves a core file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvmbox.parts.core_file.core_file import CoreFile
from kvmbox.run.part import Finding, Lost, Opening, Part, Standing

if TYPE_CHECKING:
    from kvmbox.outcome import Outcome
    from kvmbox.run.result import Draft


class Core(Part):
    """One core file to be."""

    def __init__(self, core: str, *, core_always: bool = False) -> None:
        self._path = core
        self._always = core_always
        self._file: CoreFile | None = None

    def open(self, opening: Opening) -> None:
        """See `Part`."""
        self._file = CoreFile(self._path, opening.caller, always=self._always, say=opening.say)

    def attach(self, machine: Standing) -> None:
        """See `Part`."""
        assert self._file is not None
        self._file.symbols = machine.source.symbols
        machine.loop.standstill.admit(self._file)

    def ended(self, outcome: Outcome | None) -> Finding | None:
        """See `Part`."""
        assert self._file is not None
        why = None if outcome is None else self._file.missing(outcome)
        return None if why is None else Lost(why)

    def report(self, draft: Draft) -> None:
        """See `Part`."""
        assert self._file is not None
        draft.facts["core"] = self._file.path

    def close(self) -> None:
        """See `Part`."""
        if self._file is not None:
            self._file.close()


PART = Core
