"""A page for people: what became of each test, its console and crash report, and which boots ran when."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from kvmbox.base.value_classes import Value
from kvmbox.host.console.last_lines import Excerpt, excerpt
from kvmbox.run.result.run_result import Ending
from kvmbox.tools.html.html_page import block, facts, page, text
from kvmbox.tools.smoke.report.page_screen import Screens
from kvmbox.tools.smoke.report.reporter import Reporter
from kvmbox.tools.smoke.report.safe_text import decode, in_seconds
from kvmbox.tools.smoke.report.summary import Summary
from kvmbox.tools.smoke.suite.test_case import Attempt, Test, TestResult, Verdict

MOST_BARS: Final = 5000
"""How many boots the timeline has."""

_WIDTH, _LANE, _LEFT = 1000, 20, 70
"""Of the timeline: its width, the height of a lane, and where the lanes begin."""


class Span(Value):
    """A boot: of which test, how it was judged, and from when to when in seconds of the session."""

    label: str
    verdict: Verdict
    start: float
    end: float


class HtmlReporter(Reporter):
    """The one text is the page, at the end.

    `clock` is seconds. `again` gives the command that runs a test alone. `before` are the verdicts of the
    last session, by key.
    """

    def __init__(
        self,
        write: Callable[[str], None],
        *,
        clock: Callable[[], float],
        again: Callable[[Test], str],
        before: Mapping[str, Verdict],
    ) -> None:
        super().__init__(write)
        self._clock = clock
        self._again = again
        self._before = before
        self._began = clock()
        self._running: dict[str, list[float]] = {}
        self._spans: list[Span] = []
        self._screens = Screens()

    def boot(self, test: Test) -> None:
        """See Reporter."""
        self._running.setdefault(test.key, []).append(self._clock() - self._began)

    def attempt(self, test: Test, attempt: Attempt) -> None:
        """See Reporter. Of two boots of a test that run, which one has ended does not matter to a picture."""
        start = self._running[test.key].pop(0)
        end = self._clock() - self._began
        self._spans.append(Span(self._plan.label(test), attempt.judgement.verdict, start, end))

    def end(self, summary: Summary) -> None:
        """Write the page."""
        line = f"{summary.boots} boots in {in_seconds(summary.seconds)}"
        if summary.stopped:
            line += f"; ended early: {summary.stopped}"
        order = sorted(summary.results, key=lambda one: not one.verdict.is_failure)
        body = [
            f'<p class="dim">{text(line)}</p>',
            timeline(self._spans[:MOST_BARS], summary.seconds),
            _filters(summary.results),
            "<h2>Tests</h2>",
            *map(self._entry, order),
        ]
        self._write(page(f"kvmbox smoke: {summary.words}", "\n".join(body)))

    def _entry(self, result: TestResult) -> str:
        label, verdict = self._plan.label(result.test), result.verdict
        time = f'<span class="dim">{in_seconds(result.seconds)}</span>' if result.boots else ""
        decisive = None if result.decisive is None else result.decisive.observation
        shown = ""
        if decisive is not None:
            shown = seen(decisive, {"Console": excerpt(decisive.output)}, decisive.messages, level=3)
            shown += self._screens.shown(decisive.screen, level=3)
        return (
            f'<details data-kind="{verdict.value}" data-text="{text(f"{label} {result.reason}".lower())}"'
            f"{' open' if verdict.is_failure else ''}>\n"
            f'<summary><span class="verdict {_class(verdict)}">{verdict.value}</span>'
            f'<span class="name">{text(label)}</span>{time}<span class="why">{text(result.reason)}</span>'
            f"</summary>\n{self._facts(result)}{shown}</details>"
        )

    def _facts(self, result: TestResult) -> str:
        entries = {"from": str(result.test.origin)}
        before = self._before.get(result.test.key)
        if before is not None and before is not result.verdict:
            entries["last time"] = before.value
        if result.boots > 1:
            entries["boots"] = f"{result.passed} of {result.boots} passed"
        if result.decisive is not None and result.decisive.observation.hint:
            entries["hint"] = result.decisive.observation.hint
        entries |= {f"kept {number}": file for number, file in enumerate(result.files, 1)}
        if result.verdict.is_failure:
            entries["again"] = self._again(result.test)
        return facts(entries)


def seen(ending: Ending, consoles: Mapping[str, Excerpt], messages: str, *, level: int) -> str:
    """What is told of a boot: consoles by their titles, the crash report, and kvmbox's own words. `level` is
    that of the headings.
    """
    parts = {title: _console(kept) for title, kept in consoles.items()}
    texts = {"Crash report": ending.summary, "Messages of kvmbox": messages}
    parts |= {title: block(part) for title, part in texts.items() if part.strip()}
    shown = "".join(f"<h{level}>{text(title)}</h{level}>\n{part}" for title, part in parts.items() if part)
    if ending.crash_report != ending.summary:
        whole = block(ending.crash_report)
        shown += f"<details><summary>The whole crash report</summary>{whole}</details>\n"
    return shown


def _console(kept: Excerpt) -> str:
    if not kept.cut:
        whole = decode(kept.head + kept.tail)
        return block(whole) if whole.strip() else ""
    cut = f'<p class="dim">{kept.cut} bytes of the console are left out here.</p>\n'
    return f"{block(decode(kept.head))}{cut}{block(decode(kept.tail))}"


def _class(verdict: Verdict) -> str:
    return "pass" if verdict is Verdict.PASS else "fail" if verdict.is_failure else "other"


def _filters(results: Sequence[TestResult]) -> str:
    """What the page's script listens to; hidden where there are no scripts."""
    counts = Counter(result.verdict for result in results)
    boxes = " ".join(
        f'<label><input type="checkbox" value="{one.value}" checked> {one.value} ({counts[one]})</label>'
        for one in Verdict
        if counts[one]
    )
    return (
        f"<form hidden><fieldset><legend>Show</legend>{boxes}"
        '<label>with the words <input type="search"></label><output class="dim"></output></fieldset></form>'
    )


