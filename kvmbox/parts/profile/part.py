"""--profile: where the CPUs of the guest were, in a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvmbox.parts.profile.profiler import Profiling
from kvmbox.run.choices import DEFAULT_PROFILE_RATE
from kvmbox.run.part import Finding, Lost, Opening, Part, Standing

if TYPE_CHECKING:
    from kvmbox.outcome import Outcome


class Profile(Part):
    """One profile."""

    def __init__(self, profile: str, profile_rate: int | None = None) -> None:
        """`profile_rate` is in samples a second."""
        self._path = profile
        self._rate = profile_rate or DEFAULT_PROFILE_RATE
        self._profiling: Profiling | None = None

    def open(self, opening: Opening) -> None:
        """See `Part`."""
        self._profiling = Profiling(self._path, self._rate, opening.config.guest)

    def attach(self, machine: Standing) -> None:
        """See `Part`."""
        assert self._profiling is not None
        self._profiling.attach(machine.loop.standstill, machine.source.symbols)

    def ended(self, outcome: Outcome | None) -> Finding | None:
        """See `Part`."""
        del outcome
        assert self._profiling is not None
        problem = self._profiling.finish()
        return None if problem is None else Lost(problem)

    def close(self) -> None:
        """See `Part`."""
        if self._profiling is not None:
            self._profiling.close()


PART = Profile
