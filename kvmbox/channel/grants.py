"""The permissions of a device: the grants of its `DeviceSpec`, bound to the services of a host.

The board lists grants as values (`Irq(4)`, `Output("COM1")`, …). `bind` asks a host for the service behind
each grant. The host of a run has KVM, a console and a decision, and the host of qtest has virtual lines. Only
`Grants.check` decides whether an effect is allowed, and what the effect calls.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol, assert_never

from kvmbox import board
from kvmbox.board import DeviceSpec
from kvmbox.channel.follow_up import Application
from kvmbox.channel.guest_memory import MemoryAccess, Submit, TransferAccess
from kvmbox.devices.model import (
    Effect,
    HostOutput,
    InputRoom,
    IrqLine,
    LateWrites,
    MemoryRead,
    MemoryWrite,
    Reset,
    Stop,
    Transfer,
)
from kvmbox.lean import Value
from kvmbox.memory import GuestMemory
from kvmbox.wire import protocol
from kvmbox.wire.effects import BY_CLASS


class Host(Protocol):
    """What the trusted side does for devices. What it returns is called by whichever thread got a reply."""

    def irq_source(self, gsi: int) -> Callable[[int, int], None]:
        """A new source of an interrupt line: called with its level, and edges folded into this one."""
        ...

    def output(self, stream: str) -> Callable[[bytes], None]:
        """Where the output of a stream goes; never blocks."""
        ...

    def input_room(self, stream: str) -> Callable[[int], None]:
        """What hears how many bytes of a stream's input the device would take now."""
        ...

    def ask_for_reset(self) -> None:
        """The guest asked for a reset of the machine."""
        ...

    def stop(self, value: int | None) -> None:
        """The guest asked to stop: with a value that counts for the exit status, or cleanly (None)."""
        ...

    def late_writes(self, device: DeviceSpec, grant: board.LateWrites) -> Callable[[int], None]:
        """What hears whether writes to a register may be late (1) or must not (0); never waits long."""
        ...

    @property
    def ram(self) -> GuestMemory:
        """Guest memory."""
        ...

    def transfers(self, device: str, grant: board.Resource) -> Submit:
        """What takes transfers of a device's resource; never blocks."""
        ...


_NONE: Final[Mapping[int, Callable[[int], None]]] = {}


class Grants(Value):
    """What the effects of one device call, each None or empty where it may not have them.

    irq_lines: by pin, called with (level, coalesced). output: host output bytes. input_room: how many bytes
    the device would accept now. reset: the machine's reset line. stop: called with the (offset, size, value)
    of the write that the VMM forwarded, because the device's word does not count for an exit status.
    late_writes: by register, called with whether they are allowed. memory, resources: see `guest_memory`.
    """

    name: str
    irq_lines: Sequence[Callable[[int, int], None]] = ()
    output: Callable[[bytes], None] | None = None
    input_room: Callable[[int], None] | None = None
    reset: Callable[[], None] | None = None
    stop: Callable[[int, int, int], None] | None = None
    memory: MemoryAccess | None = None
    resources: Sequence[TransferAccess] = ()
    late_writes: Mapping[int, Callable[[int], None]] = _NONE

    def check(self, index: int, effect: Effect, sent: bytes) -> Application | None:
        """What an effect of this device, number `index` of its process, calls; None if it is not granted.

        `sent` is the request in whose reply the effect came.
        """
        if type(effect) is HostOutput and self.output is not None:  # each character that a guest prints
            return self.output, (effect.data,), 0
        if BY_CLASS[type(effect)].after_write and (sent[0] != protocol.WRITE or sent[1] != index):
            return None
        match effect:
            case IrqLine(pin, level, coalesced) if pin < len(self.irq_lines):
                return self.irq_lines[pin], (level, coalesced), 0
            case InputRoom(count) if self.input_room is not None:
                return self.input_room, (count,), 0
            case LateWrites(register, allowed) if register in self.late_writes:
                return self.late_writes[register], (allowed,), 0
            case Reset() if self.reset is not None:
                return self.reset, (), 0
            case Stop() if self.stop is not None:
                request = protocol.decode_request(sent)
                return self.stop, (request.offset, request.size, request.value), 0
            case MemoryRead(tag, ranges) if self.memory is not None and self.memory.allows(ranges):
                return self.memory.read, (index, tag, ranges), 1
            case MemoryWrite(address, data, tag) if self.memory is not None:
                if not self.memory.allows([(address, len(data))]):
                    return None
                return self.memory.write, (index, address, data, tag), int(tag != 0)
            case Transfer(tag, resource, offset, ranges, to_guest) if resource < len(self.resources):
                access = self.resources[resource]
                if not access.allows(ranges, to_guest=bool(to_guest)):
                    return None
                return access.start, (index, tag, offset, ranges, to_guest), 1
            case _:
                return None


def bind(device: DeviceSpec, host: Host) -> Grants:
    """The grants of `device`, done by `host`."""
    bound: dict[str, object] = {}
    lines = []
    resources = []
    late: dict[int, Callable[[int], None]] = {}
    for grant in device.grants:
        match grant:
            case board.Irq(gsi):
                lines.append(host.irq_source(gsi))
            case board.Output(stream):
                bound["output"] = host.output(stream)
            case board.Input(stream):
                bound["input_room"] = host.input_room(stream)
            case board.Reset():
                bound["reset"] = host.ask_for_reset
            case board.StopValue():
                bound["stop"] = lambda _offset, _size, value: host.stop(value)
            case board.StopClean():
                bound["stop"] = lambda *_write: host.stop(None)
            case board.LateWrites(register):
                late[register] = host.late_writes(device, grant)
            case board.Memory():
                if grant.max_bytes > protocol.MAX_PAYLOAD:
                    raise ValueError(f"device {device.name}: {grant.max_bytes} bytes of memory at a time")
                bound["memory"] = MemoryAccess(grant, host.ram)
            case board.Resource():
                resources.append(TransferAccess(grant, host.transfers(device.name, grant)))
            case _:
                assert_never(grant)
    bound["late_writes"] = late
    return Grants(device.name, irq_lines=lines, resources=resources, **bound)  # type: ignore[arg-type]  # by name above
