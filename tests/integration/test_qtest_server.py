"""`kvmbox qtest` as a process: both sandboxes, stdin and socket, and each way to end."""

from __future__ import annotations

import os
import re
import signal
import socket
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.runs import KVMBOX
from tests.support.waiting import PATIENCE_S

BASE = ("--rtc-base", "2023-11-14T22:13:20")
LINES = (
    *("irq_intercept_in ioapic", "outb 0x70 0x0d", "inb 0x71", "clock_step 30000000", "inw 0x70"),
    *("outb 0x3fc 8", "outb 0x3f9 2", "outb 0x3f8 0x41", "inb 0x3fa", "readb 0xd0000005", "inl 0x1234"),
    *("writel 0x1000 0x11223344", "read 0x1000 4", "clock_set 2000000000", "outb 0x70 0", "inb 0x71"),
    *("outb 0x64 0xfe", "inb 0x3f9", "clock_step", "nonsense", "clock_step 0", "endianness"),
)
ANSWERS = (
    *("OK", "OK", "OK 0x0080", "IRQ raise 0", "IRQ lower 0", "OK 30000000", "OK 0x80ff"),
    *("OK", "IRQ raise 4", "OK", "IRQ lower 4", "IRQ raise 4", "OK", "IRQ lower 4", "OK 0x0002"),
    *("OK 0x0000000000000060", "OK 0xffffffff", "OK", "OK 0x44332211"),
)


