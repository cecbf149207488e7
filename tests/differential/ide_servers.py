"""An IDE channel here and in QEMU, asked by lines of the qtest protocol, one by one.

Three lines are added, because a disk takes its time and has many words:

    wait            until BSY is 0
    words N         read the data register N times; the answer is a checksum
    fill N VALUE    write N words, from VALUE on
"""

from __future__ import annotations

import subprocess
import zlib
from pathlib import Path
from typing import Final, Protocol

from kvmbox.devices.ide.registers import BSY
from tests.differential.runner import Answer, qemu_command
from tests.support.ide_host import IdeHost

SIZES: Final = {"b": 1, "w": 2, "l": 4}
COMMAND_BLOCK: Final = 0x1F0
CONTROL_BLOCK: Final = 0x3F6
MOST_POLLS: Final = 100_000


class Server(Protocol):
    """Whoever answers lines of the protocol."""

    def ask(self, line: str) -> Answer:
        """The answer, with the interrupt messages before it."""


def ask(server: Server, line: str) -> Answer:
    """The answer to a line, which may be an added one."""
    name, *arguments = line.split()
    irqs: list[str] = []

    def say(line: str) -> int:
        answer = server.ask(line)
        irqs.extend(answer.irqs)
        words = answer.text.split()
        assert words[0] == "OK", answer
        return int(words[1], 16) if len(words) > 1 else 0

    if name == "wait":
        for _ in range(MOST_POLLS):
            if not say(f"inb {CONTROL_BLOCK:#x}") & BSY:
                return Answer(tuple(irqs), "OK")
        return Answer(tuple(irqs), "busy")
    if name == "words":
        data = b"".join(
            say(f"inw {COMMAND_BLOCK:#x}").to_bytes(2, "little") for _ in range(int(arguments[0]))
        )
        return Answer(tuple(irqs), f"OK {zlib.crc32(data):#010x}")
    if name == "fill":
        count, value = int(arguments[0]), int(arguments[1])
        for index in range(count):
            say(f"outw {COMMAND_BLOCK:#x} {value + index & 0xFFFF:#x}")
        return Answer(tuple(irqs), "OK")
    return server.ask(line)


class Here:
    """The model, behind the ports that it has on a PC."""

    def __init__(self, host: IdeHost) -> None:
        self.host = host

    def ask(self, line: str) -> Answer:
        """See Server."""
        name, port, *value = line.split()
        number = int(port, 16)
        offset = 8 if number == CONTROL_BLOCK else number - COMMAND_BLOCK
        size, before = SIZES[name[-1]], self.host.line
        text = "OK"
        if name.startswith("in"):
            text = f"OK {self.host.read(offset, size):#06x}"
        else:
            self.host.write(offset, int(value[0], 16), size)
        irqs = () if self.host.line == before else (f"IRQ {'raise' if self.host.line else 'lower'} 14",)
        return Answer(irqs, text)


class Qemu:
    """QEMU's first IDE channel, which answers to each line at once. It is ended by `close`."""

    def __init__(self, disk: Path | None, cd: Path | None, cd_unit: int = 1) -> None:
        drives: list[str] = []
        for path, device, unit in ((disk, "ide-hd", 0), (cd, "ide-cd", cd_unit)):
            if path is not None:
                drives += ["-drive", f"file={path},format=raw,if=none,id={device},readonly={_is_cd(device)}"]
                drives += ["-device", f"{device},drive={device},bus=ide.0,unit={unit},serial={device}"]
        self.process = subprocess.Popen(
            [*qemu_command(), *drives], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self.ask("irq_intercept_in ioapic").text == "OK"

    def ask(self, line: str) -> Answer:
        """See Server."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{line}\n".encode())
        self.process.stdin.flush()
        irqs: list[str] = []
        while (text := self.process.stdout.readline().decode().rstrip("\n")).startswith("IRQ "):
            irqs.append(text)
        assert text, f"QEMU ended at: {line}"
        return Answer(tuple(irqs), text)

    def close(self) -> None:
        """End QEMU, whose disk then has all that was written."""
        self.process.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()
        self.process.wait()


def _is_cd(device: str) -> str:
    return "on" if device == "ide-cd" else "off"
