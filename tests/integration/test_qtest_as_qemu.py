"""`kvmbox-system-x86_64`, started as QEMU's test programs start an emulator."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pytest

from tests.support.waiting import PATIENCE_S

SYSTEM = (sys.executable, "-c", "from kvmbox.cli.system_x86_64 import entry_point; entry_point()")


@dataclass(frozen=True)
class Started:
    """The emulator, and the two ends of what a test program says to it."""

    process: subprocess.Popen[bytes]
    qtest: socket.socket
    qmp: socket.socket
    qtest_lines: IO[str]
    qmp_lines: IO[str]

    def ask(self, line: str) -> str:
        self.qtest.sendall(f"{line}\n".encode())
        return self.qtest_lines.readline().rstrip("\n")

    def execute(self, command: str) -> dict[str, Any]:
        self.qmp.sendall(json.dumps({"execute": command}).encode() + b"\n")
        return self.told()

    def told(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.qmp_lines.readline())
        return answer

    def end(self) -> tuple[int, bytes]:
        _, errors = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, errors


def listening(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.settimeout(PATIENCE_S)
    listener.bind(str(path))
    listener.listen(1)
    return listener


@contextmanager
def started(tmp_path: Path, *more: str) -> Iterator[Started]:
    """libqtest's order: listen on two sockets, start, accept qtest's and then QMP's, shake hands."""
    command = [
        *(*SYSTEM, "-qtest", f"unix:{tmp_path}/qtest", "-qtest-log", f"{tmp_path}/log"),
        *("-chardev", f"socket,path={tmp_path}/qmp,id=char0", "-mon", "chardev=char0,mode=control"),
        *("-display", "none", "-audio", "none", "-rtc", "clock=vm,base=2023-11-14T22:13:20"),
        *(*more, "-accel", "qtest"),
    ]
    with (
        listening(tmp_path / "qtest") as qtest_listener,
        listening(tmp_path / "qmp") as qmp_listener,
        subprocess.Popen(command, stderr=subprocess.PIPE) as process,
    ):
        try:
            qtest, _ = qtest_listener.accept()
            qmp, _ = qmp_listener.accept()
            qtest.settimeout(PATIENCE_S)
            with qtest, qmp, qtest.makefile() as qtest_lines, qmp.makefile() as qmp_lines:
                emulator = Started(process, qtest, qmp, qtest_lines, qmp_lines)
                assert emulator.ask("endianness") == "OK little"
                assert emulator.told()["QMP"]["version"]["qemu"]["major"] == 10
                assert emulator.execute("qmp_capabilities") == {"return": {}}
                yield emulator
        finally:
            process.kill()


def test_test_program_drives_the_board_and_ends_it_with_sigterm(tmp_path: Path) -> None:
    with started(tmp_path, "-machine", "pc", "-m", "64", "-nodefaults") as emulator:
        assert emulator.ask("irq_intercept_in ioapic") == "OK"
        assert emulator.ask("outw 0x70 0x000d") == "OK"
        assert emulator.ask("inb 0x71") == "OK 0x0080"
        assert emulator.ask("outb 0x70 9") == "OK"
        assert emulator.ask("inb 0x71") == "OK 0x0023"
        assert emulator.ask("readq 0x3fffff8") == "OK 0x0000000000000000"
        assert emulator.ask("readq 0x4000000") == "OK 0xffffffffffffffff"
        emulator.process.send_signal(signal.SIGTERM)
        assert emulator.end() == (0, b"")
    log = (tmp_path / "log").read_text().splitlines()
    assert log[:2] == ["[R] endianness", "[S] OK little"]
    assert log[-2:] == ["[R] readq 0x4000000", "[S] OK 0xffffffffffffffff"]


def test_quit_over_qmp_ends_it(tmp_path: Path) -> None:
    with started(tmp_path) as emulator:
        assert emulator.execute("device_add")["error"]["class"] == "CommandNotFound"
        assert emulator.execute("quit") == {"return": {}}
        assert emulator.told()["event"] == "SHUTDOWN"
        assert emulator.end() == (0, b"")