def run_lines(lines: tuple[str, ...], *arguments: str) -> tuple[int, list[str], str]:
    done = subprocess.run(
        [*KVMBOX, "qtest", *BASE, *arguments],
        input="".join(f"{line}\n" for line in lines),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    return done.returncode, done.stdout.splitlines(), done.stderr


@contextmanager
def server(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A server that has answered one line, so that all of it is there."""
    with subprocess.Popen(
        [*KVMBOX, "qtest", *BASE, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            assert ask(process, "endianness") == "OK little"
            yield process
        finally:
            process.kill()


def ask(process: subprocess.Popen[bytes], line: str) -> str:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{line}\n".encode())
    process.stdin.flush()
    return process.stdout.readline().decode().rstrip("\n")


def end(process: subprocess.Popen[bytes]) -> tuple[int, str]:
    """How it ends by itself: its input stays open."""
    assert process.stderr is not None
    errors = process.stderr.read().decode()
    return process.wait(PATIENCE_S), errors


def device_process(process: subprocess.Popen[bytes], device_type: str) -> int:
    """The pid of a device process: a grandchild, by the name that it gave itself."""
    for entry in Path("/proc").iterdir():
        try:
            name = (entry / "comm").read_text().strip()
            parent = re.search(r"^PPid:\t(\d+)$", (entry / "status").read_text(), re.MULTILINE)
            assert parent is not None
            grandparent = Path(f"/proc/{parent[1]}/status").read_text()
        except OSError:
            continue
        if device_type in name and f"\nPPid:\t{process.pid}\n" in grandparent:
            return int(entry.name)
    raise AssertionError(f"no process {device_type}")


@pytest.mark.parametrize("sandbox", ["process", "none"])
def test_server_answers_lines_and_ends_with_its_input(sandbox: str) -> None:
    status, output, errors = run_lines(LINES, "--sandbox", sandbox)
    assert (status, errors) == (0, "")
    assert tuple(output[: len(ANSWERS)]) == ANSWERS
    rest = [line for line in output[len(ANSWERS) :] if not line.startswith("IRQ")]
    assert rest[:6] == ["OK 2000000000", "OK", "OK 0x0022", "OK", "OK 0x0000", "OK 2027462701"]
    assert rest[6:] == ["FAIL Unknown command 'nonsense'", "FAIL could not advance time", "OK little"]


def test_both_sandboxes_say_the_same() -> None:
    assert run_lines(LINES, "--sandbox", "process") == run_lines(LINES, "--sandbox", "none")


def test_no_input_is_status_0() -> None:
    assert run_lines(()) == (0, [], "")


def test_paced_uart_takes_the_time_of_its_divisor() -> None:
    lines = ("outb 0x3f8 0x41", "outb 0x3f8 0x42", "inb 0x3fd", "clock_step 2100000", "inb 0x3fd")
    assert run_lines(lines, "--uart-pace")[1][2::2] == ["OK 0x0000", "OK 0x0060"]
    assert run_lines(lines)[1][2::2] == ["OK 0x0060", "OK 0x0060"]


@pytest.mark.parametrize("sandbox", ["process", "none"])
def test_sigterm_is_status_0_also_within_a_long_step(sandbox: str) -> None:
    with server("--sandbox", sandbox) as process:
        process.send_signal(signal.SIGTERM)
        assert end(process) == (0, "")
    with server("--sandbox", sandbox) as process:
        assert ask(process, "irq_intercept_in ioapic") == "OK"
        # A year of the PIT: when the first messages are here, it is at work.
        assert ask(process, "clock_step 31536000000000000") == "IRQ raise 0"
        process.send_signal(signal.SIGTERM)
        assert end(process) == (0, "")


def test_needs_no_kvm() -> None:
    with server() as process:
        opened = {os.readlink(path) for path in Path(f"/proc/{process.pid}/fd").iterdir()}
        assert "/dev/kvm" not in opened


@pytest.mark.root
@pytest.mark.parametrize("device_type", ["uart", "pit", "rtc"])
def test_device_process_that_dies_is_status_8_also_between_requests(device_type: str) -> None:
    with server() as process:
        os.kill(device_process(process, device_type), signal.SIGKILL)
        status, errors = end(process)
        assert status == 8
        assert errors.splitlines() == [
            f"kvmbox: error: device process '{device_type}' was killed by signal 9 (SIGKILL)"
        ]


@pytest.mark.root
def test_device_process_that_dies_within_a_request_is_status_8_and_says_how() -> None:
    with server() as process:
        pid = device_process(process, "rtc")
        os.kill(pid, signal.SIGSTOP)
        assert process.stdin is not None
        process.stdin.write(b"inb 0x71\n")
        process.stdin.flush()
        os.kill(pid, signal.SIGKILL)
        status, errors = end(process)
        assert status == 8
        assert errors == "kvmbox: error: device process 'rtc' was killed by signal 9 (SIGKILL)\n"


@pytest.mark.root
def test_device_process_that_hangs_is_status_8() -> None:
    with server() as process:
        os.kill(device_process(process, "rtc"), signal.SIGSTOP)
        assert process.stdin is not None
        process.stdin.write(b"inb 0x71\n")
        process.stdin.flush()
        status, errors = end(process)
        assert status == 8
        assert errors.startswith("kvmbox: error: device process 'rtc' is hung")


def test_answer_that_cannot_be_written_is_status_14() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    try:
        done = subprocess.run(
            [*KVMBOX, "qtest", "--sandbox", "none"],
            input=b"endianness\n",
            stdout=write_end,
            stderr=subprocess.PIPE,
            timeout=PATIENCE_S,
            check=False,
        )
    finally:
        os.close(write_end)
    assert done.returncode == 14
    assert done.stderr.startswith(b"kvmbox: error: cannot write the answer: Broken pipe\n")


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("--rtc-base", "yesterday"), 2),
        (("--sandbox", "thread"), 2),
        (("--memory", "1"), 2),
        (("--socket", "/nonexistent/socket"), 4),
    ],
)
def test_what_cannot_be_is_reported(arguments: tuple[str, ...], status: int) -> None:
    done_status, output, errors = run_lines((), *arguments)
    assert (done_status, output) == (status, [])
    assert errors.startswith("kvmbox: error: ")
    assert "Traceback" not in errors


# --- Sockets -------------------------------------------------------------------------------------------


def connect(path: Path, process: subprocess.Popen[bytes]) -> socket.socket:
    """Connect as soon as the server listens, which is all that there is to wait for."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(PATIENCE_S)
    while process.poll() is None:
        try:
            connection.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            continue
        return connection
    raise AssertionError("the server ended")


def test_socket_serves_its_first_client_and_is_gone_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "qtest.sock"
    command = [*KVMBOX, "qtest", *BASE, "--socket", str(path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        try:
            with connect(path, process) as client:
                client.sendall(b"inb 0x3fd\nend")
                assert client.makefile().readline() == "OK 0x0060\n"
                assert not path.exists()
            assert end(process) == (0, "")
        finally:
            process.kill()


def test_socket_is_for_its_user_alone(tmp_path: Path) -> None:
    path = tmp_path / "qtest.sock"
    command = [*KVMBOX, "qtest", *BASE, "--socket", str(path)]
    with subprocess.Popen(command, umask=0) as process:
        try:
            while not path.exists():
                assert process.poll() is None, "the server ended"
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
        finally:
            process.kill()


def test_socket_path_that_is_taken_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "qtest.sock"
    path.write_text("mine")
    status, _, errors = run_lines((), "--socket", str(path))
    assert status == 4
    assert "cannot listen at" in errors
    assert path.read_text() == "mine"
