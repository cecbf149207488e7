"""The reports that `kvmbox smoke` writes to files, by the option that names the file."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import Any

from kvmbox.tools.smoke.report.html import HtmlReporter
from kvmbox.tools.smoke.report.jsonl import JsonLinesReporter, JsonReporter
from kvmbox.tools.smoke.report.junit import JunitReporter
from kvmbox.tools.smoke.report.markdown import MarkdownReporter
from kvmbox.tools.smoke.report.reporter import Reporter
from kvmbox.tools.smoke.report.tap_output import TapReporter
from kvmbox.tools.smoke.suite.test_case import Test, Verdict


def for_programs(
    heading: Mapping[str, Any], again: Callable[[Test], str], before: Mapping[str, Verdict]
) -> dict[str, Callable[[Callable[[str], None]], Reporter]]:
    """What makes the reporter of each option, given a function that takes its texts.

    `heading` are the first fields of JSON. `again` gives the command that runs a test alone. `before` are the
    verdicts of the last session, by key.
    """
    return {
        "--tap": TapReporter,
        "--junit": lambda write: JunitReporter(write, now=time.time, host=os.uname().nodename),
        "--json": lambda write: JsonReporter(write, heading),
        "--jsonl": JsonLinesReporter,
        "--markdown": MarkdownReporter,
        "--html": lambda write: HtmlReporter(write, clock=time.monotonic, again=again, before=before),
    }
