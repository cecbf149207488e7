"""`kvmbox-system-x86_64`: `kvmbox qtest` for programs that expect to start QEMU.

QEMU's own test programs take the emulator from QTEST_QEMU_BINARY and start it with sockets that they listen
on: one for qtest, one for QMP. Options that say where these are, what the RTC shows and how much memory there
is are obeyed. Options that ask for something that this board is anyway, or that changes nothing here, are
accepted. All others are refused: a test must not pass because its device was left out in silence.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NoReturn

import click

from kvmbox.base import layout
from kvmbox.base.errors import StartError, UsageError
from kvmbox.cli import main
from kvmbox.cli.messages import say
from kvmbox.host.console.serial_backends import open_for_writing, reason
from kvmbox.run.options.values import parse_rtc_base, parse_size

if TYPE_CHECKING:
    from kvmbox.tools.qtest.bare_machine import BareMachine
    from kvmbox.tools.qtest.server_loop import Connection
    from kvmbox.tools.qtest.start_server import Client

OBEYED: Final = {
    "-qtest": "unix:PATH or stdio: where the qtest client is",
    "-qtest-log": "a file for requests and answers, or none",
    "-chardev": "socket,path=PATH,id=ID: a socket that -mon names",
    "-mon": "chardev=ID,mode=control: QMP there",
    "-rtc": "base=utc|localtime|DATE: what the RTC shows at first",
    "-m": "memory in MiB, or with a unit, as 128 or 1G",
}
"""Options with a value that counts."""

ACCEPTED_WITH_VALUE: Final = frozenset(
    (  # noqa: SIM905 - a line each otherwise
        "-M -accel -audio -audiodev -boot -cpu -display -machine -monitor -name -net -nic -run-with -smp "
        "-trace -vga"
    ).split()
)
"""Options with a value that changes nothing here."""

ACCEPTED: Final = frozenset(
    (  # noqa: SIM905 - a line each otherwise
        "-S -no-reboot -no-shutdown -no-user-config -nodefaults -nographic -only-migratable"
    ).split()
)
"""Options without a value that change nothing here."""

SERIAL_NOWHERE: Final = {"null", "none"}
"""What -serial may say: output goes nowhere."""


@dataclass(slots=True)
class Arguments:
    """What the command line asks for."""

    qtest: str = ""
    log: str | None = None
    chardevs: dict[str, str] = field(default_factory=dict)
    monitors: list[str] = field(default_factory=list)
    rtc_base: str = "utc"
    memory_size: int = layout.DEFAULT_MEMORY


def parse_arguments(words: list[str]) -> Arguments:
    """The command line as QEMU reads it: one or two dashes, values as words of their own. UsageError."""
    found = Arguments()
    position = 0
    while position < len(words):
        word = words[position]
        option = word[1:] if word.startswith("--") else word
        position += 1
        if option in ACCEPTED:
            continue
        if option not in OBEYED and option not in ACCEPTED_WITH_VALUE and option != "-serial":
            raise UsageError(f"'{word}' is nothing that kvmbox's qtest board has", hint=_hint())
        if position == len(words):
            raise _refused(option, f"'{word}' wants a value")
        value = words[position]
        position += 1
        if option in OBEYED:
            _obey(found, option, value)
        elif option == "-accel" and value.partition(",")[0] != "qtest":
            raise _refused(option, f"-accel {value}: there is no CPU, only 'qtest'")
        elif option == "-serial" and value not in SERIAL_NOWHERE:
            raise _refused(option, f"-serial {value}: serial output goes nowhere, only 'null' and 'none'")
    if not found.qtest:
        raise _refused("-qtest", "no -qtest: kvmbox runs guests with 'kvmbox run'")
    return found


def _hint() -> str:
    return "accepted: " + " ".join(sorted({*OBEYED, *ACCEPTED_WITH_VALUE, *ACCEPTED, "-serial"}))


def _refused(option: str, why: str) -> UsageError:
    takes = {**OBEYED, "-accel": "qtest", "-serial": "null or none"}.get(option, "any value, without effect")
    return UsageError(why, hint=f"'{option}' takes {takes}")


def _obey(found: Arguments, option: str, value: str) -> None:
    if option == "-qtest":
        kind, _, path = value.partition(":")
        if value != "stdio" and (kind != "unix" or not path or "," in path):
            raise _refused(option, f"-qtest {value}: only unix:PATH (a socket that listens) and stdio")
        found.qtest = value
    elif option == "-qtest-log":
        found.log = None if value == "none" else value
    elif option == "-chardev":
        backend, properties = _properties(value)
        if backend != "socket" or set(properties) != {"path", "id"}:
            raise _refused(option, f"-chardev {value}: only socket,path=PATH,id=ID")
        found.chardevs[properties["id"]] = properties["path"]
    elif option == "-mon":
        first, properties = _properties(value)
        name = properties.get("chardev", first)
        if properties.get("mode") != "control":
            raise _refused(option, f"-mon {value}: only mode=control, that is QMP")
        found.monitors.append(name)
    elif option == "-rtc":
        _, properties = _properties(value)
        found.rtc_base = properties.get("base", "utc")
    else:
        first, properties = _properties(value)
        text = properties.get("size", first)
        size = int(text) << 20 if text.isdecimal() else parse_size(text)
        if not size or size % layout.PAGE_SIZE or not layout.MIN_MEMORY <= size <= layout.MAX_MEMORY:
            raise _refused(option, f"-m {value} is no size that kvmbox can give")
        found.memory_size = size


def _properties(value: str) -> tuple[str, dict[str, str]]:
    """QEMU's 'first,name=value,…': the first word if it has no name, and the named ones."""
    first, properties = "", {}
    for index, part in enumerate(value.split(",")):
        name, equals, text = part.partition("=")
        if equals:
            properties[name] = text
        elif index == 0:
            first = name
        else:
            properties[name] = "on"
    return first, properties


