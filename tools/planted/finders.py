"""Who finds a planted bug, and how fast: fuzzers and tests, in the copy that has it."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from tools.planted.plant import Plant

NO_TESTS: Final = 5
"""What pytest ends with if it has none."""
LIMIT_S: Final = 60
"""CPU seconds; a finder that takes more hangs."""
CONFTEST: Final = "tests/conftest.py"
NO_SHRINKING: Final = """
from hypothesis import Phase, settings  # noqa: E402

settings.register_profile("planted", phases=(Phase.explicit, Phase.generate))
settings.load_profile("planted")
"""
"""What is asked is when a failure is found, and not what the smallest one is."""

_PYTEST: Final = ("-m", "pytest", "-q", "-x", "-p", "no:cacheprovider")
_FUZZER: Final = ("-m", "tests.fuzz.run", "--seconds", "30", "--seed", "1", "--jobs", "1", "--target")
_HOWS: Final = ((b"status -", "crash"), (b"TimeoutError", "hang"))
"""How a fuzzer has failed, by what it says."""


class Found(NamedTuple):
    """By whom, whether it is a fuzzer, how (a failure, a crash, a hang), and after how many CPU seconds."""

    by: str
    is_fuzzer: bool
    how: str
    seconds: float


def finders(plant: Plant) -> Iterator[tuple[str, bool, tuple[str, ...]]]:
    """Name, whether it is a fuzzer, and Python's arguments."""
    for name in plant.fuzzers:
        yield name, True, (*_FUZZER, name)
    for path in plant.tests:
        yield Path(path).stem, False, (*_PYTEST, path)


class Search:
    """Looks for bugs. What fails in `clean`, a copy without any, finds none."""

    def __init__(self, clean: Path) -> None:
        self._clean = clean
        self._sound: dict[tuple[str, ...], bool] = {}

    def find(self, plant: Plant, top: Path) -> Iterator[Found]:
        """The first fuzzer and the first test that do."""
        done: set[bool] = set()
        for name, is_fuzzer, arguments in finders(plant):
            if is_fuzzer in done:
                continue
            how, seconds = run(arguments, top)
            if not how:
                continue
            if arguments not in self._sound:
                self._sound[arguments] = not run(arguments, self._clean)[0]
            if self._sound[arguments]:
                done.add(is_fuzzer)
                yield Found(name, is_fuzzer, how, seconds)
            else:
                print(f"{name} fails without a bug, too", file=sys.stderr, flush=True)


def run(arguments: tuple[str, ...], top: Path) -> tuple[str, float]:
    """How a finder fails in that copy, "" if it does not, and after how many seconds."""
    environment = os.environ | {"KVMBOX_PLANTED_GUARD": "1", "KVMBOX_PURE": "1", "PYTHONPATH": str(top)}
    before = _cpu_seconds()
    done = subprocess.run(
        ["sh", "-c", f'ulimit -t {LIMIT_S}; exec "$@"', "sh", sys.executable, *arguments],
        cwd=top,
        env=environment,
        capture_output=True,
        check=False,
    )
    seconds = _cpu_seconds() - before
    if done.returncode in (0, NO_TESTS):
        return "", seconds
    if done.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        return "hang", seconds
    if done.returncode < 0:
        return "crash", seconds
    return next((how for said, how in _HOWS if said in done.stdout), "failure"), seconds


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
