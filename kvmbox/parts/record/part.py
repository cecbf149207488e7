"""--record: a recording of the requests and replies of all device processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvmbox.parts.record.recorder import Recorder
from kvmbox.remote.process.device_pool import PER_DEVICE
from kvmbox.run.part import Finding, Lost, Opening, Part

if TYPE_CHECKING:
    from kvmbox.base.outcome import Outcome


class Record(Part):
    """One recording."""

    def __init__(self, record: str, record_limit: int | None = None) -> None:
        """`record_limit` is in bytes."""
        self._path = record
        self._limit = record_limit
        self._recorder: Recorder | None = None

    def open(self, opening: Opening) -> None:
        """See `Part`."""
        config = opening.config
        self._recorder = Recorder(
            self._path,
            opening.board,
            per_device=config.design.sandbox == PER_DEVICE,
            inject=[spec.text for spec in config.of_part("inject")],
            limit=self._limit,
            start=False,
            say=opening.say,
        )
        opening.tap = self._recorder.of

    def start(self) -> None:
        """See `Part`."""
        assert self._recorder is not None
        self._recorder.start()

    def ended(self, outcome: Outcome | None) -> Finding | None:
        """See `Part`."""
        del outcome
        assert self._recorder is not None
        problem = self._recorder.finish()
        return None if problem is None else Lost(problem, announced=True)

    def close(self) -> None:
        """See `Part`."""
        if self._recorder is not None:
            self._recorder.finish()


PART = Record