def test_reset_over_qmp_resets_the_board(tmp_path: Path) -> None:
    with started(tmp_path) as emulator:
        assert emulator.ask("outb 0x3f9 0x05") == "OK"
        assert emulator.execute("system_reset") == {"return": {}}
        assert emulator.told()["event"] == "RESET"
        assert emulator.ask("inb 0x3f9") == "OK 0x0000"


def test_qmp_client_may_leave_the_qtest_client_may_not(tmp_path: Path) -> None:
    with started(tmp_path) as emulator:
        emulator.qmp.shutdown(socket.SHUT_RDWR)
        assert emulator.ask("inb 0x3fd") == "OK 0x0060"
        emulator.qtest.shutdown(socket.SHUT_RDWR)
        assert emulator.end() == (0, b"")


def test_qmp_client_that_does_not_read_stops_no_qtest(tmp_path: Path) -> None:
    with started(tmp_path) as emulator:
        emulator.qmp.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                emulator.qmp.send(b'{"execute": "query-commands"}\n' * 100)
        # The server has had its turns with both clients when it has answered so often.
        assert {emulator.ask("inb 0x3fd") for _ in range(20)} == {"OK 0x0060"}


def test_log_has_no_control_character_of_a_client(tmp_path: Path) -> None:
    with started(tmp_path) as emulator:
        assert emulator.ask("\x1b[2J") == "FAIL Unknown command '\\x1b[2J'"
        log = (tmp_path / "log").read_text()
        assert log.endswith("[R] \\x1b[2J\n[S] FAIL Unknown command '\\x1b[2J'\n")


@pytest.mark.parametrize(
    ("arguments", "status", "words", "hint"),
    [
        ((), 2, "no -qtest", "'-qtest' takes unix:PATH or stdio"),
        (("-qtest", "stdio", "-device", "ne2k_isa"), 2, "'-device' is nothing that", "accepted: -M"),
        (("-qtest", "stdio", "-accel", "kvm"), 2, "there is no CPU", "'-accel' takes qtest"),
        (("-qtest", "stdio", "-serial", "stdio"), 2, "serial output goes nowhere", "takes null or none"),
        (("-qtest", "tcp:localhost:1"), 2, "only unix:PATH", "'-qtest' takes unix:PATH or stdio"),
        (("-qtest", "stdio", "-m"), 2, "wants a value", "'-m' takes memory in MiB"),
        (("-qtest", "stdio", "-smp"), 2, "wants a value", "takes any value"),
        (("-qtest", "stdio", "-m", "many"), 2, "no size", "as 128 or 1G"),
        (("-qtest", "stdio", "-m", "1K"), 2, "no size", "as 128 or 1G"),
        (("-qtest", "stdio", "-rtc", "base=never"), 2, "--rtc-base 'never'", "for example"),
        (("-qtest", "stdio", "-mon", "chardev=x,mode=control"), 2, "is no -chardev of", "'-chardev' takes"),
        (("-qtest", "stdio", "-mon", "chardev=char0"), 2, "only mode=control", "'-mon' takes"),
        (("-qtest", "stdio", "-chardev", "null,id=x"), 2, "only socket,path=PATH,id=ID", "'-chardev' takes"),
        (("-qtest", "unix:/nonexistent/socket"), 4, "cannot connect to '/nonexistent/socket'", "must listen"),
        (("-qtest", "stdio", "-qtest-log", "/nonexistent/log"), 4, "cannot write -qtest-log", "check the"),
    ],
)
def test_what_cannot_be_is_refused(arguments: tuple[str, ...], status: int, words: str, hint: str) -> None:
    done = subprocess.run(
        [*SYSTEM, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert (done.returncode, done.stdout) == (status, "")
    first, second = done.stderr.splitlines()
    assert first.startswith("kvmbox: error: ")
    assert words in first
    assert second.startswith("hint: ")
    assert hint in second


def test_double_dashes_and_stdio_are_understood() -> None:
    done = subprocess.run(
        [*SYSTEM, "--qtest", "stdio", "--display", "none", "-S", "-m", "size=1M", "-serial", "none"],
        input="readb 0xfffff\nreadb 0x100000\n",
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == ["OK", "0x0000000000000000", "OK", "0x00000000000000ff"]
