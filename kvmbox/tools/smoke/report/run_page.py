"""A page for people of one run: how it ended, what each port printed, the screen, and the crash report."""

from __future__ import annotations

from kvmbox.run.result.run_result import Ending, RunResult
from kvmbox.run.result.statistics_as_text import format_stats
from kvmbox.tools.html.html_page import block, facts, page
from kvmbox.tools.smoke.report.html import seen
from kvmbox.tools.smoke.report.page_screen import Screens
from kvmbox.tools.smoke.report.safe_text import in_seconds


def run_page(command: str, ending: Ending, messages: str, wall: int) -> str:
    """The page. `command` is the line that was typed, `wall` the time that it took in ns."""
    fields = {"command": command, "status": str(ending.status), "time": in_seconds(wall / 1e9)}
    fields |= {"hint": ending.hint} if ending.hint else {}
    consoles, more = {}, ""
    if isinstance(ending, RunResult):
        fields |= {"core file": ending.core} if ending.core else {}
        consoles = {f"Console {port}": output for port, output in ending.facts["console"].items()}
        statistics = block(format_stats(ending.statistics, wall))
        screen = None if ending.screen is None else ending.screen.as_json()
        more = Screens().shown(screen, level=2)
        more += f"<details><summary>Statistics</summary>{statistics}</details>\n"
    return page(
        f"kvmbox run: {ending.reason}", facts(fields) + seen(ending, consoles, messages, level=2) + more
    )
