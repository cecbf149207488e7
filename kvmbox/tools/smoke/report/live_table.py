"""The live table on a terminal, with rich: results stay above, what runs and the progress stand below."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, TextIO

from kvmbox.tools.smoke.report.plain import WORDS, end_lines, headline, result_lines
from kvmbox.tools.smoke.report.reporter import Plan, Reporter
from kvmbox.tools.smoke.report.safe_text import in_seconds, printable
from kvmbox.tools.smoke.report.summary import Summary
from kvmbox.tools.smoke.suite.test_case import Test, TestResult, Verdict

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live

STYLES: Final = {
    Verdict.PASS: "green",
    Verdict.SKIP: "yellow",
    Verdict.TOLERATED: "yellow",
    Verdict.FLAKY: "magenta",
    Verdict.NOT_RUN: "dim",
}
MOST_SHOWN: Final = 8
"""How many running tests the table shows."""
BAR_WIDTH: Final = 30


def make_console(stream: TextIO) -> Console:
    """rich's console on `stream`. Raises ImportError where rich is not installed."""
    from rich.console import Console

    return Console(file=stream, highlight=False, markup=False, emoji=False, soft_wrap=True)


class LiveReporter(Reporter):
    """Draws on `console`. `clock` is seconds, for how long a test has been running."""

    def __init__(
        self,
        console: Console,
        *,
        clock: Callable[[], float],
        again: Callable[[Test], str] | None = None,
        quiet: bool = False,
    ) -> None:
        super().__init__()
        self._console = console
        self._clock = clock
        self._again = again
        self._quiet = quiet
        self._live: Live | None = None
        self._begun: dict[str, float] = {}
        self._done = 0
        self._failed = 0

    def begin(self, plan: Plan) -> None:
        """Show what is to be done, and the table."""
        from rich.live import Live

        super().begin(plan)
        self._print(headline(plan))
        self._live = Live(self._table((), None), console=self._console, auto_refresh=False, transient=True)
        self._live.start()

    def boot(self, test: Test) -> None:
        """Note since when it runs."""
        self._begun[test.key] = self._clock()

    def result(self, result: TestResult) -> None:
        """A line that stays."""
        self._done += 1
        self._failed += result.verdict.is_failure
        if self._quiet and not result.verdict.is_failure:
            return
        lines = result_lines(result, self._plan, self._again)
        self._print("\n".join(lines), STYLES.get(result.verdict, "bold red"), len(WORDS[result.verdict]))

    def tick(self, running: Sequence[Test], seconds_left: float | None) -> None:
        """Draw the table anew."""
        if self._live is not None:
            self._live.update(self._table(running, seconds_left), refresh=True)

    def end(self, summary: Summary) -> None:
        """Remove the table, and show the sum."""
        self.close()
        for line in end_lines(summary, self._plan):
            self._print(line)

    def close(self) -> None:
        """Remove the table."""
        if self._live is not None:
            live, self._live = self._live, None
            live.stop()

    def _table(self, running: Sequence[Test], seconds_left: float | None) -> RenderableType:
        from rich.console import Group
        from rich.text import Text

        rows = [
            Text(
                f"  RUN  {printable(self._plan.label(test))}"
                f"  {in_seconds(self._clock() - self._begun.get(test.key, self._clock()))}",
                style="cyan",
            )
            for test in running[:MOST_SHOWN]
        ]
        if len(running) > MOST_SHOWN:
            rows.append(Text(f"  ... and {len(running) - MOST_SHOWN} more"))
        count = len(self._plan.tests)
        filled = BAR_WIDTH * self._done // count if count else BAR_WIDTH
        left = (
            f", about {in_seconds(seconds_left)} left"
            if seconds_left is not None and self._done < count
            else ""
        )
        failed = f", {self._failed} failed" if self._failed else ""
        done, to_do = "━╺" if self._console.encoding.startswith("utf") else "#."
        bar = done * filled + to_do * (BAR_WIDTH - filled)
        return Group(*rows, Text(f"  {bar} {self._done}/{count}{failed}{left}"))

    def _print(self, lines: str, style: str = "", styled: int = 0) -> None:
        from rich.text import Text

        text = Text(lines)
        if style:
            text.stylize(style, 0, styled)
        self._console.print(text)
