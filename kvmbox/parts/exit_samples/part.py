"""Which instructions make the exits: the part behind --stats and --json."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kvmbox.parts.exit_samples.exit_sources import ExitSampler
from kvmbox.run.part import Part, Standing

if TYPE_CHECKING:
    from kvmbox.run.result import Draft
    from kvmbox.symbol_file import SymbolFile


class ExitSamples(Part):
    """A sample of the exits of a run."""

    def __init__(self, *, sample_exits: bool = True) -> None:
        del sample_exits  # it is why the part is here
        self._sampler = ExitSampler()
        self._symbols: Sequence[SymbolFile] = ()

    def attach(self, machine: Standing) -> None:
        """See `Part`."""
        self._symbols = machine.source.symbols
        machine.loop.standstill.admit(self._sampler)

    def report(self, draft: Draft) -> None:
        """See `Part`."""
        draft.facts["exit_sources"] = self._sampler.report(self._symbols)


PART = ExitSamples
