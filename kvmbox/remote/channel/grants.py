"""The permissions of a device: the grants of its `DeviceSpec`, bound to the services of a host.

The board lists grants as values (`Irq(4)`, `Output("COM1")`, …). `bind` asks a host for the service behind
each grant. The host of a run has KVM, a console and a decision, and the host of qtest has virtual lines. Only
`Grants.check` decides whether an effect is allowed, and what the effect calls.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, Protocol, assert_never

from kvmbox.base.memory import GuestMemory
from kvmbox.base.value_classes import Value
from kvmbox.contract import device_spec, stop_values
from kvmbox.contract.device_spec import DeviceSpec
from kvmbox.contract.model import (
    ContentRead,
    Effect,
    HostOutput,
    InputRoom,
    IrqLine,
    LateWrites,
    MemoryRead,
    MemoryWrite,
    Reset,
    RisesAt,
    Stop,
    Suspend,
    TakeLine,
    Transfer,
)
from kvmbox.remote.channel.effect_calls import Application
from kvmbox.remote.published.guest_memory import ContentAccess, MemoryAccess, Submit, TransferAccess
from kvmbox.wire import protocol
from kvmbox.wire.access_blocks import MAX_STRING
from kvmbox.wire.effect_kinds import BY_CLASS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kvmbox.remote.bus.machine_buses import Buses
    from kvmbox.remote.published.bulk_grants import Media
    from kvmbox.remote.published.data_window import DataWindow
    from kvmbox.remote.published.medium import MediumAccess
    from kvmbox.remote.published.queues import DeviceQueues

    Access = TransferAccess | ContentAccess | MediumAccess
    ChecksEffects = Callable[[int, Effect], Application | None]

_NONE: Final[Mapping[int, Any]] = {}


class Rise(Protocol):
    """The VMM's side of an output pin whose rise a model may announce. Used under the lock of its channel."""

    at: int
    """When the pin will rise, in ns of guest time, or `NO_RISE`."""
    slack: int
    """By how many ns at most the model may be told the time later, because its line is raised without it."""

    def announce(self, at: int) -> None:
        """The pin will rise at `at`, or it may not: `NO_RISE`."""
        ...

    def guarded_by(self, lock: object) -> None:
        """`lock` is that of the channel: whoever raises the line beforehand has to take it."""
        ...

    def raise_ahead(self) -> None:
        """The time has come: raise the line, before the model tells of it."""
        ...

    def settle(self) -> None:
        """The model has been told the time: if it has not told of the rise, the line is as it said before."""
        ...


TELLING: Final = 500_000
"""How long, in ns, it takes at most to tell a process the time, on a host that is not overloaded."""


