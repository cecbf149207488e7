"""What the tests of `kvmbox run` share: guests written as bytes, and a run that can be watched and ended.

Guests are flat real-mode images (`--mode real`), put together from the fragments below. A test waits for what
the guest prints, for a process's pidfd or for the end of a stream, never for time to pass; PATIENCE_S only
bounds how long a broken kvmbox may hang a test.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from kvmbox import layout
from tests.patience import patience

ENTRY = "from kvmbox.cli.entry import entry_point; entry_point()"
KVMBOX = (sys.executable, "-c", ENTRY)
PATIENCE_S = patience(30.0)
COM1 = layout.COM_PORTS["COM1"]
COM2 = layout.COM_PORTS["COM2"]
DEBUGCON = layout.DEBUGCON_PORTS[0]
DEVICE_TYPES = ("debug", "i8042", "pit", "rtc", "uart")

# --- Guests ---------------------------------------------------------------------------------------------


def out(port: int, value: int, size: int = 1) -> bytes:
    """mov dx,port; mov al/ax/eax,value; out dx,al/ax/eax."""
    load, write = {1: (b"\xb0", b"\xee"), 2: (b"\xb8", b"\xef"), 4: (b"\x66\xb8", b"\x66\xef")}[size]
    return b"\xba" + port.to_bytes(2, "little") + load + value.to_bytes(size, "little") + write


def say(text: bytes, port: int = COM1) -> bytes:
    """Write `text` to `port`, byte by byte: mov dx,port; then mov al,byte; out dx,al for each."""
    return b"\xba" + port.to_bytes(2, "little") + b"".join(b"\xb0%c\xee" % byte for byte in text)


def say_much(text: bytes, port: int = COM1) -> bytes:
    """Write up to some 32,000 bytes: call over the text; pop si; mov cx,size; mov dx,port; cld; rep outsb."""
    size = len(text).to_bytes(2, "little")
    send = b"\x5e\xb9" + size + b"\xba" + port.to_bytes(2, "little") + b"\xfc\xf3\x6e"
    return b"\xe8" + size + text + send


def wait_input(port: int = COM1) -> bytes:
    """mov dx,LSR; poll: in al,dx; test al,1; jz poll; mov dx,RBR; in al,dx. The byte is in AL."""
    poll = b"\xba" + (port + 5).to_bytes(2, "little") + bytes.fromhex("ec a801 74fb")
    return poll + b"\xba" + port.to_bytes(2, "little") + b"\xec"


def echo(port: int = COM1) -> bytes:
    """Send everything back, for ever."""
    body = wait_input(port) + b"\xee"  # DX still names the data port: out dx,al
    return body + b"\xeb%c" % (256 - len(body) - 2)


def debug_exit(value: int, size: int = 1) -> bytes:
    """The guest's verdict."""
    return out(layout.DEBUG_EXIT_PORT, value, size)


SHUTDOWN = say(b"Shutdown", layout.SHUTDOWN_PORT)
MASK_IRQS = bytes.fromhex("b0ff e621 e6a1")  # mov al,0xff; out 0x21,al; out 0xa1,al
IDLE = MASK_IRQS + bytes.fromhex("fb f4 ebfc")  # sti; hlt; and again: no exit, and no CPU time either
SPIN = b"\xeb\xfe"  # jmp to itself
FLOOD = b"\xba" + COM1.to_bytes(2, "little") + bytes.fromhex("b041 ee ebfd")  # 'A' for ever
HALT_FOR_EVER = b"\xfa\xf4"  # cli; hlt
# call next; next: pop bx; lidt cs:[bx+18]; CR0.PE = 1 (in real mode KVM's emulator minds no IDT limit); ud2;
# jmp to itself; and the six bytes of an IDT without entries.
TRIPLE_FAULT = bytes.fromhex("e80000 5b 2e0f015f12 0f20c0 0c01 0f22c0 0f0b ebfe") + bytes(6)
RESET_8042 = out(layout.I8042_COMMAND_PORT, 0xFE) + IDLE
RESET_92 = out(layout.SYSTEM_CONTROL_A_PORT, 0x01) + IDLE
POPCNT = bytes.fromhex("f30fb8c0")  # popcnt ax,ax: KVM's emulator does not know it, processors do


# --- Waiting ---------------------------------------------------------------------------------------------


def wait_readable(descriptor: int, what: str) -> None:
    """Wait until `descriptor` is readable or at its end; fail after PATIENCE_S."""
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    assert poller.poll(PATIENCE_S * 1000), f"waited {PATIENCE_S} s for {what}"


class Stream:
    """The reading end of a pipe or terminal; `seen` is all that came so far."""

    def __init__(self, descriptor: int, name: str) -> None:
        self.descriptor = descriptor
        self.name = name
        self.seen = b""
        self._from = 0

    def more(self) -> bool:
        """Take what comes next; False at the end."""
        wait_readable(self.descriptor, f"{self.name} after {self.seen[-200:]!r}")
        try:
            data = os.read(self.descriptor, 1 << 16)
        except OSError:  # a terminal whose other side is closed
            return False
        self.seen += data
        return bool(data)

    def until(self, text: bytes) -> None:
        """Read until `text` has come, behind what an earlier `until` was waiting for."""
        while (found := self.seen.find(text, self._from)) < 0:
            assert self.more(), f"{self.name} ended without {text!r}: {self.seen!r}"
        self._from = found + len(text)

    def rest(self) -> bytes:
        """Read to the end; returns all that ever came."""
        while self.more():
            pass
        return self.seen


