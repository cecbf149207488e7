"""From options to a running server: sandbox, board, machine, session, in the order that they need.

Nothing of the machine may be open when the spawner starts, and whatever was started is ended, also when a
step in between fails.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from kvmbox.base import layout
from kvmbox.base.errors import DeviceProcessError
from kvmbox.base.memory import GuestMemory
from kvmbox.base.value_classes import Value
from kvmbox.contract.names import MMIO_UART
from kvmbox.devices.pc_board import BoardOptions, whole_board
from kvmbox.host.files.descriptor_limit import allow_enough
from kvmbox.remote.channel.deadlines import printable
from kvmbox.tools.qtest import qtest_protocol
from kvmbox.tools.qtest.bare_machine import BareMachine
from kvmbox.tools.qtest.client_session import Dialogue, IrqWatch
from kvmbox.tools.qtest.sandbox import open_sandbox
from kvmbox.tools.qtest.server_loop import Connection, LineReader, Terminated, end_on_sigterm, send_to, serve

SERIAL_PORTS = ("COM1", "COM2", MMIO_UART)
"""Present on a qtest board: those with interrupt lines of their own."""


class QtestOptions(Value):
    """`rtc_base`: the wall clock at virtual time 0, in seconds since 1970. `memory_size`: bytes of RAM.

    `sandbox`: "process" or "none". `uart_pace`: UARTs take the time of their divisor to transmit.
    """

    rtc_base: int
    memory_size: int = layout.DEFAULT_MEMORY
    sandbox: str = "process"
    uart_pace: bool = False


class Client(Value):
    """The descriptors of a qtest client. `log`, if any, gets each line and each answer."""

    input: int
    output: int
    is_socket: bool
    log: Callable[[bytes], None] | None = None


def run_server(
    options: QtestOptions,
    connect: Callable[[ExitStack], Client],
    more: Callable[[ExitStack, BareMachine], list[Connection]] | None = None,
) -> None:
    """Serve one client to its end, or to SIGTERM. `connect` gets it once the devices are ready, `more` adds
    connections.

    Both may leave what they opened to the stack. Raises what `server_loop.serve` raises, but for Terminated.
    """
    try:
        end_on_sigterm()
        allow_enough()
        with ExitStack() as cleanup:
            sandbox = cleanup.enter_context(open_sandbox(options.sandbox))
            memory = GuestMemory(options.memory_size)
            cleanup.callback(memory.close)
            board = whole_board(
                BoardOptions(
                    serial_ports=SERIAL_PORTS,
                    rtc_base=options.rtc_base,
                    memory_size=options.memory_size,
                    uart_pace=options.uart_pace,
                )
            )
            irqs = IrqWatch()
            machine = BareMachine(board, memory, irqs.changed)
            sandbox.connect(machine, board)
            client = connect(cleanup)
            send = send_to(client.output, is_socket=client.is_socket)
            if client.log is not None:
                send = _logged(send, client.log, b"S")
            session = Dialogue(machine, irqs, send)
            handle: Callable[[bytes], None] = session.handle
            if client.log is not None:
                handle = _logged(handle, client.log, b"R")
            reader = LineReader(handle, lambda: send(qtest_protocol.LINE_TOO_LONG))
            connections = [Connection(client.input, reader, decisive=True)]
            if more is not None:
                connections += more(cleanup, machine)
            try:
                serve(connections, sandbox)
            except DeviceProcessError as error:
                raise sandbox.explain(error) from error
    except Terminated:
        return


def _logged(
    function: Callable[[bytes], None], log: Callable[[bytes], None], mark: bytes
) -> Callable[[bytes], None]:
    def call(data: bytes) -> None:
        lines = data.rstrip(b"\n").split(b"\n")
        text = "\n".join(printable(line, len(line)) for line in lines)
        log(b"[" + mark + b"] " + text.encode() + b"\n")
        function(data)

    return call
