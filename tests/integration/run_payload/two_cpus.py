"""A run with two vCPUs, as a program: `two_cpus.py IMAGE SANDBOX IPC`. Prints what came of it as JSON."""

from __future__ import annotations

import json
import sys

from kvmbox.channel.transports import DEFAULT_IPC
from kvmbox.host.serial import serial_plan
from kvmbox.machine.config import RunConfig
from kvmbox.machine.run import run
from kvmbox.processes.pool import Design


def main() -> None:
    image, sandbox, ipc = sys.argv[1:]
    config = RunConfig(
        guest=image,
        serial=serial_plan([]),
        rtc_base=0,
        cpus=2,
        timeout=100.0,
        design=Design(sandbox, ipc=ipc or DEFAULT_IPC),
    )
    result = run(config, say=lambda text: print(text, file=sys.stderr))
    outcome = result.outcome
    json.dump(
        {"status": outcome.status, "reason": outcome.reason, "report": outcome.report}
        | {"stats": result.stats.as_json()},
        sys.stdout,
    )


main()
