"""Where a serial port's bytes go and come from: `PORT=file:PATH`, `PORT=null`, `PORT=pty`, `PORT=stdio`.

COM1 and the memory-mapped UART are always there. Unless told otherwise COM1 is on stdio, and the
memory-mapped one shows its output on stdout as well and has no input, as the debug console does.
"""

from __future__ import annotations

import errno
import os
import tty

from kvmbox.board import MMIO_UART, SERIAL_PORTS
from kvmbox.errors import StartError, UsageError
from kvmbox.lean import Value


class SerialSpec(Value):
    """`kind` is "file", "null", "pty", "stdio" or "stdout" (output only); `path` belongs to "file"."""

    port: str
    kind: str
    path: str = ""


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


def open_file(path: str) -> int:
    """A descriptor to write a port's output to, created or emptied; StartError if it cannot be had."""
    try:
        return open_for_writing(path)
    except OSError as error:
        raise StartError(f"cannot write serial output to '{path}': {reason(error)}") from error


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
