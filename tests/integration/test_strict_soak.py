"""CPython in seccomp's strict mode, for long: one call but read, write and exit, and the process is dead.

Memory is what could undo it: an allocator that maps or trims, a collection that gives memory back, a code
path that imports. So each device process answers KVMBOX_SOAK_REQUESTS requests of every kind, on this Python
and on the distribution's. The long version, which takes some minutes a row on an idle machine:

    KVMBOX_SOAK_REQUESTS=1000000 pytest tests/integration/test_strict_soak.py
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from kvmbox.base.compiled import VARIABLE
from kvmbox.jail.linux import seccomp_mode
from tests.support.patience import patience

REQUESTS: Final = int(os.environ.get("KVMBOX_SOAK_REQUESTS", "5000"))
SOAK: Final = Path(__file__).parent / "soak_payload" / "soak.py"
ROOT: Final = Path(__file__).parents[2]
DISTRIBUTIONS: Final = "/usr/bin/python3"
SOME_SECONDS_A_THOUSAND: Final = 5

pytestmark = pytest.mark.skipif(
    seccomp_mode() != 0, reason="strict mode cannot be entered where a filter is in force already"
)


def soak(
    python: str, seccomp: str, ipc: str, requests: int = REQUESTS, *, pure: bool = False
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [python, str(SOAK), str(ROOT), seccomp, ipc, str(requests)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, VARIABLE: "1" if pure else "0"},
        timeout=patience(60 + SOME_SECONDS_A_THOUSAND * requests / 1000),
    )


def python_or_skip(python: str) -> str:
    """`python`, if it is there and kvmbox runs on it."""
    if not os.path.exists(python):
        pytest.skip(f"no {python}")
    probe = "import sys; sys.exit(sys.version_info < (3, 11))"
    if subprocess.run([python, "-c", probe], check=False).returncode:
        pytest.skip(f"{python} is older than 3.11")
    return python


@pytest.mark.parametrize("ipc", ["socketpair", "pipe", "shm"])
@pytest.mark.parametrize("python", [sys.executable, DISTRIBUTIONS], ids=["this Python", "the distribution's"])
@pytest.mark.parametrize("pure", [False, True], ids=["as built", "pure"])
def test_device_processes_in_strict_mode_answer_every_request(python: str, ipc: str, pure: bool) -> None:
    done = soak(python_or_skip(python), "strict", ipc, pure=pure)
    assert (done.returncode, done.stderr) == (0, "")
    answered = [line.split()[:2] for line in done.stdout.splitlines()]
    assert answered == [
        [name, str(REQUESTS)]
        for name in ("uart", "pit", "rtc", "i8042", "debug", "pm", "hpet", "fwcfg", "vga")
    ]


def test_replies_in_strict_mode_are_those_without_seccomp() -> None:
    # The same requests have the same number of effects.
    strict, off = (soak(sys.executable, seccomp, "socketpair", 2_000) for seccomp in ("strict", "off"))
    assert strict.returncode == off.returncode == 0
    assert strict.stdout == off.stdout
