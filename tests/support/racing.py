"""Real threads in a race: all at once, and switched as often as the interpreter can."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable

SWITCH_INTERVAL = 1e-6


def race(*calls: Callable[[], None]) -> None:
    """Run each call in a thread of its own, all begun together; raises the first error of any of them."""
    begin = threading.Barrier(len(calls))
    errors: list[BaseException] = []

    def run(call: Callable[[], None]) -> None:
        begin.wait()
        try:
            call()
        except BaseException as error:  # noqa: BLE001 - raised below, by the thread of the test
            errors.append(error)

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_INTERVAL)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    if errors:
        raise errors[0]
