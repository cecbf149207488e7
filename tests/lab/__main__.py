"""`python -m tests.lab OPTIONS -- TESTS…`: pytest in the lab's machine. docs/backends.md explains it.

The status is pytest's. Besides: 77, the lab cannot be had here (skipped); 124, time ran out; 125, the machine
failed, or could not be made as a variation wants it.
"""

from __future__ import annotations

import argparse
import compileall
import resource
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.lab import machine, packages, selection, variations

TOP: Final = Path(__file__).parents[2]
CACHE: Final = TOP / ".lab"
ENVIRONMENT: Final = {
    "HOME": "/run/lab/tmp",
    "LANG": "C.UTF-8",
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "TMPDIR": "/run/lab/tmp",
    "KVMBOX_TEST_BACKEND": "svm",
    "KVMBOX_TEST_GUEST_IMAGES": str(TOP / "kvmbox/guest_images"),
    "KVMBOX_TEST_PATIENCE": "20",
}
UNAVAILABLE: Final = 77
TIMED_OUT: Final = 124
FAILED: Final = 125
TERMINATED: Final = 128 + signal.SIGTERM


def main(arguments: Sequence[str]) -> int:
    """Run what `arguments` ask for; returns the status to end with."""
    ours, tests = _split(arguments)
    options = _parser().parse_args(ours)
    start = time.monotonic()
    try:
        emulator = packages.emulator()
        kernel = packages.kernel(CACHE, options.kernel, options.suite)
        busybox = packages.busybox(CACHE)
        host = variations.apply(options.vary)
        for package in host.packages:
            packages.tool(CACHE, package)
    except packages.Unavailable as problem:
        print(f"lab: skipped: {problem}", file=sys.stderr)
        return 0 if options.if_available else UNAVAILABLE
    if options.cpus:
        host.cpus = options.cpus
    if options.memory:
        host.memory_mib = options.memory
    host.parameters += options.parameter
    host.preparation.insert(0, machine.HOLD_A_VM)
    usual = selection.LONG if options.long else selection.QUICK
    chosen = tests or (selection.EACH_VARIATION if options.vary or options.suite else usual)
    commands = module_commands(options.module, tests) if options.module else pytest_commands(chosen)
    work = machine.script(commands, host, directory=TOP, environment=ENVIRONMENT)
    archive = machine.initramfs(kernel, busybox, work)
    # What is compiled here is not compiled there, twelve times slower, by every process of every test's run.
    for package in ("kvmbox", "tests"):
        compileall.compile_dir(TOP / package, quiet=1)
    log = CACHE / f"console-{'-'.join([*options.vary, *filter(None, [options.suite])]) or 'plain'}.log"
    try:
        status = machine.run(
            emulator, kernel, archive, host, timeout_s=options.timeout, attempt_s=options.attempt, log=log
        )
    except machine.LabFailure as failure:
        print(f"lab: error: {failure}", file=sys.stderr)
        return TIMED_OUT if isinstance(failure, machine.LabTimeout) else FAILED
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = used.ru_utime + used.ru_stime
    print(f"lab: status {status} after {time.monotonic() - start:.0f} s, of which {cpu_s:.0f} s of CPU time")
    return status


def _split(arguments: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    if "--" not in arguments:
        return arguments, ()
    at = arguments.index("--")
    return arguments[:at], arguments[at + 1 :]


def module_commands(module: str, arguments: Sequence[str]) -> list[list[str]]:
    """What `--module` runs."""
    return [[sys.executable, "-m", module, *arguments]]


def pytest_commands(tests: Sequence[str]) -> list[list[str]]:
    """What runs otherwise: doctor, and pytest with its arguments."""
    kvmbox = [sys.executable, "-c", "from kvmbox.cli.entry import entry_point; entry_point()"]
    pytest = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--require-kvm", "--durations=10"]
    # It sees a serial line, which pytest takes for a terminal with colours.
    colour = f"--color={'yes' if sys.stdout.isatty() else 'no'}"
    return [[*kvmbox, "doctor"], [*pytest, colour, *tests]]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.lab",
        usage="%(prog)s [OPTIONS] [-- PYTEST-ARGUMENTS]",
        description="Run tests in an emulated machine with AMD-V: by default those that CI runs.",
        epilog="variations: " + "; ".join(f"{v.name}: {v.meaning}" for v in variations.VARIATIONS.values()),
    )
    parser.add_argument(
        "--vary",
        action="append",
        default=[],
        choices=variations.VARIATIONS,
        help="change the machine; repeatable",
    )
    parser.add_argument("--cpus", type=int, help="CPUs of the machine (2)")
    parser.add_argument("--memory", type=int, metavar="MIB", help="its memory (4096)")
    parser.add_argument(
        "--parameter",
        action="append",
        default=[],
        metavar="WORD",
        help="for the kernel's command line; repeatable",
    )
    parser.add_argument(
        "--kernel", default=packages.KERNEL_PACKAGE, metavar="PACKAGE", help="%(default)s by default"
    )
    parser.add_argument(
        "--suite", help="Debian's suite to take the kernel from: bookworm, say (the host's own)"
    )
    parser.add_argument(
        "--module",
        help="run this module of Python with the arguments, in place of doctor and pytest",
    )
    parser.add_argument("--timeout", type=float, default=3600, metavar="SECONDS", help="for all of it (3600)")
    parser.add_argument(
        "--long", action="store_true", help="run more tests than CI (not with --vary or --suite)"
    )
    parser.add_argument(
        "--attempt", type=float, metavar="SECONDS", help="start the machine anew, once, if it takes longer"
    )
    parser.add_argument(
        "--if-available", action="store_true", help="status 0 instead of 77 where the lab cannot be had"
    )
    return parser


if __name__ == "__main__":
    # Whoever ends this command ends QEMU too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    sys.exit(main(sys.argv[1:]))
