"""`kvmbox run --watch` as a person uses it: a kernel is built again while it runs."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest

from kvmbox.boot import bundled
from tests.support.waiting import Stream

KVMBOX = (sys.executable, "-c", "from kvmbox.cli.entry import entry_point; entry_point()")


def image(name: str) -> str:
    path = bundled.find(name)
    assert path is not None
    return path


def read_until(stream: IO[str], words: str) -> None:
    for line in stream:
        if words in line:
            return
    raise AssertionError(f"{words!r} was not said")


@pytest.mark.kvm
def test_watch_boots_each_version_and_ends_with_a_signal(tmp_path: Path) -> None:
    kernel = tmp_path / "kernel.elf"
    shutil.copy(image("hello32"), kernel)
    with subprocess.Popen(
        (*KVMBOX, "run", str(kernel), "--watch"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        read_until(process.stderr, "status 0; waiting for a change")
        shutil.copy(image("echo"), kernel)  # waits for input, which /dev/null has none of
        read_until(process.stderr, "changed; booting again")
        read_until(process.stdout, "echo: type something")
        shutil.copy(image("hello64"), kernel)
        read_until(process.stderr, "changed; booting again")
        read_until(process.stderr, "status 0; waiting for a change")
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 130
        assert process.stdout.read().endswith("Hello from 64-bit long mode!\n")


@pytest.mark.kvm
def test_guest_ends_with_a_watch_that_is_killed() -> None:
    with subprocess.Popen(
        (*KVMBOX, "run", image("spin"), "--watch", "--timeout", "60"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdout is not None
        output = Stream(process.stdout.fileno(), "stdout")
        output.until(b"looping")
        process.kill()
        output.rest()  # every process that has this stdout has ended
