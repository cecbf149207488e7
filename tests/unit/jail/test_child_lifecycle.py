"""What a process allocates behind `settle` does not lie between what was there before."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
from kvmbox.jail.child_lifecycle import settle

there = [bytes({length}) for _ in range(1000)]
del there[::2]
before = {{id(one) >> 14 for one in there}}
for prepare in (list, settle):
    kept = prepare()
    made = [bytes({length}) for _ in range(100)]
    print(sum(id(one) >> 14 in before for one in made))
"""


@pytest.mark.parametrize("length", [15, 31, 95, 479])
def test_new_objects_do_not_lie_between_those_that_were_there(length: int) -> None:
    command = [sys.executable, "-c", PROGRAM.format(length=length)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    unprepared, prepared = map(int, done.stdout.split())
    assert unprepared > 90
    assert prepared < 10  # where a temporary object has left room
