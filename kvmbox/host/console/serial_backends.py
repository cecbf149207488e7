"""The backends of serial ports: `PORT=file:PATH`, `PORT=null`, `PORT=pty`, `PORT=stdio`.

COM1 and the memory-mapped UART always exist. By default COM1 is the console. The console is on stdio for the
command line, and in memory (`host.console.captured_port`) for a program. The memory-mapped UART prints on the
console and has no input. The debug console has a separate option. By default it prints on the console, except
for lines that the other port there prints as well (`host.console.duplicate_output`).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from kvmbox.base.errors import StartError, UsageError
from kvmbox.base.value_classes import Value
from kvmbox.contract.names import MMIO_UART, SERIAL_PORTS, VIRTIO_CONSOLE

if TYPE_CHECKING:
    from kvmbox.host.console.captured_port import Capture
    from kvmbox.host.console.sent_input import Typed

DEBUGCON: Final = "debugcon"
"""The debug console's name among the streams of the board."""


class SerialSpec(Value):
    """`kind` is "file", "null", "pty", "stdio" or "capture"; or, output only, "stdout", "stderr", "shared"
    (the Capture that another port has), or "auto" (the debug console: where the console is, and what the port
    there prints too is shown once). `path` belongs to "file", `capture` to what is kept in memory.
    """

    port: str
    kind: str
    path: str = ""
    capture: Capture | None = None


DEBUGCON_DEFAULT: Final = SerialSpec(DEBUGCON, "auto")


class KeyboardSpec(Value):
    """Where the keys of the keyboard come from: `keys` are those that a program presses. With
    `reads_console` what is typed on `console`, or on stdin where that is None, goes to the keyboard and
    to no serial port. `mouse` are the events of the mouse.
    """

    keys: Typed
    mouse: Typed
    reads_console: bool = False
    console: Capture | None = None


def parse_serial(text: str) -> SerialSpec:
    """'PORT=BACKEND'; UsageError that says what is accepted."""
    port, equals, backend = text.partition("=")
    return _serial_spec(port, backend if equals else None, text)


def _serial_spec(port: str, backend: str | Capture | None, text: str) -> SerialSpec:
    accepted = f"PORT=file:PATH, PORT=null, PORT=pty or PORT=stdio, PORT one of {', '.join(SERIAL_PORTS)}"
    if port.upper() not in SERIAL_PORTS or backend is None:
        raise UsageError(f"--serial '{text}': no such serial port '{port}'", hint=f"accepted: {accepted}")
    if not isinstance(backend, str):
        from kvmbox.host.console.captured_port import checked

        return SerialSpec(port.upper(), "capture", capture=checked(f"--serial {port}", backend))
    kind, colon, path = backend.partition(":")
    if kind == "file" and colon and path:
        return SerialSpec(port.upper(), kind, path)
    if kind in ("null", "pty", "stdio") and not colon:
        return SerialSpec(port.upper(), kind)
    raise UsageError(f"--serial '{text}': unknown backend '{backend}'", hint=f"accepted: {accepted}")


def parse_debugcon(backend: str | Capture) -> SerialSpec:
    """What --debugcon may be; UsageError that says what is accepted."""
    if not isinstance(backend, str):
        from kvmbox.host.console.captured_port import checked

        return SerialSpec(DEBUGCON, "capture", capture=checked("--debugcon", backend))
    kind, colon, path = backend.partition(":")
    if kind == "file" and colon and path:
        return SerialSpec(DEBUGCON, kind, path)
    if kind in ("auto", "stdout", "stderr", "null") and not colon:
        return SerialSpec(DEBUGCON, kind)
    raise UsageError(
        f"--debugcon: unknown backend '{backend}'", hint="accepted: auto, stdout, stderr, null or file:PATH"
    )


Backends = Mapping[str, "str | Capture"] | Sequence[str]
"""Serial ports by name, each with its backend; or texts such as 'COM2=null'."""


def console_of(serial: Backends, choice: str) -> Capture | None:
    """Where the console is: COM1's own Capture, or a new one; None for stdio."""
    if isinstance(serial, Mapping):
        backends: dict[str, str | Capture] = {port.upper(): backend for port, backend in serial.items()}
    else:
        backends = {port.upper(): backend for port, _, backend in (text.partition("=") for text in serial)}
    if choice == "stdio" or "stdio" in backends.values():
        return None
    com1 = backends.get("COM1")
    if com1 is None or isinstance(com1, str):
        from kvmbox.host.console.captured_port import Capture

        return Capture()
    return com1


def serial_plan(options: Backends, console: Capture | None = None) -> dict[str, SerialSpec]:
    """All serial ports of a run by name: COM1, and what `options` ask for.

    COM1 is on `console`, or where that is None on stdio, unless `options` name it; the memory-mapped
    UART's output is shown there, too. Raises UsageError.
    """
    if isinstance(options, Mapping):
        specs = [_serial_spec(port, backend, f"{port}={backend}") for port, backend in options.items()]
    else:
        specs = [parse_serial(text) for text in options]
    plan: dict[str, SerialSpec] = {}
    for spec in specs:
        if spec.port in plan:
            raise UsageError(f"--serial names {spec.port} twice")
        plan[spec.port] = spec
    if "COM1" not in plan:
        taken = any(spec.kind == "stdio" or spec.capture is console is not None for spec in plan.values())
        used = (
            SerialSpec("COM1", "stdio") if console is None else SerialSpec("COM1", "capture", capture=console)
        )
        plan["COM1"] = SerialSpec("COM1", "null") if taken else used
    kind = "stdout" if console is None else "shared"
    plan.setdefault(MMIO_UART, SerialSpec(MMIO_UART, kind, capture=console))
    for kind, place in (("stdio", "on stdio"), ("capture", "on one Capture")):
        users = [spec for spec in plan.values() if spec.kind == kind]
        for one in users:
            for other in users:
                if one.port < other.port and one.capture is other.capture:
                    raise UsageError(
                        f"--serial puts {one.port} and {other.port} {place}", hint="one port can have it"
                    )
    return plan


_OUTPUTS: Final = {DEBUGCON: "the debug console's", VIRTIO_CONSOLE: "the virtio console's"}


def open_file(spec: SerialSpec) -> int:
    """A descriptor for the output of a port; the file is created or emptied. Raises StartError."""
    try:
        return open_for_writing(spec.path)
    except OSError as error:
        what = _OUTPUTS.get(spec.port, "serial")
        raise StartError(
            f"cannot write {what} output to '{spec.path}': {reason(error)}",
            hint="name a file that can be written, in a directory that exists",
        ) from error


def open_for_writing(path: str, mode: int = 0o666) -> int:
    """Open `path` for writing, created or emptied, without waiting for anybody. Raises OSError.

    A new file gets `mode`, less the umask; another one keeps its mode.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOCTTY
    # To open a FIFO that nobody reads would block, before any time-out is kept.
    descriptor = os.open(path, flags | os.O_NONBLOCK, mode)
    os.set_blocking(descriptor, True)
    return descriptor


def reason(error: OSError) -> str:
    """What an OSError of `open_for_writing` means."""
    return "nobody reads this FIFO" if error.errno == errno.ENXIO else error.strerror or str(error)
