"""Input of serial ports and keyboard: from descriptors of the host, watched while more is wanted, to the
devices.
"""

from __future__ import annotations

import select
from collections.abc import Callable

from kvmbox.contract.device_spec import DeviceSpec, Input
from kvmbox.contract.names import KEYBOARD
from kvmbox.host.console.input_port import OFFER_SIZE, InputPort
from kvmbox.host.console.serial_ports import Console
from kvmbox.remote.process.device_pool import DevicePool
from kvmbox.wire import protocol


class Inputs:
    """The inputs of one run. Belongs to the main loop's thread."""

    def __init__(
        self, console: Console, pool: DevicePool, poll: select.poll, assert_again: Callable[[int], None]
    ) -> None:
        """`assert_again` tells the interrupt controllers of a line once more, if the line is high."""
        self._assert_again = assert_again
        self._typed_lines: tuple[int, ...] = ()
        self._console = console
        self._pool = pool
        self._poll = poll
        self._by_descriptor = {port.descriptor: port for port in console.inputs if port.descriptor >= 0}
        self._hung_up: set[int] = set()
        self._watched: set[int] = set()

    def watch(self) -> None:
        """Watch the inputs of which more is wanted now, and no other."""
        for descriptor, port in self._by_descriptor.items():
            wanted = port.wants_more and descriptor not in self._hung_up
            if wanted and port.escapes is not None and not self._console.terminal.foreground:
                # In the background a read would stop us (SIGTTIN): what is typed belongs to the shell.
                wanted = False
            watched = descriptor in self._watched
            if wanted and not watched:
                self._poll.register(descriptor, select.POLLIN)
                self._watched.add(descriptor)
            elif watched and not wanted:
                self._poll.unregister(descriptor)
                self._watched.discard(descriptor)

    def handle(self, descriptor: int, mask: int) -> bool:
        """Read from an input that poll has told of. Returns whether the descriptor is one."""
        port = self._by_descriptor.get(descriptor)
        if port is None:
            return False
        if mask & select.POLLIN or not port.is_pty:
            self._console.read_input(port)
        else:
            self._hung_up.add(descriptor)
        return True

    def try_again(self) -> None:
        """Once per slice: look at pseudo-terminals that nobody had open, and mend lost edges of the keyboard.

        A key that is typed before the guest initializes its 8259 raises the line before, and this edge is
        lost. On a PC the BIOS has read such a key. Here the driver would wait for ever.
        """
        self._hung_up.clear()
        for line in self._typed_lines:
            self._assert_again(line)

    def feed(self) -> None:
        """Offer each device what waits for it, once. Raises DeviceProcessError."""
        for port in self._console.inputs:
            if port.can_send:
                self._offer(port)

    def _offer(self, port: InputPort) -> None:
        offered = port.offer(OFFER_SIZE)
        if not offered:  # what was typed has no keys
            return
        # Set before asking: room that comes up between the reply and here is not forgotten.
        port.waiting_for_room = True
        member, index, device = self._device_of(port.name)
        if port.name == KEYBOARD:
            self._typed_lines = device.irqs
        accepted, _ = self._pool.channel(member).request(
            protocol.RECEIVE, device=index, payload=offered, limit=len(offered)
        )
        port.accept(accepted)
        if accepted == len(offered):
            port.waiting_for_room = False

    def _device_of(self, port_name: str) -> tuple[str, int, DeviceSpec]:
        for place in self._pool.places():
            if Input(port_name) in place[2].grants:
                return place
        raise KeyError(port_name)
