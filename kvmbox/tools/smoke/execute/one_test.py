"""One test without a session around it: for programs that have a runner of their own, such as pytest."""

from __future__ import annotations

from concurrent.futures import wait

from kvmbox.host.console.sent_input import WAIT_SLICE_S
from kvmbox.tools.smoke.execute import host_requirements
from kvmbox.tools.smoke.execute.executor import Executor
from kvmbox.tools.smoke.report.progress import Progress
from kvmbox.tools.smoke.suite.test_case import Test, TestResult
from kvmbox.tools.smoke.suite.verdict import boot_of


def run_test(test: Test, executor: Executor, *, timeout: float | None = None) -> TestResult:
    """Boot `test`, again where it has retries, and judge it. `timeout` replaces its own limit, in seconds.

    Raises what the executor raises.
    """
    session = Progress([test], skip=host_requirements.why_skipped)
    while not session.finished:
        found = session.next()
        if isinstance(found, Test):
            future = executor.submit(boot_of(found, timeout=timeout))
            while not wait([future], WAIT_SLICE_S).done:  # see there: Ctrl-C would be heard at the end
                continue
            session.ended(found, future.result())
    return session.results[0]