def timeline(spans: Sequence[Span], seconds: float) -> str:
    """Which boots ran when, as SVG: a lane for each that ran at the same time."""
    if not spans:
        return ""
    free: list[float] = []  # by lane: when its last boot ended
    bars = []
    scale = (_WIDTH - _LEFT) / max(seconds, *(one.end for one in spans), 1e-9)
    for one in sorted(spans, key=lambda span: span.start):
        lane = next((number for number, end in enumerate(free) if end <= one.start), len(free))
        free[lane : lane + 1] = [one.end]
        title = f"{one.label}: {one.verdict.value}, {in_seconds(one.end - one.start)}"
        width = max((one.end - one.start) * scale - 0.5, 0.5)
        bar = _rect(_class(one.verdict), _LEFT + one.start * scale, lane, width)
        bars.append(f"{bar}<title>{text(title)}</title></rect>")
    height = len(free) * _LANE
    lanes = "".join(
        f'<text x="0" y="{number * _LANE + 14}">worker {number + 1}</text>'
        f"{_rect('lane', _LEFT, number, _WIDTH - _LEFT)}</rect>"
        for number in range(len(free))
    )
    ends = (
        f'<text x="{_LEFT}" y="{height + 14}">0 s</text>'
        f'<text x="{_WIDTH}" y="{height + 14}" text-anchor="end">{in_seconds(seconds)}</text>'
    )
    return (
        f'<h2>Timeline</h2>\n<div class="chart" tabindex="0" role="group" aria-label="timeline">'
        f'<svg viewBox="0 0 {_WIDTH} {height + 20}" role="img" aria-label="when each boot ran">'
        f"{lanes}{''.join(bars)}{ends}</svg></div>"
    )


def _rect(kind: str, x: float, lane: int, width: float) -> str:
    """A rectangle that is not closed yet."""
    size = f'width="{width:.1f}" height="{_LANE - 4}"'
    return f'<rect class="{kind}" x="{x:.1f}" y="{lane * _LANE + 2}" {size}>'
