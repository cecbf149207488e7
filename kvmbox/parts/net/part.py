"""--net: the network interfaces of the guest. Their wires are polled by the main loop."""

from __future__ import annotations

import select
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from kvmbox import devices
from kvmbox.base.errors import UsageError
from kvmbox.devices.virtio.board import virtio_net
from kvmbox.host.files.atomic_file import TemporaryFile
from kvmbox.parts.net.net_option import DESCRIPTOR, UNIX, VIRTIO
from kvmbox.parts.net.pcap import Capture
from kvmbox.parts.net.port import Port
from kvmbox.parts.net.wire_backends import open_wire
from kvmbox.run.frontend import ProcessOwner
from kvmbox.run.loop.vcpu_pause import Visitor
from kvmbox.run.part import Finding, Lost, Opening, Part, Standing

if TYPE_CHECKING:
    from collections.abc import Callable

    from kvmbox.base.outcome import Outcome
    from kvmbox.contract.device_spec import DeviceSpec
    from kvmbox.host.time.guest_clock import GuestClock
    from kvmbox.parts.net.net_option import NetRequest
    from kvmbox.remote.channel.connection import Channel
    from kvmbox.run.result.run_result import Draft


class Wires(Visitor):
    """The wires of a machine in the poll set of its main loop."""

    def __init__(self, ports: Sequence[tuple[Port, Channel, int]]) -> None:
        """Each port with the channel of its device, and the number that the device has there."""
        self._ports = ports
        self._poll = select.poll()
        self._watched: dict[int, int] = {}

    def watch(self, poll: select.poll) -> None:
        """See Visitor."""
        self._poll, self._watched = poll, {}
        self._update()

    def tick(self, clock: GuestClock) -> None:
        """See Visitor. Something may have changed that no descriptor tells."""
        del clock
        for one in self._ports:
            self._serve(*one)
        self._update()

    def wake_in(self, clock: GuestClock) -> float | None:
        """See Visitor."""
        del clock
        due = [port.due for port, _, _ in self._ports if port.due is not None]
        return max(0.0, (min(due) - time.monotonic_ns()) / 1e9) if due else None

    def handle(self, descriptor: int) -> bool:
        """See Visitor."""
        for one in self._ports:
            if one[0].wire.descriptor == descriptor:
                self._serve(*one)
                self._update()
                return True
        return False

    def _serve(self, port: Port, channel: Channel, device: int) -> None:
        port.move()
        port.feed(channel, device)

    def _update(self) -> None:
        """Poll for what is wanted now. A descriptor of which nothing is wanted would tell that it hung up."""
        wanted = {port.wire.descriptor: port.events for port, _, _ in self._ports if port.events}
        wanted.pop(-1, None)
        if wanted == self._watched:
            return
        for descriptor in self._watched.keys() - wanted.keys():
            with suppress(KeyError):  # the main loop unregisters what hangs up and is nobody's
                self._poll.unregister(descriptor)
        for descriptor, events in wanted.items():
            self._poll.register(descriptor, events)
        self._watched = wanted


class Net(Part):
    """The interfaces of one run."""

    def __init__(self, nets: Sequence[NetRequest]) -> None:
        self._requests = nets
        self._ports = [_port(f"net{number}", request.on) for number, request in enumerate(nets)]
        self._names: dict[str, Port] = {}  # by their devices
        self._say: Callable[[str], None] = lambda _line: None
        self._wake: Callable[[], None] = lambda: None
        self._end: Callable[[], None] = lambda: None
        self.accepts = any(one.listen for one in nets)

    def equip(self, opening: Opening) -> None:
        """See `Part`."""
        given = [int(one.target) for one in self._requests if one.backend == DESCRIPTOR]
        if len(set(given)) < len(given):
            raise UsageError("--net: two interfaces have the same descriptor", hint="pass on one for each")
        self._say, opening.nets = opening.say, self._ports
        opening.stores |= {port.name: port for port in self._ports}
        made = [_device(number, request) for number, request in enumerate(self._requests)]
        opening.place_virtio([device for device in made if device.pci is None])
        opening.board += [device for device in made if device.pci is not None]
        self._names = {device.name: port for device, port in zip(made, self._ports, strict=True)}

    def open(self, opening: Opening) -> None:
        """See `Part`."""
        for port, request in zip(self._ports, self._requests, strict=True):
            port.wire = open_wire(request, self._woken, is_command=isinstance(opening.caller, ProcessOwner))
            port.capture = Capture(request.pcap) if request.pcap else None
            port.has_room = (
                opening.config.start is not None
            )  # its device may have said so before it was saved

        files = [TemporaryFile(one.target.removeprefix(UNIX)) for one in self._requests if one.listen]
        if files:
            _, self._end = opening.caller.committer(files)

    def _woken(self) -> None:
        self._wake()

    def attach(self, machine: Standing) -> None:
        """See `Part`."""
        self._wake = machine.loop.wakeup.wake
        pool, found = machine.devices.pool, []
        for device_type, index, device in pool.places():
            port = self._names.get(device.name)
            if port is not None:
                port.now, port.wake = machine.devices.clock.now, self._wake
                found.append((port, pool.channel(device_type), index))
        machine.loop.standstill.admit(Wires(found))

    def ended(self, outcome: Outcome | None) -> Finding | None:
        """See `Part`."""
        del outcome
        for port in self._ports:
            if port.cut is not None:
                self._say(f"--net: {port.name} was cut: {port.cut}")
        problems = [port.capture.problem for port in self._ports if port.capture and port.capture.problem]
        return Lost(problems[0]) if problems else None

    def report(self, draft: Draft) -> None:
        """See `Part`."""
        draft.facts["nets"] = [
            port.facts() | {"backend": str(request)}
            for port, request in zip(self._ports, self._requests, strict=True)
        ]

    def close(self) -> None:
        """See `Part`."""
        for port in self._ports:
            port.close()
        self._end()


def _device(number: int, request: NetRequest) -> DeviceSpec:
    if request.on == VIRTIO:
        return virtio_net(number, request.address(number))
    from kvmbox.devices.e1000.board import e1000_net

    source = (Path(devices.__file__).with_name("e1000") / "model.py").read_bytes()
    return e1000_net(number, request.address(number), source)


def _port(name: str, on: str) -> Port:
    if on == VIRTIO:
        return Port(name)
    from kvmbox.parts.net.gathering import GatheringPort

    return GatheringPort(name)


PART = Net
