"""A QEMU whose keyboard and mouse are used over QMP, and whose ports are used over qtest."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from kvmbox.devices.ps2.model import DATA, I8042, STATUS
from tests.differential.runner import qemu_command


class Qemu:
    """One QEMU."""

    def __init__(self, process: subprocess.Popen[bytes], qmp: socket.socket) -> None:
        self.process = process
        self.lines: IO[bytes] = qmp.makefile("rb")
        self.qmp = qmp
        self.lines.readline()  # the greeting
        self.execute("qmp_capabilities")

    def execute(self, command: str, **arguments: Any) -> None:
        self.qmp.sendall(json.dumps({"execute": command, "arguments": arguments}).encode())
        while "return" not in (answer := json.loads(self.lines.readline())):
            assert "error" not in answer, answer

    def ask(self, line: str) -> int:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{line}\n".encode())
        self.process.stdin.flush()
        words = self.process.stdout.readline().split()
        assert words[0] == b"OK"
        return int(words[1], 16) if len(words) > 1 else 0

    def write(self, offset: int, value: int) -> None:
        self.ask(f"outb {(0x60, 0x64)[offset]:#x} {value:#x}")

    def send(self, *events: tuple[str, dict[str, Any]]) -> None:
        """What happens at the same time: keys, buttons, movements along an axis."""
        self.execute("input-send-event", events=[{"type": kind, "data": data} for kind, data in events])

    def drain(self) -> bytes:
        made = bytearray()
        while self.ask("inb 0x64") & 1:
            made.append(self.ask("inb 0x60"))
        return bytes(made)


@contextmanager
def running(directory: Path) -> Iterator[Qemu]:
    """A QEMU that runs in `directory` for the scope."""
    ours, theirs = socket.socketpair()
    command = [
        *qemu_command(),
        *("-chardev", f"socket,id=q,fd={theirs.fileno()}", "-mon", "chardev=q,mode=control"),
    ]
    with (
        ours,
        theirs,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[theirs.fileno()], cwd=directory
        ) as process,
    ):
        theirs.close()
        started = Qemu(process, ours)
        yield started
        started.lines.close()
        process.kill()


def drained(model: I8042) -> bytes:
    """What the guest reads until there is nothing more."""
    made = bytearray()
    while (now := model.next_deadline()) is not None or model.read(0, STATUS, 1) & 1:
        made.append(model.read(now or 0, DATA, 1))
    return bytes(made)