class _QemuCommand(click.Command):
    """Takes all words as they are: QEMU's options are not click's."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Hand `args` over as the one parameter."""
        ctx.params["words"] = args
        return []


@click.command("kvmbox-system-x86_64", cls=_QemuCommand)
def command(words: list[str]) -> int:
    """Serve to the end of the client, SIGTERM, or `quit` over QMP; returns the exit status."""
    from kvmbox.tools.qtest.start_server import Client, QtestOptions, run_server

    arguments = parse_arguments(words)
    missing = [name for name in arguments.monitors if name not in arguments.chardevs]
    if missing:
        raise _refused("-chardev", f"-mon chardev={missing[0]}: there is no -chardev of that name")
    options = QtestOptions(parse_rtc_base(arguments.rtc_base), arguments.memory_size)

    def connect(cleanup: ExitStack) -> Client:
        log = _open_log(arguments.log, cleanup)
        if arguments.qtest == "stdio":
            return Client(0, 1, is_socket=False, log=log)
        descriptor = _connect(arguments.qtest.removeprefix("unix:"), cleanup).fileno()
        return Client(descriptor, descriptor, is_socket=True, log=log)

    def monitors(cleanup: ExitStack, machine: BareMachine) -> list[Connection]:
        return [_monitor(arguments.chardevs[name], machine, cleanup) for name in arguments.monitors]

    run_server(options, connect, monitors)
    return 0


def _connect(path: str, cleanup: ExitStack) -> socket.socket:
    connection = cleanup.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
    try:
        connection.connect(path)
    except OSError as error:
        raise StartError(
            f"cannot connect to '{path}': {error.strerror or error}",
            hint="the test program must listen there before it starts this one",
        ) from error
    return connection


def _monitor(path: str, machine: BareMachine, cleanup: ExitStack) -> Connection:
    from kvmbox.tools.qtest.outbox import Outbox
    from kvmbox.tools.qtest.qmp import QmpServer
    from kvmbox.tools.qtest.server_loop import Connection

    connection = _connect(path, cleanup)
    outbox = Outbox(connection, lambda why: say(f"QMP: {why}"))
    monitor = QmpServer(machine, outbox.send)
    monitor.greet()
    return Connection(connection.fileno(), monitor, decisive=False, outbox=outbox)


def _open_log(path: str | None, cleanup: ExitStack) -> Callable[[bytes], None] | None:
    if path is None or path == os.devnull:
        return None
    try:
        descriptor = open_for_writing(path)
    except OSError as error:
        raise StartError(f"cannot write -qtest-log '{path}': {reason(error)}") from error
    cleanup.callback(os.close, descriptor)

    def log(line: bytes) -> None:
        # A log that cannot be written must not change what a test sees.
        with contextlib.suppress(OSError):
            os.write(descriptor, line)

    return log


def entry_point() -> NoReturn:
    """What the `kvmbox-system-x86_64` script does once signals are listened to."""
    main.entry_point(command, "kvmbox-system-x86_64")
