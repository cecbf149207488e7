"""Where a serial port's bytes go and come from: `PORT=file:PATH`, `PORT=null`, `PORT=pty`, `PORT=stdio`.

COM1 and the memory-mapped UART are always there. Unless told otherwise COM1 is on stdio, and the
memory-mapped one shows its output on stdout as well and has no input. The debug console has an option of its
own: without it, its output is on stdout, but for what the port on stdio prints as well (`host.mirror`).
"""

from __future__ import annotations

import errno
import os
import tty
from typing import Final

from kvmbox.board import MMIO_UART, SERIAL_PORTS
from kvmbox.errors import StartError, UsageError
from kvmbox.lean import Value

DEBUGCON: Final = "debugcon"
"""The debug console's name among the streams of the board."""


class SerialSpec(Value):
    """`kind` is "file", "null", "pty", "stdio" or, output only, "stdout", "stderr" or "auto" (the debug
    console: stdout, and what the port on stdio prints too is shown once); `path` belongs to "file".
    """

    port: str
    kind: str
    path: str = ""


DEBUGCON_DEFAULT: Final = SerialSpec(DEBUGCON, "auto")


def parse_serial(text: str) -> SerialSpec:
    """The option's text; UsageError that says what is accepted."""
    port, equals, backend = text.partition("=")
    accepted = f"PORT=file:PATH, PORT=null, PORT=pty or PORT=stdio, PORT one of {', '.join(SERIAL_PORTS)}"
    if not equals or port.upper() not in SERIAL_PORTS:
        raise UsageError(f"--serial '{text}': no such serial port '{port}'", hint=f"accepted: {accepted}")
    kind, colon, path = backend.partition(":")
    if kind == "file" and colon and path:
        return SerialSpec(port.upper(), kind, path)
    if kind in ("null", "pty", "stdio") and not colon:
        return SerialSpec(port.upper(), kind)
    raise UsageError(f"--serial '{text}': unknown backend '{backend}'", hint=f"accepted: {accepted}")


def parse_debugcon(text: str) -> SerialSpec:
    """The text of --debugcon; UsageError that says what is accepted."""
    kind, colon, path = text.partition(":")
    if kind == "file" and colon and path:
        return SerialSpec(DEBUGCON, kind, path)
    if kind in ("auto", "stdout", "stderr", "null") and not colon:
        return SerialSpec(DEBUGCON, kind)
    raise UsageError(
        f"--debugcon: unknown backend '{text}'", hint="accepted: auto, stdout, stderr, null or file:PATH"
    )


def serial_plan(options: list[str]) -> dict[str, SerialSpec]:
    """All serial ports of a run by name: COM1 on stdio unless it was given, and what `options` ask for."""
    plan: dict[str, SerialSpec] = {}
    for text in options:
        spec = parse_serial(text)
        if spec.port in plan:
            raise UsageError(f"--serial names {spec.port} twice")
        plan[spec.port] = spec
    if "COM1" not in plan:
        taken = any(spec.kind == "stdio" for spec in plan.values())
        plan["COM1"] = SerialSpec("COM1", "null" if taken else "stdio")
    plan.setdefault(MMIO_UART, SerialSpec(MMIO_UART, "stdout"))
    users = [spec.port for spec in plan.values() if spec.kind == "stdio"]
    if len(users) > 1:
        raise UsageError(f"--serial puts {' and '.join(users)} on stdio", hint="one port can have it")
    return plan


def open_file(spec: SerialSpec) -> int:
    """A descriptor to write a port's output to, created or emptied; StartError if it cannot be had."""
    try:
        return open_for_writing(spec.path)
    except OSError as error:
        what = "the debug console's" if spec.port == DEBUGCON else "serial"
        raise StartError(f"cannot write {what} output to '{spec.path}': {reason(error)}") from error


def open_for_writing(path: str) -> int:
    """Open `path` for writing, created or emptied, without waiting for anybody. Raises OSError."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOCTTY
    # To open a FIFO that nobody reads would block, before any time-out is kept.
    descriptor = os.open(path, flags | os.O_NONBLOCK, 0o666)
    os.set_blocking(descriptor, True)
    return descriptor


def reason(error: OSError) -> str:
    """What an OSError of `open_for_writing` means."""
    return "nobody reads this FIFO" if error.errno == errno.ENXIO else error.strerror or str(error)


def open_pty() -> tuple[int, str]:
    """A pseudo-terminal in raw mode: the master's descriptor, non-blocking, and the path to open."""
    try:
        master, slave = os.openpty()
    except OSError as error:
        raise StartError(f"cannot open a pseudo-terminal: {error.strerror}") from error
    tty.setraw(slave)
    path = os.ttyname(slave)
    # Closing our slave makes the master say "hung up" until somebody opens the path.
    os.close(slave)
    os.set_blocking(master, False)
    return master, path
