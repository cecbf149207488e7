"""--serial: what is accepted, what the plan of all ports is, and the backends that are opened."""

from __future__ import annotations

import os
import termios
from pathlib import Path

import pytest

from kvmbox.base.errors import StartError, UsageError
from kvmbox.contract.names import VIRTIO_CONSOLE
from kvmbox.host.console.pseudo_terminal import open_pty
from kvmbox.host.console.serial_backends import (
    DEBUGCON,
    SerialSpec,
    open_file,
    parse_debugcon,
    parse_serial,
    serial_plan,
)


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("COM1=stdio", SerialSpec("COM1", "stdio")),
        ("com2=null", SerialSpec("COM2", "null")),
        ("COM3=pty", SerialSpec("COM3", "pty")),
        ("COM4=file:out.txt", SerialSpec("COM4", "file", "out.txt")),
        ("mmio=file:/a:b=c", SerialSpec("MMIO", "file", "/a:b=c")),
    ],
)
def test_parse_serial_accepts(text: str, spec: SerialSpec) -> None:
    assert parse_serial(text) == spec


@pytest.mark.parametrize("text", ["", "COM1", "=null", "COM5=null", "COM0=null", "tty=null", "COM1:null"])
def test_parse_serial_unknown_port_raises_and_tells_what_is_accepted(text: str) -> None:
    with pytest.raises(UsageError, match="no such serial port") as caught:
        parse_serial(text)
    assert "COM1, COM2, COM3, COM4, MMIO" in str(caught.value.hint)


@pytest.mark.parametrize(
    "backend", ["", "file", "file:", "null:", "null:x", "pty:1", "stdio:", "stdout", "tcp:1", "FILE:x"]
)
def test_parse_serial_unknown_backend_raises_and_tells_what_is_accepted(backend: str) -> None:
    with pytest.raises(UsageError, match="unknown backend") as caught:
        parse_serial(f"COM1={backend}")
    assert "PORT=file:PATH" in str(caught.value.hint)


def test_serial_plan_without_options_has_com1_on_stdio_and_the_mmio_uart_shown() -> None:
    assert serial_plan([]) == {
        "COM1": SerialSpec("COM1", "stdio"),
        "MMIO": SerialSpec("MMIO", "stdout"),
    }


def test_serial_plan_another_port_on_stdio_takes_it_from_com1() -> None:
    plan = serial_plan(["COM2=stdio", "COM3=pty"])
    assert {port: spec.kind for port, spec in plan.items()} == {
        "COM2": "stdio",
        "COM3": "pty",
        "COM1": "null",
        "MMIO": "stdout",
    }


def test_serial_plan_options_win_over_defaults() -> None:
    plan = serial_plan(["COM1=file:x", "MMIO=null"])
    assert {port: spec.kind for port, spec in plan.items()} == {"COM1": "file", "MMIO": "null"}


def test_serial_plan_port_twice_raises() -> None:
    with pytest.raises(UsageError, match="names COM2 twice"):
        serial_plan(["COM2=null", "com2=pty"])


def test_serial_plan_two_ports_on_stdio_raises() -> None:
    with pytest.raises(UsageError, match="COM2 and COM3 on stdio"):
        serial_plan(["COM2=stdio", "COM3=stdio"])


def test_open_file_empties_what_was_there_and_is_not_inherited(tmp_path: Path) -> None:
    path = tmp_path / "out.txt"
    path.write_text("old")
    descriptor = open_file(SerialSpec("COM1", "file", str(path)))
    assert not os.get_inheritable(descriptor)
    os.write(descriptor, b"new")
    os.close(descriptor)
    assert path.read_text() == "new"


def test_open_file_in_no_directory_raises_start_error(tmp_path: Path) -> None:
    path = str(tmp_path / "none" / "out.txt")
    with pytest.raises(StartError, match=r"cannot write serial output to .*: No such file or directory"):
        open_file(SerialSpec("COM1", "file", path))
    with pytest.raises(StartError, match=r"cannot write the debug console's output to .*: No such file"):
        open_file(SerialSpec(DEBUGCON, "file", path))
    with pytest.raises(StartError, match="cannot write the virtio console's output to") as caught:
        open_file(SerialSpec(VIRTIO_CONSOLE, "file", path))
    assert caught.value.hint


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        *((kind, SerialSpec(DEBUGCON, kind)) for kind in ("auto", "stdout", "stderr", "null")),
        ("file:a:b", SerialSpec(DEBUGCON, "file", "a:b")),
    ],
)
def test_parse_debugcon(text: str, spec: SerialSpec) -> None:
    assert parse_debugcon(text) == spec


@pytest.mark.parametrize("text", ["", "file", "file:", "stdio", "pty", "null:x", "stdout:", "AUTO"])
def test_parse_debugcon_refuses_and_says_what_is_accepted(text: str) -> None:
    with pytest.raises(UsageError, match=f"--debugcon: unknown backend '{text}'") as caught:
        parse_debugcon(text)
    assert "auto, stdout, stderr, null or file:PATH" in str(caught.value.hint)


def test_open_pty_gives_a_raw_terminal_that_can_be_opened() -> None:
    master, path = open_pty()
    slave = os.open(path, os.O_RDWR | os.O_NOCTTY)
    try:
        assert not os.get_blocking(master)
        with pytest.raises(BlockingIOError):
            os.read(master, 1)
        assert not termios.tcgetattr(slave)[3] & (termios.ECHO | termios.ICANON)
        os.write(master, b"a\nb")
        assert os.read(slave, 8) == b"a\nb"
    finally:
        os.close(slave)
        os.close(master)
