"""A run with two vCPUs, as a program: `two_cpus.py IMAGE SANDBOX IPC`. Prints what came of it as JSON."""

from __future__ import annotations

import json
import sys
from typing import Any

from kvmbox import Machine


def main() -> None:
    image, sandbox, ipc = sys.argv[1:]
    options: dict[str, Any] = {"sandbox": sandbox, "ipc": ipc or None}
    with Machine(image, cpus=2, timeout=100.0, **options) as machine:
        result = machine.wait()
    json.dump(
        {"status": result.status, "reason": result.reason, "report": result.crash_report}
        | {"stats": result.statistics.as_json()},
        sys.stdout,
    )


main()
