"""One session of `kvmbox smoke`: its tests run, here or elsewhere, and its reports are written."""

from __future__ import annotations

import io
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from kvmbox.host.process import early_signals

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from kvmbox.tools.smoke.execute.executor import Executor
    from kvmbox.tools.smoke.report.history import History
    from kvmbox.tools.smoke.report.reporter import Plan
    from kvmbox.tools.smoke.report.summary import Summary
    from kvmbox.tools.smoke.suite.test_case import Test


def run_tests(
    plan: Plan, options: Mapping[str, Any], history: History, files: tuple[Sequence[str], str | None]
) -> Summary:
    """Run the tests, and write the reports. `files` were read, and is to keep the history."""
    from kvmbox.cli.smoke.reporters import REPORTS, ReportContext, open_reporters
    from kvmbox.tools.smoke.execute.engine import Engine
    from kvmbox.tools.smoke.report.artefacts import Artefacts
    from kvmbox.tools.smoke.report.progress import Progress

    timeout, logs, record, core = (options[name] for name in ("timeout", "logs", "record", "core"))
    runner, skip = _executor(options["jobs"], options["dask"])
    # From here on a signal is answered in order: every report is complete, whenever it comes.
    early_signals.raising = False
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names may have letters that the terminal has not
    reports = {flag: options[name] for flag, name in REPORTS.items()}
    with ExitStack() as stack:
        with runner as executor:
            plan = plan.replaced(slots=executor.slots)
            context = ReportContext(options["plain"], options["quiet"], timeout, plan.tests, history.verdicts)
            summary = Engine(
                Progress(plan.tests, repeat=plan.repeat, fail_fast=options["fail_fast"], skip=skip),
                executor,
                open_reporters(stack, reports, *files, context),
                plan=plan,
                timeout=timeout,
                artefacts=None if logs is None else Artefacts(logs, record=record, core=core),
                interrupted=lambda: bool(early_signals.received),
                durations=history.seconds,
            ).run()
        # The reports have told the status: a signal that comes now does not change it.
        early_signals.answered = True
    return summary


def _executor(jobs: int, dask: str | None) -> tuple[Executor, Callable[[Test], str | None]]:
    """What boots, this machine or the workers of a Dask scheduler; and why a test is skipped there."""
    from kvmbox.tools.smoke.execute.host_requirements import why_skipped

    if dask is None:
        from kvmbox.tools.smoke.execute.local import LocalExecutor
        from kvmbox.tools.smoke.execute.starts import ForkingExecutor

        return ForkingExecutor(LocalExecutor(jobs)), why_skipped
    import logging

    from kvmbox.tools.smoke.execute.dask_executor import connect

    logging.disable()  # Dask logs at length what an error here says in a line
    remote = connect(dask)

    def skip(test: Test) -> str | None:
        if test.start is not None:
            return "--dask does not fork tests from a start"  # a snapshot is bound to the host it was made on
        return why_skipped(test, hardware=lambda: remote.has_hardware_virtualization)

    return remote, skip
