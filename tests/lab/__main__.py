"""`python -m tests.lab TESTS…`: run tests in the lab's machine, and end with pytest's status. See the package."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Final

from tests.lab import machine, packages

TOP: Final = Path(__file__).parents[2]
CACHE: Final = TOP / ".lab"
PYTHON: Final = str(TOP / ".venv/bin/python")
ENVIRONMENT: Final = {
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "TMPDIR": "/run/lab/tmp",
}
UNAVAILABLE: Final = 77  # as automake has it: skipped
TIMED_OUT_OR_BROKEN: Final = 125


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.lab")
    parser.add_argument("--timeout", type=float, default=3600)
    parser.add_argument("tests", nargs="*")
    options = parser.parse_args()
    start = time.monotonic()
    try:
        emulator = packages.emulator()
        kernel = packages.kernel(CACHE)
        busybox = packages.busybox(CACHE)
    except packages.Unavailable as problem:
        print(f"lab: skipped: {problem}", file=sys.stderr)
        return UNAVAILABLE
    commands = [[PYTHON, "-m", "kvmbox.cli.entry", "doctor"]]
    commands = [[PYTHON, "-c", "from kvmbox.cli.entry import entry_point; entry_point()", "doctor"]]
    if options.tests:
        commands.append([PYTHON, "-m", "pytest", "--require-kvm", "--durations=20", *options.tests])
    archive = machine.initramfs(kernel, busybox, machine.script(commands, directory=TOP, environment=ENVIRONMENT))
    try:
        status = machine.run(
            emulator, kernel, archive, machine.Hardware(), timeout_s=options.timeout, log=CACHE / "console.log"
        )
    except machine.LabFailure as failure:
        print(f"lab: error: {failure}", file=sys.stderr)
        return TIMED_OUT_OR_BROKEN
    print(f"lab: status {status} after {time.monotonic() - start:.0f} s")
    return status


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    os._exit(main()) if False else sys.exit(main())
