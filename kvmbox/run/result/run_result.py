"""How a run ended, and what it did: one value, from the end of the run to whoever wants to know.

A `Draft` is put together at the end of a run: the outcome first, and then each part adds what it has to
tell. What comes of it is the `RunResult`.

Whoever only hears of the run has an `Ending` too: a program with warm workers, a suite of guests. An ending
travels as JSON in one encoding: in the file of `--json`, from a boot process, from another machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Self

from kvmbox.base.value_classes import Value

if TYPE_CHECKING:
    from kvmbox.base.outcome import Outcome
    from kvmbox.run.display.screen_protocol import TextScreen
    from kvmbox.run.result.run_statistics import RunStats


class Ending(Value):
    """How a run ended.

    `status` is the exit status of `kvmbox run`: an odd status comes from the guest, an even one from
    kvmbox. `reason` says why in a few words, `hint` what to do about it. `crash_report` has all that is
    known of a guest that crashed, and `summary` the most important lines of it; without a crash, both are
    empty.
    """

    status: int
    reason: str
    hint: str | None
    crash_report: str
    summary: str
    _shown = ("status", "reason")

    def encoded(self) -> dict[str, Any]:
        """The ending as data for JSON."""
        fields = self.status, self.reason, self.hint, self.crash_report, self.summary
        return dict(zip(ENDING, fields, strict=True))

    @classmethod
    def decoded(cls, data: Mapping[str, Any], **more: Any) -> Self:
        """The ending that `encoded` has made data of. `more` is what a value has that inherits from it."""
        return cls(*(data[name] for name in ENDING), **more)


Kinds = Mapping[str, tuple[type, ...]]
"""By the name of a field: the types that its value may have."""

ENDING: Final[Kinds] = {
    "status": (int,),
    "reason": (str,),
    "hint": (str, type(None)),
    "report": (str,),
    "summary": (str,),
}
"""What `Ending.encoded` gives, in the order of the fields."""


class RunResult(Ending):
    """How a run ended, and what it did.

    `output` is what the Capture of the console has kept. `failed` is true if `kvmbox run` would print an
    error. `facts` are what the parts of the run have found, by name.
    """

    failed: bool
    output: bytes
    statistics: RunStats
    facts: Mapping[str, Any]

    @property
    def cpus(self) -> tuple[dict[str, Any], ...]:
        """Each CPU explained as data, where the crash report does: see docs/debugging.md."""
        return tuple(self.facts.get("cpus", ()))

    @property
    def core(self) -> str | None:
        """The path of the core file, if one was written."""
        path: str | None = self.facts.get("core")
        return path

    @property
    def screen(self) -> TextScreen | None:
        """What was on the text screen; None if nothing was."""
        screen: TextScreen | None = self.facts.get("screen")
        return screen

    @property
    def last_lines(self) -> tuple[tuple[str, str], ...]:
        """The name and the last line of each console port, where there is a crash report."""
        return tuple(self.facts.get("last_lines", ()))

    def as_json(self, wall_time: int) -> dict[str, Any]:
        """The result as data for JSON, but for the output. `wall_time` is that of the command, in ns."""
        found = {
            "cpus": self.cpus,
            "last_lines": dict(self.last_lines),
            "core": self.core,
            **{name: list(self.facts.get(name, ())) for name in ("disks", "nets")},
            "screen": None if self.screen is None else self.screen.as_json(),
            "wall_time": wall_time,
        }
        return self.encoded() | found | self.statistics.as_json()


class Draft:
    """The result of a run while it is put together. `facts` are by name, as parts give them."""

    def __init__(self, outcome: Outcome) -> None:
        self.status = outcome.status
        self.reason = outcome.reason
        self.failed = outcome.error
        self.hint = outcome.hint
        """What to do about it. A part that knows better replaces it."""
        self.more_hints: list[str] = []
        self.report = self.summary = outcome.report
        self.appendix: list[str] = []
        """Lines that follow the report, whichever part has written that."""
        self.facts: dict[str, Any] = {}

    def finished(self, statistics: RunStats, output: bytes) -> RunResult:
        """The result."""
        report, summary = (
            "\n".join((one, *self.appendix)).strip("\n") for one in (self.report, self.summary)
        )
        return RunResult(
            self.status,
            self.reason,
            "; ".join(hint for hint in (self.hint, *self.more_hints) if hint) or None,
            report,
            summary,
            self.failed,
            output,
            statistics,
            self.facts,
        )