# --- Processes -------------------------------------------------------------------------------------------


def children_of(pid: int) -> list[int]:
    """The process ids of the children of `pid`."""
    found = []
    for name in os.listdir("/proc"):
        with suppress(OSError):
            # Field 4 of stat, after the name in parentheses, is the parent (proc_pid_stat(5)).
            if (
                name.isdecimal()
                and int(Path("/proc", name, "stat").read_text().rpartition(")")[2].split()[1]) == pid
            ):
                found.append(int(name))
    return found


class Family:
    """The spawner and device processes of one running kvmbox: taken once its guest runs."""

    def __init__(self, vmm: int) -> None:
        (self.spawner,) = children_of(vmm)
        self.devices: dict[str, int] = {}
        for pid in children_of(self.spawner):
            title = Path(f"/proc/{pid}/cmdline").read_bytes().partition(b"\0")[0].decode()
            self.devices[title.removeprefix("kvmbox: ")] = pid
        assert sorted(self.devices) == sorted(DEVICE_TYPES)
        self._pidfds = [os.pidfd_open(pid) for pid in (self.spawner, *self.devices.values())]

    def assert_gone(self) -> None:
        """All of them are dead and reaped: of a zombie, the pidfd could still be signalled."""
        for pidfd in self._pidfds:
            try:
                signal.pidfd_send_signal(pidfd, 0)
            except ProcessLookupError:
                continue
            raise AssertionError("a process outlived the run")

    def wait_dead(self) -> None:
        """Wait until all of them have exited, reaped or not."""
        for pidfd in self._pidfds:
            wait_readable(pidfd, "the death of a process of the run")

    def close(self) -> None:
        """Close the pidfds."""
        for pidfd in self._pidfds:
            os.close(pidfd)


class Run:
    """One `kvmbox run`. Use it in a `with`: it does not outlive the test."""

    def __init__(
        self,
        *arguments: str | Path,
        command: Sequence[str] = KVMBOX,
        stdin: int | IO[Any] = subprocess.DEVNULL,
        stdout: int | IO[Any] = subprocess.PIPE,
        stderr: int | IO[Any] = subprocess.PIPE,
        **options: Any,
    ) -> None:
        self.process = subprocess.Popen(
            [*command, "run", *map(str, arguments)],
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            bufsize=0,
            **options,
        )
        self.pid = self.process.pid
        if self.process.stdout is not None:
            self.stdout = Stream(self.process.stdout.fileno(), "stdout")
        if self.process.stderr is not None:
            self.stderr = Stream(self.process.stderr.fileno(), "stderr")
        self._family: Family | None = None

    @property
    def family(self) -> Family:
        """Its processes; for the first time while the guest runs."""
        if self._family is None:
            self._family = Family(self.pid)
        return self._family

    def send(self, data: bytes) -> None:
        """Write to its stdin, which must be a pipe."""
        assert self.process.stdin is not None
        self.process.stdin.write(data)

    def signal(self, number: int) -> None:
        """Send a signal to kvmbox itself."""
        self.process.send_signal(number)

    def status(self) -> int:
        """Its exit status, once it has ended; output is read meanwhile, so that nothing blocks it."""
        if self.process.stdout is not None:
            self.stdout.rest()
        if self.process.stderr is not None:
            self.stderr.rest()
        return self.exit_status()

    def exit_status(self) -> int:
        """Its exit status, once it has ended; nobody reads its output meanwhile."""
        pidfd = os.pidfd_open(self.pid)
        wait_readable(pidfd, "the end of kvmbox")
        os.close(pidfd)
        return self.process.wait()

    @property
    def output(self) -> bytes:
        """stdout, so far."""
        return self.stdout.seen

    @property
    def messages(self) -> str:
        """stderr, so far."""
        return self.stderr.seen.decode()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()
        if self._family is not None:
            self._family.close()


class Images:
    """Writes guests into a directory, and runs them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._count = 0

    def write(self, *fragments: bytes) -> Path:
        """The path of a new flat image."""
        self._count += 1
        path = self.directory / f"guest{self._count}.bin"
        path.write_bytes(b"".join(fragments))
        return path

    def run(self, code: bytes, *arguments: str | Path, **options: Any) -> Run:
        """Start `kvmbox run --mode real` on a guest of these bytes."""
        return Run("--mode", "real", *arguments, self.write(code), **options)


def error_lines(messages: str) -> list[str]:
    """The lines of stderr that report an error."""
    return [line for line in messages.splitlines() if line.startswith("kvmbox: error: ")]


def run_to_end(run: Run) -> tuple[int, bytes, str]:
    """Status, stdout and stderr of a run that ends by itself."""
    with run:
        status = run.status()
        return status, run.output, run.messages