def rise_slack(deadline: int, now: int, rises: Sequence[Rise]) -> int:
    """How much later than at its deadline a process may be told the time: if that is one of the `rises`.

    A process that is told at once runs just when the guest's interrupt handler would, on the same CPU. A
    handler that programs the timer anew makes it superfluous. But the next rise is announced when the process
    is told, and must be on time: `TELLING` is left for that, or most of a shorter time.
    """
    if not any(rise.at == deadline for rise in rises):
        return 0
    left = max(deadline - now, 0)
    return min(max(left // 8, left - TELLING), *(rise.slack for rise in rises))


class Host(Protocol):
    """What the trusted side does for devices. What it returns is called by whichever thread got a reply."""

    def irq_source(self, gsi: int) -> Callable[[int, int], None]:
        """A new source of an interrupt line: called with its level, and edges folded into this one."""
        ...

    def replacing_irq_source(self, gsi: int) -> tuple[Callable[[int, int], None], Callable[[int], None]]:
        """The same, and what is called with 1 for the line to follow this source alone, with 0 for all."""
        ...

    def rise_of(self, line: Callable[[int, int], None]) -> Rise | None:
        """What hears of announcements for a source that this host has given; None: nobody."""
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

    def suspend(self, device: str, wakes: int) -> None:
        """The guest asked to suspend until one of `wakes`, of which `device` is then told as its input."""
        ...

    def panic(self, *, crash_kernel: bool) -> None:
        """The guest says that it has panicked; with `crash_kernel`, that it goes on with that."""
        ...

    def bios_reports(self) -> tuple[Callable[[bytes], None], Callable[[int, int, int], None]]:
        """What takes reports of the built-in BIOS, and what hears of the write that asked for a stop."""
        ...

    def late_writes(self, device: DeviceSpec, grant: device_spec.LateWrites) -> Callable[[int], None]:
        """What hears whether writes to a register may be late: see `model.LateWrites`; never waits long."""
        ...

    @property
    def ram(self) -> GuestMemory:
        """Guest memory."""
        ...

    def transfers(self, device: str, grant: device_spec.Resource) -> Submit:
        """What takes transfers of a device's resource; never blocks."""
        ...

    def medium(self, device: str, grant: device_spec.Medium) -> MediumAccess:
        """What reads and writes a device's medium."""
        ...

    def window(self, register: int) -> DataWindow:
        """A window at that register of a device."""
        ...

    def queues(self, device: str, grant: device_spec.Queues) -> DeviceQueues:
        """The virtqueues of a device."""
        ...

    @property
    def buses(self) -> Buses:
        """What the devices are on."""
        ...

    def aperture(self, index: int, effect: Effect) -> Application | None:
        """What an effect about the window of a VGA calls: as `Grants.check`."""
        ...


class Grants(Value):
    """What the effects of one device call, each None or empty where it may not have them.

    irq_lines: by pin, called with (level, coalesced). rises: by pin, for those whose announcements somebody
    hears. takers: by pin, for those that may take their line from
    other devices, called with 1 or 0. output: host output bytes. input_room: how many bytes
    the device would accept now. reset: the machine's reset line. stop: called with the (offset, size, value)
    of the write that the VMM forwarded, because the device's word does not count for an exit status.
    stop_when: the bytes of which the write must have one, if there are any. suspend:
    called with what may wake the machine. late_writes: by register, called with whether they are allowed.
    memory, resources: see `guest_memory`, and `medium` for a medium among them. media: see there. further: as
    `check`, of effects that are nothing here, for devices of PCI, the VGA and frame buffers.
    """

    name: str
    irq_lines: Sequence[Callable[[int, int], None]] = ()
    rises: Mapping[int, Rise] = _NONE
    takers: Mapping[int, Callable[[int], None]] = _NONE
    output: Callable[[bytes], None] | None = None
    input_room: Callable[[int], None] | None = None
    reset: Callable[[], None] | None = None
    stop: Callable[[int, int, int], None] | None = None
    stop_when: Sequence[device_spec.WrittenByte] = ()
    suspend: Callable[[int], None] | None = None
    memory: MemoryAccess | None = None
    resources: Sequence[Access] = ()
    media: Media | None = None
    further: Callable[[int, Effect], Application | None] | None = None
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
            case RisesAt(pin, at) if pin < len(self.irq_lines):
                rise = self.rises.get(pin)
                return (lambda _at: None) if rise is None else rise.announce, (at,), 0
            case TakeLine(pin, taken) if pin in self.takers:
                return self.takers[pin], (taken,), 0
            case InputRoom(count) if self.input_room is not None:
                return self.input_room, (count,), 0
            case LateWrites(register, allowed) if register in self.late_writes:
                return self.late_writes[register], (allowed,), 0
            case Reset() if self.reset is not None:
                return self.reset, (), 0
            case Stop() if self.stop is not None:
                request = protocol.decode_request(sent)
                written = (request.offset, request.size, request.value)
                if self.stop_when and not any(byte.is_in(*written) for byte in self.stop_when):
                    return None
                return self.stop, written, 0
            case Suspend(wakes) if self.suspend is not None:
                return self.suspend, (wakes,), 0
            case MemoryRead(tag, ranges) if self.memory is not None and self.memory.allows(ranges):
                return self.memory.read, (index, tag, ranges), 1
            case MemoryWrite(address, data, tag) if self.memory is not None:
                if not self.memory.allows([(address, len(data))]):
                    return None
                return self.memory.write, (index, address, data, tag), int(tag != 0)
            case Transfer(tag, resource, offset, ranges, to_guest) if resource < len(self.resources):
                access = self.resources[resource]
                if not isinstance(access, TransferAccess | ContentAccess) or not access.allows(
                    ranges, to_guest=bool(to_guest)
                ):
                    return None
                return access.start, (index, tag, offset, ranges, to_guest), 1
            case ContentRead(tag, resource, offset, size) if resource < len(self.resources):
                content = self.resources[resource]
                if not isinstance(content, ContentAccess) or size > protocol.MAX_PAYLOAD:
                    return None
                return content.read, (index, tag, offset, size), 1
            case _:
                found = None if self.media is None else self.media.check(index, effect)
                return self.further(index, effect) if found is None and self.further is not None else found


def _frame_buffer(memory: GuestMemory, _index: int, effect: Effect) -> Application | None:
    """What the effect of a device with a frame buffer calls. Loaded for a guest that uses it."""
    from kvmbox.contract.bulk_data import FrameBuffer
    from kvmbox.host.frame_buffer import show

    return (show, (memory, effect), 0) if isinstance(effect, FrameBuffer) else None


def _pvpanic(host: Host, events: int) -> None:
    """What the guest wrote to pvpanic: the first of the events counts, as on QEMU."""
    if events & stop_values.PANICKED:
        host.panic(crash_kernel=False)
    elif events & stop_values.CRASH_LOADED:
        host.panic(crash_kernel=True)
    elif events & stop_values.PANIC_SHUTDOWN:
        host.stop(None)


def leaves_room(device: DeviceSpec) -> bool:
    """Whether the accesses of one instruction may be one request (`wire.access_blocks`): the effects of the
    last one then share a frame with those before it, and with what was read. Writes to guest memory may need
    it all.
    """
    return all(grant.max_bytes <= MAX_STRING for grant in device.granted(device_spec.Memory))


def bind(device: DeviceSpec, host: Host) -> Grants:
    """The grants of `device`, done by `host`."""
    bound: dict[str, object] = {}
    lines: list[Callable[[int, int], None]] = []
    takers: dict[int, Callable[[int], None]] = {}
    resources: list[Access] = []
    late: dict[int, Callable[[int], None]] = {}
    for grant in device.grants:
        match grant:
            case device_spec.Irq(gsi):
                lines.append(host.irq_source(gsi))
            case device_spec.ReplacingIrq(gsi):
                line, takers[len(lines)] = host.replacing_irq_source(gsi)
                lines.append(line)
            case device_spec.Output(stream):
                bound["output"] = host.output(stream)
            case device_spec.Input(stream):
                bound["input_room"] = host.input_room(stream)
            case device_spec.Reset():
                bound["reset"] = host.ask_for_reset
            case device_spec.StopValue():
                bound["stop"] = lambda _offset, _size, value: host.stop(value)
            case device_spec.StopClean(when):
                bound["stop_when"] = when
                bound["stop"] = lambda *_write: host.stop(None)
            case device_spec.Suspend():
                bound["suspend"] = partial(host.suspend, device.name)
            case device_spec.StopPanic():
                bound["stop"] = lambda _offset, _size, value: _pvpanic(host, value)
            case device_spec.BiosReport():
                bound["output"], bound["stop"] = host.bios_reports()
            case device_spec.LateWrites(register):
                late[register] = host.late_writes(device, grant)
            case device_spec.Memory():
                if grant.max_bytes > protocol.MAX_PAYLOAD:
                    raise ValueError(f"device {device.name}: {grant.max_bytes} bytes of memory at a time")
                bound["memory"] = MemoryAccess(grant, host.ram)
            case device_spec.Resource():
                resources.append(TransferAccess(grant, host.transfers(device.name, grant)))
            case device_spec.Content():
                resources.append(ContentAccess(grant, host.ram))
            case device_spec.Medium():
                resources.append(host.medium(device.name, grant))
            case device_spec.Queues():
                pass
            case device_spec.PciGrant():
                bound["further"] = host.buses.pci.bind(device.name, grant, lines)
            case device_spec.Aperture():
                bound["further"] = host.aperture
            case device_spec.FrameBuffer():
                bound["further"] = partial(_frame_buffer, host.ram)
            case _:
                assert_never(grant)
    if any(isinstance(grant, device_spec.Medium | device_spec.Queues) for grant in device.grants):
        from kvmbox.remote.published.bulk_grants import media_of

        bound["media"] = media_of(device, resources, lines, host.window, host.queues)
    rises = {pin: rise for pin, line in enumerate(lines) if (rise := host.rise_of(line)) is not None}
    bound.update(irq_lines=lines, rises=rises, takers=takers, resources=resources, late_writes=late)
    return Grants(device.name, **bound)  # type: ignore[arg-type]  # by name above
