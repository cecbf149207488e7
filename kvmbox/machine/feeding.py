"""Input of the serial ports: from descriptors of the host, watched while more is wanted, to the UARTs."""

from __future__ import annotations

import select

from kvmbox.board import Input
from kvmbox.host.console import OFFER_SIZE, Console, InputPort
from kvmbox.processes.pool import DevicePool
from kvmbox.wire import protocol


class Feeding:
    """The inputs of one run. Belongs to the main loop's thread."""

    def __init__(self, console: Console, pool: DevicePool, poll: select.poll) -> None:
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
        """Look at pseudo-terminals that nobody had open: once per slice."""
        self._hung_up.clear()

    def feed(self) -> None:
        """Offer each UART what waits for it, once. Raises DeviceProcessError."""
        for port in self._console.inputs:
            if port.can_send:
                self._offer(port)

    def _offer(self, port: InputPort) -> None:
        offered = bytes(port.pending[:OFFER_SIZE])
        # Set before asking: room that comes up between the reply and here is not forgotten.
        port.waiting_for_room = True
        member, index = self._device_of(port.name)
        accepted, _ = self._pool.channel(member).request(
            protocol.RECEIVE, device=index, payload=offered, limit=len(offered)
        )
        del port.pending[:accepted]
        if accepted == len(offered):
            port.waiting_for_room = False

    def _device_of(self, port_name: str) -> tuple[str, int]:
        for device_type, index, device in self._pool.places():
            if Input(port_name) in device.grants:
                return device_type, index
        raise KeyError(port_name)
