"""Two servers of the qtest protocol, the same lines to both, and what each of them said."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

RTC_BASE: Final = "2023-11-14T22:13:20"

QEMU_CANDIDATES: Final = (
    # Debian's package qemu-system-xen; qemu-system-x86 is built without this accelerator.
    "/usr/libexec/xen-qemu-system-i386",
    "/usr/lib/xen/bin/qemu-system-i386",
    "qemu-system-x86_64",
    "qemu-system-i386",
)
"""Where a QEMU with `-accel qtest` may be; the environment's KVMBOX_QEMU comes first."""

QEMU_ARGUMENTS: Final = (
    *("-machine", "pc", "-accel", "qtest", "-display", "none", "-nodefaults"),
    *("-rtc", f"base={RTC_BASE},clock=vm", "-serial", "null", "-serial", "null"),
    *("-qtest", "stdio", "-qtest-log", "none"),
)

KVMBOX: Final = (
    *(sys.executable, "-c", "from kvmbox.cli.main import entry_point; entry_point()"),
    *("qtest", "--rtc-base", RTC_BASE, "--sandbox", "none"),
)
"""Without a sandbox: what is compared are the models. That both give the same is tests/integration's."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came for one line: the interrupt messages before the answer, and the answer."""

    irqs: tuple[str, ...]
    text: str


@cache
def find_qemu() -> str | None:
    """A QEMU that has the qtest accelerator, or None."""
    named = os.environ.get("KVMBOX_QEMU")
    for candidate in (named,) if named else QEMU_CANDIDATES:
        path = shutil.which(candidate)
        if path is not None and _speaks_qtest(path):
            return path
    return None


def _speaks_qtest(path: str) -> bool:
    # `-accel help` does not list this accelerator, so it is tried. A server does not leave by itself.
    command = [path, *QEMU_ARGUMENTS]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(b"endianness\n")
            process.stdin.flush()
        answer = process.stdout.readline()
        process.kill()
    return answer == b"OK little\n"


def qemu_command() -> list[str]:
    """How to start QEMU; only where `find_qemu` found one."""
    path = find_qemu()
    assert path is not None
    return [path, *QEMU_ARGUMENTS]


def kvmbox_command() -> list[str]:
    """How to start kvmbox."""
    return list(KVMBOX)


def ask(command: Sequence[str], lines: Sequence[str]) -> list[Answer]:
    """Start a server, send it `lines` without waiting, and give back its answers, one for each line."""
    root = Path(__file__).parent.parent.parent
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=root)
    assert process.stdin is not None
    assert process.stdout is not None
    stdin, data = process.stdin, "".join(f"{line}\n" for line in lines).encode()

    def write() -> None:
        with contextlib.suppress(BrokenPipeError):  # the reader finds out
            stdin.write(data)
            stdin.flush()

    writer = threading.Thread(target=write)
    writer.start()
    answers: list[Answer] = []
    irqs: list[str] = []
    try:
        while len(answers) < len(lines):
            line = process.stdout.readline().decode().rstrip("\n")
            if not line:
                raise AssertionError(f"{command[0]} ended at line {len(answers)}: {lines[len(answers)]}")
            if line.startswith("IRQ "):
                irqs.append(line)
            else:
                answers.append(Answer(tuple(irqs), line))
                irqs.clear()
    finally:
        process.kill()
        process.wait()
        writer.join()
        process.stdout.close()
        with contextlib.suppress(BrokenPipeError):
            stdin.close()  # what is still buffered is lost, as it may be
    return answers
