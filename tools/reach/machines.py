"""The machines whose devices are taken over: kvmbox in its modes, QEMU with its sandboxes."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MEMORY_MIB: Final = 67
FIRST_MIB: Final = 2
"""The first one that has a mark."""
MARK_PLACE: Final = 0x800
"""Of a mark in its MiB."""
QEMU: Final = "qemu-system-x86_64"
STRICTEST: Final = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
RUN_WORD: Final = "0xae80"
"""KVM_RUN, as the second argument of ioctl."""
QEMU_THREAD: Final = "CPU 0/KVM"
PATIENCE_S: Final = 40
READY: Final = b"ready"


@dataclass(frozen=True, slots=True)
class Machine:
    """A row of a table: `arguments` beside those that all of its program have; `title` of the process that is
    taken over, "" for the program itself and its thread that runs the guest.
    """

    name: str
    program: str
    arguments: tuple[str, ...] = ()
    title: str = ""


LANDLOCK: Final = ("landlock", "landlock-net", "landlock-scopes")
NO_LANDLOCK: Final = tuple(word for one in LANDLOCK for word in ("--without", one))
OWN: Final = ("vmm-seccomp", "vmm-landlock", "vmm-capabilities", "vmm-scopes")
WITHOUT_OWN: Final = ("--sandbox", "none", *[word for one in OWN for word in ("--without", one)])
MACHINES: Final = (
    Machine("kvmbox", "kvmbox", (), "uart"),
    Machine("`--seccomp strict`", "kvmbox", ("--seccomp", "strict"), "uart"),
    Machine("`--seccomp off`", "kvmbox", ("--seccomp", "off"), "uart"),
    Machine("no Landlock", "kvmbox", NO_LANDLOCK, "uart"),
    Machine("`off`, no Landlock", "kvmbox", ("--seccomp", "off", *NO_LANDLOCK), "uart"),
    Machine("`--sandbox none`", "kvmbox", ("--sandbox", "none")),
    Machine("`none`, no own layer", "kvmbox", WITHOUT_OWN),
    Machine("QEMU", "qemu"),
    Machine("`-sandbox on`", "qemu", ("-sandbox", "on")),
    Machine("as libvirt", "qemu", ("-sandbox", STRICTEST)),
)


@dataclass(frozen=True, slots=True)
class Files:
    """Of the machines: a guest that writes its marks, and a disk."""

    guest: Path
    disk: Path


def command(machine: Machine, files: Files) -> list[str] | None:
    """What starts it; None if it is not installed. QEMU does not begin its firmware."""
    if machine.program == "kvmbox":
        run = [sys.executable, "-m", "kvmbox", "run", str(files.guest), "--memory", f"{MEMORY_MIB}M"]
        return [*run, "--disk", str(files.disk), "--net", "loop", *machine.arguments]
    qemu = shutil.which(QEMU)
    if qemu is None:
        return None
    return [
        *(qemu, "-machine", "pc,accel=kvm", "-cpu", "max,-arch-capabilities", "-m", str(MEMORY_MIB)),
        *("-nodefaults", "-display", "none", "-qtest", "stdio", "-qtest-log", "none", "-S"),
        *("-serial", "null", "-name", "reach,debug-threads=on"),
        *("-drive", f"file={files.disk},if=ide,format=raw", "-nic", "user,model=e1000", *machine.arguments),
    ]


@contextmanager
def running(machine: Machine, files: Files) -> Iterator[tuple[int, int, int]]:
    """The program, and the process and the thread that are taken over, when the marks are in guest memory.

    RuntimeError if the machine does not come so far.
    """
    words = command(machine, files)
    if words is None:
        raise RuntimeError("not installed")
    with subprocess.Popen(
        words,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"KVMBOX_CONFIG": "none"},
    ) as process:
        try:
            if machine.program == "qemu":
                _write_marks(process)
            else:
                _wait_for(process, READY, 1)
            pid = process.pid if not machine.title else _titled(process.pid, machine.title)
            yield process.pid, pid, pid if machine.title else _guest_thread(pid)
        finally:
            process.kill()


def mark(number: int) -> bytes:
    """What is in a MiB of guest memory, `MARK_PLACE` bytes behind its beginning."""
    return struct.pack("<8sII", b"KVMREACH", number, number ^ 0xFFFF_FFFF)


def _write_marks(process: subprocess.Popen[bytes]) -> None:
    """By QEMU's qtest protocol, which answers each line when it is done."""
    assert process.stdin is not None
    for number in range(FIRST_MIB, MEMORY_MIB):
        place = (number << 20) + MARK_PLACE
        process.stdin.write(f"write {place:#x} 16 0x{mark(number).hex()}\n".encode())
    process.stdin.flush()
    _wait_for(process, b"OK", MEMORY_MIB - FIRST_MIB)


def _wait_for(process: subprocess.Popen[bytes], word: bytes, count: int) -> None:
    assert process.stdout is not None
    assert process.stderr is not None
    seen = b""
    while seen.count(word) < count:
        data = os.read(process.stdout.fileno(), 4096)
        if not data:
            raise RuntimeError(process.stderr.read().decode(errors="replace").strip())
        seen += data


def _descendants(pid: int) -> Iterator[int]:
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):
            for child in (task / "children").read_text().split():
                yield int(child)
                yield from _descendants(int(child))


def _titled(pid: int, title: str) -> int:
    for child in _descendants(pid):
        with suppress(OSError):
            if Path(f"/proc/{child}/cmdline").read_bytes().partition(b"\0")[0] == f"kvmbox: {title}".encode():
                return child
    raise RuntimeError(f"there is no process '{title}'")


def _guest_thread(pid: int) -> int:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(FileNotFoundError):  # it has ended meanwhile
                words = (task / "syscall").read_text().split()
                if (task / "comm").read_text().strip() == QEMU_THREAD or words[2:3] == [RUN_WORD]:
                    return int(task.name)
        time.sleep(0.01)
    raise RuntimeError("no thread runs the guest")
