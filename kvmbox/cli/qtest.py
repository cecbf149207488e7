"""`kvmbox qtest`: the devices of a run, driven over QEMU's qtest protocol, without a CPU and /dev/kvm."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import click

from kvmbox.base.errors import StartError
from kvmbox.cli.click_options import SANDBOX, as_in_run, takes
from kvmbox.host.sockets.unix_socket import listen_at
from kvmbox.run.options.definition import Option
from kvmbox.run.options.values import parse_rtc_base

if TYPE_CHECKING:
    from contextlib import ExitStack

    from kvmbox.tools.qtest.start_server import Client


@click.command("qtest", short_help="test the devices with QEMU's qtest protocol, without a CPU")
@takes(
    Option(
        "path",
        "Accept one client on this Unix socket instead of stdin and stdout.",
        flag="--socket",
        metavar="PATH",
    ),
    as_in_run("rtc_base"),
    as_in_run("memory", help="Memory of the board, such as 64M or 1G."),
    as_in_run("uart_pace"),
    SANDBOX,
)
def command(path: str | None, rtc_base: str, memory: int, uart_pace: bool, sandbox: str) -> int:
    """Serve QEMU's qtest protocol, which accesses the devices of 'kvmbox run' without a CPU.

    Each line of input is one request: outb ADDR VAL, inb ADDR, clock_step NS, irq_intercept_in ioapic …
    (docs/qtest.md). Only requests advance virtual time. The board has COM1, COM2 and the MMIO UART; their
    output is dropped. /dev/kvm is not needed.

    \b
    Exit status:
      0    end of input, or SIGTERM
      2    usage error
      4    the server could not start
      8    a device process failed
      14   kvmbox or its output failed
      130  interrupted
    """
    from kvmbox.tools.qtest.start_server import Client, QtestOptions, run_server

    def connect(cleanup: ExitStack) -> Client:
        return Client(0, 1, is_socket=False) if path is None else _accept(path, cleanup)

    run_server(QtestOptions(parse_rtc_base(rtc_base), memory, sandbox, uart_pace), connect)
    return 0


def _accept(path: str, cleanup: ExitStack) -> Client:
    """Listen at `path` and take one client; the path is gone as soon as it is there."""
    from kvmbox.tools.qtest.start_server import Client

    try:
        listener = listen_at(path)
    except OSError as error:
        raise StartError(
            f"cannot listen at '{path}': {error.strerror or error}",
            hint="the path must be free, its directory writable, and both short" if path else None,
        ) from error
    with listener:
        try:
            connection, _ = listener.accept()
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
    cleanup.callback(connection.close)
    return Client(connection.fileno(), connection.fileno(), is_socket=True)
