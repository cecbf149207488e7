"""One client's session: a line in, interrupt messages and one answer out.

A request's interrupt messages come before its answer, in the order of the level changes. Messages begin with
`irq_intercept_in`; from there each line is taken to have been low, as QEMU does: a line that is high at that
moment is first heard of when it rises again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from kvmbox.tools.qtest import qtest_protocol
from kvmbox.tools.qtest.qtest_protocol import Request, RequestError

if TYPE_CHECKING:
    from kvmbox.tools.qtest.bare_machine import BareMachine


MAX_MESSAGES: Final = 4096
"""How many messages are kept at most until they are sent: one step of the clock may cause any number."""


class IrqWatch:
    """Level changes of interrupt lines as messages, once somebody wants them."""

    def __init__(self) -> None:
        self.enabled = False
        self.send: Callable[[bytes], None] | None = None
        """Where messages go when they are too many to wait for the answer."""
        self._levels: dict[int, int] = {}
        self._messages: list[bytes] = []

    def changed(self, line: int, level: int) -> None:
        """Interrupt line `line` took `level`."""
        if self.enabled and self._levels.get(line, 0) != level:
            self._levels[line] = level
            self._messages.append(qtest_protocol.irq(line, level))
            if len(self._messages) >= MAX_MESSAGES and self.send is not None:
                self.send(self.take())

    def take(self) -> bytes:
        """The messages that were not sent yet; they are the caller's to send."""
        if not self._messages:
            return b""
        text = b"".join(self._messages)
        self._messages.clear()
        return text


class Dialogue:
    """Answers lines with accesses to `machine`, whose level changes go to `irqs`."""

    def __init__(self, machine: BareMachine, irqs: IrqWatch, send: Callable[[bytes], None]) -> None:
        """`send` takes what goes to the client."""
        self._machine = machine
        self._irqs = irqs
        self._send = irqs.send = send

    def handle(self, line: bytes) -> None:
        """Do what one line asks for, and answer it. `line` has no line feed. Raises DeviceProcessError."""
        try:
            answer = self._answer(qtest_protocol.parse(line))
        except RequestError as error:
            answer = qtest_protocol.fail(error)
        self._send(self._irqs.take() + answer)

    def _answer(self, request: Request) -> bytes:
        machine = self._machine
        match request:
            case qtest_protocol.PortRead(port, size):
                return qtest_protocol.ok_port(machine.read_port(port, size))
            case qtest_protocol.PortWrite(port, size, value):
                machine.write_port(port, size, value)
            case qtest_protocol.ClockStep(amount):
                return self._clock_step(amount)
            case qtest_protocol.ClockSet(time):
                return self._clock_set(time)
            case qtest_protocol.MemoryRead(address, size):
                return qtest_protocol.ok_memory(int.from_bytes(machine.read_memory(address, size), "little"))
            case qtest_protocol.MemoryWrite(address, size, value):
                machine.write_memory(address, value.to_bytes(size, "little"))
            case qtest_protocol.BlockRead(address, size, base64_text):
                return qtest_protocol.ok_block(machine.read_memory(address, size), base64_text=base64_text)
            case qtest_protocol.BlockWrite(address, data):
                machine.write_memory(address, data)
            case qtest_protocol.Memset(address, size, value):
                machine.fill_memory(address, size, value)
            case qtest_protocol.InterceptIrqs():
                self._irqs.enabled = machine.watched = True
            case qtest_protocol.Endianness():
                return qtest_protocol.LITTLE
        return qtest_protocol.OK

    def _clock_step(self, amount: int | None) -> bytes:
        machine = self._machine
        target = machine.next_deadline() if amount is None else machine.now + amount
        if target is None:
            return qtest_protocol.NO_DEADLINE
        if not machine.now < target <= qtest_protocol.MAX_TIME:
            return qtest_protocol.NO_ADVANCE
        machine.advance_to(target)
        return qtest_protocol.ok_time(target)

    def _clock_set(self, time: int) -> bytes:
        machine = self._machine
        if time < machine.now:
            return qtest_protocol.fail_time(machine.now)
        machine.advance_to(time)
        return qtest_protocol.ok_time(time)
