"""The spawner that the script starts first of all leaves nothing behind, however the command ends."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

import pytest

from tests.support.patience import patience
from tests.support.runs import KVMBOX

# Runs a command as a subreaper, whose children all orphans of the command become, and counts those that are
# left when it has ended: a line with its status, how many were alive, how many were never reaped.
WATCH = """
import ctypes, os, subprocess, sys
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
left = open(f"/proc/self/task/{os.getpid()}/children").read().split()
print(done.returncode, len(left))
"""


def watched(command: Sequence[str]) -> tuple[int, int]:
    """(exit status, processes left when it ended)."""
    done = subprocess.run(
        [sys.executable, "-c", WATCH, *command],
        check=True,
        capture_output=True,
        text=True,
        timeout=patience(60),
    )
    status, left = map(int, done.stdout.split())
    return status, left


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["run"], 2),
        (["run", "--no-such-option", "hello32"], 2),
        (["run", "--memory", "3", "hello32"], 2),
        (["run", "no/such/guest"], 4),
        (["run", "--pin", "999", "hello32"], 2),
        (["run", "--require", "nothing", "hello32"], 2),
    ],
)
def test_run_that_is_refused_leaves_no_spawner(arguments: list[str], status: int) -> None:
    assert watched([*KVMBOX, *arguments]) == (status, 0)


@pytest.mark.kvm
def test_run_that_boots_leaves_no_spawner() -> None:
    assert watched([*KVMBOX, "run", "hello32"]) == (0, 0)


@pytest.mark.kvm
@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"])
def test_run_with_closed_descriptors_keeps_the_spawner_off_their_numbers(closed: str) -> None:
    # Were the control socket to get number 1, the guest's output would go to the spawner.
    line = f'exec "$@" {closed}'
    done = subprocess.run(
        ["sh", "-c", line, "sh", *KVMBOX, "run", "hello32"],
        check=False,
        capture_output=True,
        timeout=patience(60),
    )
    assert done.returncode == (14 if "1>&-" in closed else 0)
    assert b"spawner" not in done.stderr
