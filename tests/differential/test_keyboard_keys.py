"""What each key sends, in each scan code set and translated: the model beside QEMU.

QEMU's keys are pressed over QMP, and its bytes are read over qtest. QEMU is that of test_differential.py.
"""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from kvmbox.devices.i8042 import DATA, I8042, STATUS
from kvmbox.devices.ps2_keyboard import KEY_NUMBERS, RELEASED, scan_codes
from tests.differential.runner import find_qemu, qemu_command

pytestmark = pytest.mark.thorough

needs_qemu = pytest.mark.skipif(
    find_qemu() is None,
    reason="no QEMU with -accel qtest: install qemu-system-xen, or name one in KVMBOX_QEMU",
)

NAMED = {124: "print", 126: "pause"}
"""Keys that QEMU has no plain number for."""
CODE_42 = 42
"""The key beside Enter of keyboards with 102 keys. QEMU knows it as key 29, as the sets do."""

KEYPAD = {95, 105}
"""Slash and minus of the keypad have own codes in set 3. QEMU sends those of the other slash and minus."""


class Qemu:
    """One QEMU, whose keyboard takes keys and whose ports can be read."""

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

    def press(self, change: int) -> None:
        number = change & ~RELEASED
        codes = scan_codes(number, 1)
        key = {"type": "number", "data": codes[-1] | (0x80 if len(codes) > 1 else 0)}
        if number in NAMED:
            key = {"type": "qcode", "data": NAMED[number]}
        event = {"type": "key", "data": {"down": not change & RELEASED, "key": key}}
        self.execute("input-send-event", events=[event])

    def drain(self) -> bytes:
        made = bytearray()
        while self.ask("inb 0x64") & 1:
            made.append(self.ask("inb 0x60"))
        return bytes(made)


@pytest.fixture
def qemu(tmp_path: Path) -> Iterator[Qemu]:
    ours, theirs = socket.socketpair()
    command = [
        *qemu_command(),
        *("-chardev", f"socket,id=q,fd={theirs.fileno()}", "-mon", "chardev=q,mode=control"),
    ]
    with (
        ours,
        theirs,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[theirs.fileno()], cwd=tmp_path
        ) as process,
    ):
        theirs.close()
        started = Qemu(process, ours)
        yield started
        started.lines.close()
        process.kill()


def drained(model: I8042) -> bytes:
    made = bytearray()
    while (now := model.next_deadline()) is not None or model.read(0, STATUS, 1) & 1:
        made.append(model.read(now or 0, DATA, 1))
    return bytes(made)


@needs_qemu
@pytest.mark.parametrize(("scan_set", "translate"), [(1, 0), (2, 0), (2, 0x40), (3, 0), (1, 0x40), (3, 0x40)])
def test_each_key_sends_what_it_sends_in_qemu(qemu: Qemu, scan_set: int, translate: int) -> None:
    model = I8042()
    for offset, value in ((1, 0x60), (0, translate), (0, 0xF0), (0, scan_set)):
        qemu.write(offset, value)
        model.write(0, offset, 1, value)
        qemu.drain()
        drained(model)
    left_out = {CODE_42} | KEYPAD if scan_set == 3 else {CODE_42}
    for number in sorted(KEY_NUMBERS - left_out):
        for change in (number, number | RELEASED):
            qemu.press(change)
            assert model.receive(0, bytes([change])) == 1
            assert (number, drained(model).hex()) == (number, qemu.drain().hex())
