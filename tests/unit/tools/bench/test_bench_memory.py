"""Memory of processes: parsing, and this process as the one real case."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kvmbox.tools.bench import process_memory
from kvmbox.tools.bench.child import MeasurementError

PIPES: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
ROLLUP = "00400000-7ffe000 ---p 00000000 00:00 0 [rollup]\nRss:  5000 kB\nPss:  1234 kB\nPss_Dirty: 99 kB\n"


def test_pss_is_the_line_of_that_name() -> None:
    assert process_memory.parse_pss(ROLLUP) == 1234 * 1024


def test_pss_that_is_not_there_is_an_error() -> None:
    with pytest.raises(ValueError, match="without Pss"):
        process_memory.parse_pss("Pss_Dirty: 99 kB\n")


def test_frames_are_those_of_present_pages() -> None:
    present, swapped = 1 << 63, 1 << 62
    entries = struct.pack("=4Q", present | 5, swapped | 6, 0, present | 1 << 61 | 7)
    assert list(process_memory.frames(entries)) == [5, 7]


def test_family_has_children_and_their_children() -> None:
    code = (
        "import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', 'input()'], stdin=0); "
        "print(p.pid, flush=True); p.wait()"
    )
    with subprocess.Popen([sys.executable, "-c", code], **PIPES) as child:
        assert child.stdout is not None
        grandchild = int(child.stdout.readline())
        assert process_memory.family(child.pid) == [child.pid, grandchild]
        assert {child.pid, grandchild} < set(process_memory.family(os.getpid()))
        child.communicate("\n")


def test_pss_of_this_process_is_less_than_its_resident_pages() -> None:
    with open("/proc/self/statm", encoding="ascii") as statm:
        resident = int(statm.read().split()[1]) * process_memory.PAGE
    assert 1 << 20 < process_memory.pss([os.getpid()]) <= resident * 2


def test_process_that_is_gone_cannot_be_read() -> None:
    done = subprocess.Popen([sys.executable, "-c", "pass"])
    done.wait()
    for function in (process_memory.pss, process_memory.alone):
        with pytest.raises(MeasurementError, match="has ended before"):
            function([done.pid])


def test_process_that_ends_while_its_family_is_read_takes_nothing() -> None:
    done = subprocess.Popen([sys.executable, "-c", "pass"])
    done.wait()
    assert process_memory.pss([os.getpid(), done.pid]) > 1 << 20


def test_process_that_may_not_be_read_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_path: Path, *_: Any, **__: Any) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(MeasurementError, match="process 77: Permission denied; try as root"):
        process_memory.pss([77])


@pytest.mark.root
def test_frames_of_a_process_counted_twice_count_once() -> None:
    with subprocess.Popen([sys.executable, "-c", "print(1, flush=True); input()"], **PIPES) as child:
        assert child.stdout is not None
        child.stdout.readline()  # from now on it only waits
        once, twice = process_memory.alone([child.pid]), process_memory.alone([child.pid, child.pid])
        assert process_memory.pss([child.pid]) <= once == twice
        child.communicate("\n")
