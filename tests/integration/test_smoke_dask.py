"""`kvmbox smoke --dask` with a scheduler and three worker processes, of which one is killed, or frozen."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.support.runs import KVMBOX
from tests.support.waiting import Stream, wait_readable

pytestmark = [
    pytest.mark.kvm,
    pytest.mark.skipif(
        find_spec("distributed") is None, reason="the package distributed is not installed: kvmbox[dask]"
    ),
]

WORKERS = 3
TESTS = 30
SCHEDULER = ("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard")
WORKER = (*("worker", "--host", "127.0.0.1", "--nthreads", "1", "--no-nanny", "--no-dashboard"),)


@contextmanager
def dask(folder: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], Stream]]:
    """A process of Dask, killed at the end."""
    with subprocess.Popen(
        [sys.executable, "-m", "dask", *arguments],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        bufsize=0,
    ) as process:
        assert process.stderr is not None
        try:
            yield process, Stream(process.stderr.fileno(), f"dask {arguments[0]}")
        finally:
            process.kill()


@contextmanager
def cluster(folder: Path, workers: int) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """The address of a scheduler with so many workers, and the processes: workers, then the scheduler."""
    file = folder / "scheduler.json"
    with ExitStack() as stack:
        scheduler, said = stack.enter_context(dask(folder, *SCHEDULER, "--scheduler-file", str(file)))
        said.until(b"Scheduler at:")
        said.until(b"\n")
        address = said.seen.split(b"Scheduler at:")[1].split(b"\n")[0].strip().decode()
        found = []
        for number in range(workers):
            directory = folder / f"worker{number}"
            process, said = stack.enter_context(
                dask(folder, *WORKER, address, "--local-directory", str(directory))
            )
            said.until(b"Registered to:")
            found.append(process)
        yield address, [*found, scheduler]


def smoke(folder: Path, address: str, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*KVMBOX, "smoke", "s.toml", "--dask", address, "--history", "none", *arguments],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
    )


def boots_of(pid: int) -> list[int]:
    """The child processes of a worker: its boots."""
    found: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):  # a thread that has just ended
            found += map(int, path.read_text().split())
    return found


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_lost_worker_costs_no_result_and_none_comes_twice(number: signal.Signals, tmp_path: Path) -> None:
    tests = [f"[[test]]\nname = 't{number}'\nimage = 'hello32'\n" for number in range(TESTS)]
    (tmp_path / "s.toml").write_text("\n".join(tests))
    with (
        cluster(tmp_path, WORKERS) as (address, workers),
        smoke(tmp_path, address, "--jsonl", "-") as process,
    ):
        assert process.stdout is not None
        assert process.stderr is not None
        stream = Stream(process.stdout.fileno(), "stdout")
        stream.until(b'"event": "result"')
        while not boots_of(workers[0].pid):
            assert process.poll() is None, "the session ended, and the worker had nothing to boot"
        workers[0].send_signal(number)
        rest = stream.rest()
        said = process.stderr.read().decode()
        assert process.wait() == 0, said
    events = [json.loads(line) for line in rest.decode().splitlines()]
    results = [event for event in events if event["event"] == "result"]
    assert sorted(one["name"] for one in results) == sorted(f"t{number}" for number in range(TESTS))
    assert {(one["verdict"], one["boots"]) for one in results} == {("pass", 1)}
    assert {one["console"] for one in results} == {"Hello from 32-bit protected mode!\n"}
    assert events[0]["slots"] == 2 * WORKERS
    kept = [path for path in tmp_path.glob("worker*/**/hello32.elf") if path.is_file()]
    assert len(kept) == WORKERS


def test_signal_ends_the_boots_of_the_workers(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text("[[test]]\nimage = 'spin'\ntimeout = 3600\n")
    with cluster(tmp_path, 1) as (address, workers), smoke(tmp_path, address, "--jsonl", "-") as process:
        assert process.stdout is not None
        stream = Stream(process.stdout.fileno(), "stdout")
        stream.until(b'"event": "boot"')
        while not (booting := boots_of(workers[0].pid)):
            assert process.poll() is None
        boot = os.pidfd_open(booting[0])
        process.send_signal(signal.SIGINT)
        assert b'"event": "end"' in stream.rest()
        assert process.wait() == 130
        wait_readable(boot, "the end of the boot on the worker")
        os.close(boot)


@pytest.mark.parametrize(("number", "status"), [(None, 4), (signal.SIGINT, 130), (signal.SIGTERM, 130)])
def test_frozen_scheduler_and_signals_beside_it_end_the_session(
    number: signal.Signals | None, status: int, tmp_path: Path
) -> None:
    (tmp_path / "s.toml").write_text("[[test]]\nimage = 'spin'\ntimeout = 3600\n")
    with (
        cluster(tmp_path, 1) as (address, (worker, scheduler)),
        smoke(tmp_path, address, "--jsonl", "-") as process,
    ):
        assert process.stdout is not None
        assert process.stderr is not None
        stream = Stream(process.stdout.fileno(), "stdout")
        stream.until(b'"event": "boot"')
        while not boots_of(worker.pid):
            assert process.poll() is None
        scheduler.send_signal(signal.SIGSTOP)
        if number is not None:
            process.send_signal(number)
        assert b'"event": "end"' in stream.rest()
        said = process.stderr.read().decode()
        assert process.wait() == status, said
        assert ("is lost: TimeoutError: it does not answer" in said) == (number is None)


def test_scheduler_that_is_not_there_is_one_line_and_a_hint(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text("[[test]]\nimage = 'hello32'\n")
    with smoke(tmp_path, "tcp://127.0.0.1:1") as process:
        output, said = process.communicate()
    assert process.returncode == 4
    assert output == b""
    lines = said.decode().splitlines()
    assert lines[0].startswith("kvmbox: error: cannot reach the Dask scheduler at 'tcp://127.0.0.1:1': ")
    assert len(lines) == 2, lines
    assert "dask scheduler" in lines[1]
