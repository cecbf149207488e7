"""A device model alone, and the checks that hold after every call: the contract of
`kvmbox/contract/model.py`.

No channel and no server stands between: offsets and sizes that the bus never passes on, snapshots that no
RESTORE would carry, and the state itself are in reach.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, Final

from kvmbox.base import layout
from kvmbox.contract import device_spec
from kvmbox.contract.bulk_data import (
    MOST_HEADER,
    Aperture,
    Chain,
    ChainRead,
    ChainServe,
    ChainTransfer,
    ChainUsed,
    ChainWrite,
    ConfigChanged,
    Connect,
    Flush,
    FrameBuffer,
    Queue,
    Walk,
    Window,
)
from kvmbox.contract.catalog import MODELS, model_class
from kvmbox.contract.device_spec import (
    BiosReport,
    Content,
    DeviceSpec,
    Input,
    Irq,
    Medium,
    Memory,
    Output,
    Queues,
    ReplacingIrq,
    Resource,
    StopClean,
    StopPanic,
    StopValue,
)
from kvmbox.contract.model import (
    BAD_ADDRESS,
    DONE,
    FAILED,
    NANOSECONDS,
    NO_RISE,
    PULSES,
    WAKE_BY_RTC,
    ContentRead,
    DeviceModel,
    Effect,
    HostOutput,
    InputRoom,
    IrqLine,
    LateWrites,
    MemoryRead,
    MemoryWrite,
    Reset,
    RisesAt,
    SnapshotError,
    Stop,
    Suspend,
    TakeLine,
    Transfer,
)
from kvmbox.contract.pci_effects import Control, Decode, Message, Route
from kvmbox.contract.pci_grants import Intx, PciBus, Vectors
from kvmbox.devices.e1000.board import DescriptorRings
from kvmbox.devices.e1000.model import RECEIVED, is_context
from kvmbox.devices.rfb.model import RfbServer
from kvmbox.devices.virtio.register_watch import notified
from kvmbox.remote.channel import vga_window
from kvmbox.wire.protocol import BEHIND_LATE_WRITES, MAX_STEADY, STEADY_SHIFT
from tests.support.model_programs import LAST_TIME, Step
from tests.support.model_variants import guest_memory

NO_DEADLINE: Final = (1 << 64) - 1
"""What 64 bits of a reply say for None; a deadline has to fit below."""

MOST_EFFECTS: Final = 64
"""Of one call: a frame takes 255 of all models together."""

MOST_STATE: Final = 1024
"""Bytes of a snapshot: CMOS RAM, FIFOs and registers fit in; what a guest can fill beyond is a leak."""

OWN_MEMORY: Final = {
    "pc_testdev": layout.TESTDEV_MEMORY_SIZE,
    "virtio_blk": 64 * 28,
    "virtio_console": 64 * 20,
    "virtio_blk_pci": 64 * 28,
    "virtio_console_pci": 64 * 20,
    "pci_host": 5 * 256,
    "E1000": 5 * 4096,
    "vga_text": 1 << 18,
    "RfbServer": 4096,
}
"""By model: how many bytes of memory are a part of the device."""

BUILDERS: Final = {name: model_class(name) for name in MODELS} | {"RfbServer": RfbServer}

MOST_FOLLOW_UPS: Final = 16
"""How many questions of a model are answered within one access."""

QUESTIONS: Final = (MemoryRead, ContentRead, Transfer, ChainRead, ChainTransfer, Aperture)

MIB: Final = 1 << 20
READABLE: Final = (16, 528, 0, 40, 20, 16 + 512 * 80, 16 + MIB + 512, MIB, 1500, 100, 5000)
WRITABLE: Final = (1, 513, 21, 0, 4, 1025, MIB + 513, 1530, 12, 2000)
"""Bytes of the two parts of chains."""


class VirtioGuest:
    """What a guest has in its queues, and what a device may do with it. It is as even as a counter."""

    def __init__(self) -> None:
        self.last = 0
        self.chains: dict[int, Chain] = {}
        self.wanted: dict[int, int] = {}
        """The queues whose chains the device wants, and how many at a time."""
        self.is_strict = True
        """Whether the device can know of no other chains."""
        self.shape = 0
        """What the next chains are like: they count on from here."""

    def copy(self) -> VirtioGuest:
        other = VirtioGuest()
        other.last, other.chains, other.is_strict = self.last, dict(self.chains), self.is_strict
        other.wanted, other.shape = dict(self.wanted), self.shape
        return other

    def walked(self, index: int, count: int) -> tuple[list[Chain], int]:
        """The chains of a walk, and its status."""
        assert 0 < count <= 64
        if self.shape % 41 == 40:
            self.shape += 1
            del self.wanted[index]
            return [], BAD_ADDRESS
        found = []
        for _ in range(min(count, 1 + self.shape % 5)):
            self.last += 1
            self.shape += 1
            kind = (0, 1, 4, 8, 9, 0, 1)[self.shape % 7]
            readable = READABLE[self.shape % len(READABLE)]
            writable = WRITABLE[self.shape // 7 % len(WRITABLE)]
            sector = self.shape % 70 if self.shape % 13 else (4999, 5000, 1 << 50)[self.shape % 3]
            head = struct.pack("<IIQQQ", kind, 0, sector, 0, 0)[: min(readable, 32)]
            chain = self.chains[self.last] = Chain(self.last, readable, writable, head)
            found.append(chain)
        return found, DONE

    def notified(self, model: Any, now: int, index: int) -> None:
        """The guest notifies: what the VMM makes of it."""
        if index in self.wanted:
            model.chains(now, index, *self.walked(index, self.wanted[index]))

    def asked(self, effect: Effect) -> None:
        """What would break the protocol is asserted."""
        if not self.is_strict and getattr(effect, "handle", 0) not in self.chains:
            return
        match effect:
            case ChainRead(handle, skip, size):
                assert 0 < size <= 4064
                assert skip + size <= self.chains[handle].readable
            case ChainWrite(handle, skip, data):
                assert skip + len(data) <= self.chains[handle].writable
            case ChainTransfer(handle, resource, _, skip, size, to_guest):
                assert resource == 0
                assert 0 < size <= 1 << 20
                chain = self.chains[handle]
                assert skip + size <= (chain.writable if to_guest else chain.readable)
            case ChainServe(handle, resource, _, skip, size, to_guest, place, good, bad):
                assert resource == 0
                assert 0 < size <= 1 << 20
                chain = self.chains.pop(handle)
                assert skip + size <= (chain.writable if to_guest else chain.readable)
                assert place < chain.writable
                assert good < bad < 256
            case ChainUsed(handle, written):
                assert written <= self.chains.pop(handle).writable


class DescriptorGuest(VirtioGuest):
    """The same for rings of descriptors: one to receive to has no head, and one to send has what it says."""

    def walked(self, index: int, count: int) -> tuple[list[Chain], int]:
        assert 0 < count <= 64
        found = []
        for _ in range(min(count, self.last % 5)):
            self.last += 1
            size = (60, 14, 1514, 0, 9, 0xFFFF)[self.last % 6]
            # With bit 20 it has a buffer; the tenth is then one of an extended frame without segments.
            half = (
                size
                | (0x0B, 0x00, 0x29, 0x2D, 0x01, 0x04, 0x20, 0x4B)[self.last % 8] << 24
                | (self.last % 2 or self.last % 16 == 10) << 20
            )
            is_none = self.last % 11 == 10
            if index == RECEIVED:
                chain = Chain(self.last, 0, 0 if is_none else (256, 2048)[self.last % 2], b"")
            elif is_context(half):
                chain = Chain(
                    self.last, 0, 0, struct.pack("<QQ", 0x0022_2214_0018_180E, half | 1 << 54 | 54 << 40)
                )
            else:
                chain = Chain(self.last, 0 if is_none else size, 0, struct.pack("<Q", half | 3 << 40))
            self.chains[self.last] = chain
            found.append(chain)
        self.last += not found
        return found, DONE

    def copy(self) -> DescriptorGuest:
        other = DescriptorGuest()
        other.last, other.chains, other.wanted = self.last, dict(self.chains), dict(self.wanted)
        other.is_strict = self.is_strict
        return other

    def asked(self, effect: Effect) -> None:
        """See VirtioGuest. What goes back has the new half of a descriptor."""
        if isinstance(effect, ChainUsed):
            chain = self.chains.pop(effect.handle, None)
            if chain is None and not self.is_strict:
                return
            assert chain is not None
            assert chain.head or effect.written & 0xFFFF <= chain.writable
        elif not isinstance(effect, ChainTransfer) or effect.size:  # the last buffer of a frame may be empty
            super().asked(effect)


class Rig:
    """A model, its time, and the checks that hold after every call."""

    def __init__(self, device: DeviceSpec) -> None:
        self.device = device
        self.model: DeviceModel = BUILDERS[device.model](**device.parameters)
        self.now = 0
        self.seen = 0
        """The largest time that the model has been told."""
        self.lines = dict.fromkeys(range(len(device.irqs) + len(device.granted(Intx))), 0)
        self.taken = dict.fromkeys(range(len(device.irqs)), 0)
        self.rises = 0
        self.announced: dict[int, int] = {}
        """When each pin will rise, as far as that was announced."""
        self.asked = 0
        """The tag of the last window or flush."""
        self.written = (0, 0, 0)
        """Offset, size and value of the last write."""
        self.trace: list[object] = []
        self.walks_at_once = bool(device.granted(DescriptorRings))
        self.guest = DescriptorGuest() if self.walks_at_once else VirtioGuest()

    def play(self, steps: Sequence[Step]) -> None:
        for step in steps:
            self.step(step)

    def step(self, step: Step) -> None:
        self.now = min(max(0, self.now + step.jump), LAST_TIME)
        mask = (1 << 8 * step.size) - 1
        written = 0
        match step.kind:
            case "read":
                value = self.model.read(self.now, step.offset, step.size)
                assert type(value) is int
                assert 0 <= value <= mask
                self.trace.append(value)
            case "write":
                written = step.size
                self.written = (step.offset, step.size, step.value & mask)
                index = notified(step.offset, step.size, step.value & mask)
                if index is not None and self.device.granted(Queues) and not self.walks_at_once:
                    self.guest.notified(self.model, self.now, index)
                else:
                    assert self.model.write(self.now, step.offset, step.size, step.value & mask) is None  # type: ignore[func-returns-value]  # that is the point
            case "advance":
                self.model.advance(self.now)
            case "deadline":
                deadline = self.model.next_deadline()
                if deadline is not None and deadline <= LAST_TIME:
                    self.now = max(self.now, deadline)
                self.model.advance(self.now)
            case "receive":
                accepted = self.model.receive(self.now, step.data)
                assert 0 <= accepted <= len(step.data)
                takes_input = bool(self.device.granted(Input)) or bool(
                    self.device.granted(device_spec.Suspend)
                )
                catches_up = self.device.model == "rtc_mc146818" and len(step.data) == 8
                is_asked = self.device.model == "qcow2"
                assert accepted == 0 or takes_input or catches_up or is_asked
                self.trace.append(accepted)
            case "complete":
                model: Any = self.model
                model.complete(self.now, self.asked if step.offset else step.value, step.size)
            case "run":  # as one piece, where the model takes it so
                take = getattr(self.model, "write_run", None)
                written = len(step.data)
                if take is not None and step.data:
                    take(self.now, step.offset, step.data)
            case "string":  # as many requests as the model makes of it
                data = step.data
                while data:
                    made = self.model.write_string(self.now, step.offset, step.size, data)  # type: ignore[attr-defined]
                    assert 0 <= made <= len(data) // step.size
                    if not made:  # whoever asks makes them one by one
                        assert (step.offset, step.size) != (layout.VGA_LATE_WRITES, 8)
                        break
                    data = data[made * step.size :]
                    if data:
                        self.check_effects(self.model.take_effects(), is_write=True, written=step.size)
            case "damaged input":
                take = getattr(self.model, "receive_damaged", None)
                self.trace.append(0 if take is None else take(self.now, step.value & 0xFF, step.offset))
            case "near":  # the end of a second
                second = (self.now // NANOSECONDS + 1) * NANOSECONDS
                self.now = max(self.now, second - step.value)
                self.model.advance(self.now)
            case "answer":  # to a question that was not asked
                self.answer(step)
            case "shape":
                self.guest.shape = step.value
            case "reset":
                self.guest.wanted.clear()
                self.model.reset(self.now)
            case _:
                raise AssertionError(step)
        if step.kind in ("run", "damaged input", "answer", "shape"):  # not every model is told of these
            self.model.advance(self.now)
        self.seen = max(self.seen, self.now)
        effects = self.model.take_effects()
        self.check_announced(effects)
        self.check_effects(effects, is_write=step.kind in ("write", "run", "string"), written=written)
        effects += self.follow_up(effects)
        assert self.model.take_effects() == []
        deadline = self.model.next_deadline()
        assert deadline is None or (type(deadline) is int and self.seen < deadline < NO_DEADLINE)
        for at in self.announced.values():
            assert deadline is not None, "a rise that nobody would tell the model of"
            assert deadline <= at
        self.trace.append((deadline, effects))

    def check_announced(self, effects: list[Effect]) -> None:
        """A pin whose time has come rises before anything else, but for a fall right before it."""
        for pin in [pin for pin, at in self.announced.items() if at <= self.seen]:
            levels = [one.level for one in effects if isinstance(one, IrqLine) and one.pin == pin]
            assert levels[self.lines[pin] :][:1] == [1], "announced, and it does not rise"
            del self.announced[pin]

    def answer(self, step: Step) -> None:
        """The VMM answers a question that nobody has asked, or that was void meanwhile."""
        model: Any = self.model
        if not hasattr(model, "complete"):
            return
        if step.offset & 1:
            model.memory(self.now, step.value, step.data or None)
        elif step.value not in self.guest.chains:
            model.complete(self.now, step.value, step.size)
        if self.device.granted(Queues) and step.offset & 2:
            model.chains(self.now, step.value, [], DONE)

    def follow_up(self, effects: list[Effect]) -> list[Effect]:
        """Answer what the model asks for, and what it asks for then; returns the effects of that."""
        later: list[Effect] = []
        if not effects:
            return later
        model: Any = self.model
        kinds: tuple[type[Effect], ...] = (*QUESTIONS, Flush) if self.device.granted(Queues) else QUESTIONS
        kinds = (Walk, ChainRead) if self.walks_at_once else kinds
        waiting = [effect for effect in effects if isinstance(effect, kinds)]
        # What a device with queues wants can wait.
        for _ in range(10 * MOST_FOLLOW_UPS if self.device.granted(Queues) else MOST_FOLLOW_UPS):
            if not waiting:
                break
            match waiting.pop(0):
                case MemoryRead(tag, ranges):
                    model.memory(self.now, tag, guest_memory(*ranges[0]))
                case ContentRead(tag, _, offset, size):
                    model.memory(self.now, tag, bytes((offset + index) & 0xFF for index in range(size)))
                case Transfer(tag, _, _, ranges, _):
                    model.complete(self.now, tag, DONE if ranges[0][0] < 0x1000 else BAD_ADDRESS)
                case Walk(index, count):
                    chains, status = self.guest.walked(index, count)
                    if chains:
                        model.chains(self.now, index, chains, status)
                case ChainRead(handle, _, size):
                    model.memory(self.now, handle, bytes(size))
                case Aperture(is_plain, _, size):
                    if is_plain:
                        model.complete(self.now, 0, DONE)
                    for start in () if is_plain else range(0, size, 4064):
                        model.memory(self.now, start, bytes(range(32)) * 127)
                case ChainTransfer(handle, _, _, _, _, _) | Flush(handle, _):
                    model.complete(self.now, handle, DONE if handle % 9 else FAILED)
            more = self.model.take_effects()
            self.check_effects(more, is_write=False, written=0)
            waiting += [effect for effect in more if isinstance(effect, kinds)]
            later += more
        assert not waiting, "more than are answered within one access"
        return later

    def check_effects(self, effects: list[Effect], *, is_write: bool, written: int) -> None:
        """What a model may cause: what its board granted it, and not without end."""
        assert len(effects) <= MOST_EFFECTS
        for effect in effects:
            match effect:
                case IrqLine(pin, level, coalesced):
                    assert level == 1 - self.lines[pin], "a level that was there already"
                    self.lines[pin] = level
                    assert coalesced >= 0
                    assert coalesced == 0 or level == 1
                    self.rises += level * (1 + coalesced)
                case RisesAt(pin, at):
                    assert pin in self.lines
                    assert self.device.parameters["announce"]
                    assert at == NO_RISE or self.announced.get(pin) != at, "announced twice"
                    self.announced.pop(pin, None)
                    if at != NO_RISE:
                        assert self.seen < at < NO_RISE
                        self.announced[pin] = at
                case HostOutput(data):
                    assert any(isinstance(grant, Output | BiosReport) for grant in self.device.grants)
                    has_registers = self.device.ports or self.device.mmio
                    is_small = has_registers and not self.device.granted(Queues)
                    assert 0 < len(data) <= (64 + written if is_small else 4064)
                case InputRoom(count):
                    assert self.device.granted(Input)
                    assert 0 < count <= (2048 if self.device.granted(Queues) else 16)
                case Reset():
                    assert self.device.granted(device_spec.Reset)
                    assert is_write
                case TakeLine(pin, taken):
                    granted = [one for one in self.device.grants if isinstance(one, Irq | ReplacingIrq)]
                    assert isinstance(granted[pin], ReplacingIrq)
                    assert taken == 1 - self.taken[pin], "taken or given back twice"
                    assert self.lines[pin] == 0, "a line changes hands while it is low"
                    self.taken[pin] = taken
                case Suspend(wakes):
                    assert self.device.granted(device_spec.Suspend)
                    assert is_write
                    assert wakes in (0, WAKE_BY_RTC)
                case Stop():
                    assert any(
                        isinstance(grant, StopValue | StopClean | StopPanic | BiosReport)
                        for grant in self.device.grants
                    )
                    assert is_write
                    if self.device.granted(StopClean):
                        (clean,) = self.device.granted(StopClean)
                        assert any(byte.is_in(*self.written) for byte in clean.when), (
                            "the VMM would refuse it"
                        )
                case LateWrites(register, allowed):
                    assert device_spec.LateWrites(register) in self.device.grants
                    assert allowed in (0, 1, PULSES)
                case MemoryRead(_, ranges):
                    (memory,) = self.device.granted(Memory)
                    assert len(ranges) <= memory.max_ranges
                    assert sum(size for _, size in ranges) <= memory.max_bytes
                    assert all(0 <= address < 1 << 64 for address, _ in ranges)
                case MemoryWrite(address, data, tag):
                    (memory,) = self.device.granted(Memory)
                    assert 0 <= address < 1 << 64
                    assert len(data) <= memory.max_bytes
                    assert tag == 0  # else it would be a question
                case Transfer(_, resource, offset, ranges, to_guest):
                    source = [one for one in self.device.grants if isinstance(one, Content | Resource)][
                        resource
                    ]
                    assert to_guest == 1
                    assert 0 <= offset <= source.size
                    assert len(ranges) <= source.max_ranges
                    assert sum(size for _, size in ranges) <= source.max_bytes
                    assert all(0 <= address < 1 << 64 for address, _ in ranges)
                case ContentRead(_, resource, offset, size):
                    content = self.device.granted(Content)[resource]
                    assert 0 < size <= 4064
                    assert 0 <= offset <= offset + size <= content.size
                case Window(tag, resource, offset, size, to_guest):
                    medium = self.device.granted(Medium)[resource]
                    assert 0 <= offset <= offset + size <= medium.size
                    assert 0 <= size <= medium.max_bytes
                    assert to_guest or medium.writable or not size
                    self.asked = tag
                case Queue(index, _, flags, _, _, _):
                    (queues,) = self.device.granted(Queues)
                    assert is_write
                    assert index < queues.count
                    assert flags < 4
                    self.guest.wanted.pop(index, None)
                case Walk(index, count):
                    (queues,) = self.device.granted(Queues)
                    assert index < queues.count
                    assert count <= 64
                    self.guest.wanted[index] = count
                    if not count:
                        del self.guest.wanted[index]
                case Connect(index, to_guest, resource, header, count_at, chains):
                    assert self.guest.wanted[index]
                    assert to_guest < 2
                    assert resource < len(self.device.granted(Medium))
                    assert count_at + 2 * (count_at > 0) <= header <= MOST_HEADER
                    assert 0 < chains <= 64
                case ConfigChanged():
                    assert self.device.granted(Queues)
                case ChainRead() | ChainWrite() | ChainTransfer() | ChainServe() | ChainUsed():
                    assert self.device.granted(Queues)
                    self.guest.asked(effect)
                    if isinstance(effect, ChainTransfer | ChainServe):
                        medium = self.device.granted(Medium)[effect.resource]
                        assert 0 <= effect.offset <= effect.offset + effect.size <= medium.size
                case Flush(tag, resource):
                    assert resource < len(self.device.granted(Medium))
                    self.asked = tag
                case Aperture():
                    assert self.device.granted(device_spec.Aperture)
                    assert vga_window.allowed(effect)
                case Decode(function, bar, address, _):
                    assert function in self.functions()
                    assert bar < 6
                    assert 0 <= address < 1 << 64
                case Control(function, flags):
                    assert function in self.functions()
                    assert flags < 8
                case Route(pin, line, _):
                    assert self.functions()
                    assert pin < 4
                    assert line < 16
                case Message(pin, address, _, _):
                    of_functions = self.functions()  # that of a bus is one of its functions
                    assert pin in (of_functions or range(1, self.device.granted(Vectors)[0].count + 1))
                    assert 0 <= address < 1 << 64
                case FrameBuffer():
                    assert self.device.granted(device_spec.FrameBuffer)
                case _:
                    raise AssertionError(f"nobody knows of {effect}")

    def functions(self) -> list[int]:
        """The numbers of the PCI functions that the device is granted."""
        return [function.number for bus in self.device.granted(PciBus) for function in bus.functions]

    def snapshot(self) -> bytes:
        state = self.model.snapshot()
        assert len(state) <= MOST_STATE + OWN_MEMORY.get(self.device.model, 0)
        return state

    def twin(self, state: bytes) -> Rig:
        """A fresh model that became what `state` says, at the same time of the same board."""
        other = Rig(self.device)
        other.model.restore(state)
        other.now, other.seen, other.asked = self.now, self.seen, self.asked
        other.lines, other.taken, other.announced = (
            dict(self.lines),
            dict(self.taken),
            dict(self.announced),
        )
        other.guest = self.guest.copy()
        return other


def try_restore(rig: Rig, state: bytes) -> bool:
    """Whether `state` was taken; if not, the model is what it was."""
    before = rig.snapshot()
    deadline = rig.model.next_deadline()
    try:
        rig.model.restore(state)
    except SnapshotError:
        assert rig.model.take_effects() == []
        assert rig.snapshot() == before
        assert rig.model.next_deadline() == deadline
        return False
    return True


def check_harmless(rig: Rig, state: bytes, after: list[Step]) -> None:
    """A state that was taken, from nobody knows where: it settles, and keeps the contract."""
    assert rig.model.take_effects() == []
    # What follows from something else may be put right by the model; after that, nothing moves any more.
    settled = rig.snapshot()
    assert len(settled) == len(state)
    assert rig.twin(settled).snapshot() == settled
    # The lines are where the state says, which the board hears of with the next change only.
    rig.lines = dict.fromkeys(rig.lines, 0)
    rig.seen = 0  # the state may be from an earlier time than the model that took it
    lenient = Lenient(rig)
    lenient.play([Step("advance", 0), *after])
    lenient.snapshot()


class Lenient(Rig):
    """A rig around a model whose history is unknown: the first edge of a line may be either, and time may be
    any up to the largest.
    """

    def __init__(self, rig: Rig) -> None:
        self.__dict__.update(rig.__dict__)
        self._unknown = set(self.lines)
        self._untaken = set(self.taken)
        self.announced = {}
        self.guest = rig.guest.copy()
        self.guest.is_strict = False
        self.guest.chains.clear()
        self.guest.last += 10_000  # handles that the state may know of are others

    def check_announced(self, effects: list[Effect]) -> None:
        for pin in self._unknown:
            if self.announced.get(pin, NO_RISE) <= self.seen:
                del self.announced[pin]
        super().check_announced(effects)

    def check_effects(self, effects: list[Effect], *, is_write: bool, written: int) -> None:
        for effect in effects:
            if isinstance(effect, IrqLine) and effect.pin in self._unknown:
                self._unknown.discard(effect.pin)
                self.lines[effect.pin] = 1 - effect.level
            if isinstance(effect, TakeLine) and effect.pin in self._untaken:
                self._untaken.discard(effect.pin)
                self.taken[effect.pin] = 1 - effect.taken
        super().check_effects(effects, is_write=is_write, written=written)


# --- Properties, of a model and a program -----------------------------------------------------------------


def check_twin(rig: Rig, after: Sequence[Step]) -> None:
    """A model that was restored has the same future."""
    state = rig.snapshot()
    twin = rig.twin(state)
    assert twin.snapshot() == state
    rig.trace.clear()
    rig.play(after)
    twin.play(after)
    assert twin.trace == rig.trace
    assert twin.snapshot() == rig.snapshot()


def check_watched(device: DeviceSpec, steps: Sequence[Step]) -> None:
    """A snapshot changes nothing."""
    quiet, watched = Rig(device), Rig(device)
    quiet.play(steps)
    for step in steps:
        watched.step(step)
        assert watched.snapshot() == watched.snapshot()
    assert watched.trace == quiet.trace


def check_often(device: DeviceSpec, steps: Sequence[Step], extra: Sequence[int]) -> None:
    """Time passes alike in one step and in many; only how many edges are folded into one may differ."""
    once, often = Rig(device), Rig(device)
    for step in steps:
        if step.kind == "deadline":
            continue  # the deadlines of the two may be different ones
        once.step(step)
        target = min(max(0, often.now + step.jump), LAST_TIME)
        for delta in sorted(extra):
            if often.now + delta < target:
                often.step(Step("advance", delta))
        often.step(step._replace(jump=target - often.now))
    numbers = [item for item in once.trace if isinstance(item, int)]
    assert [item for item in often.trace if isinstance(item, int)] == numbers
    assert often.lines == once.lines
    assert often.taken == once.taken
    assert often.rises == once.rises


def check_behind_late_writes(polled: Rig, quiet: Rig, step: Step, value: object, now: int) -> None:
    """The first read behind each late write gives `value`. A model that gets the last one alone is alike."""
    (register,) = (grant.register for grant in polled.device.granted(device_spec.LateWrites))
    for byte in b"abc":
        for rig in (polled, quiet):
            rig.model.write(now, register, 1, byte)
            rig.model.take_effects()
        assert polled.model.read(now, step.offset, step.size) == value
        assert polled.model.take_effects() == []
    assert quiet.model.read(now, step.offset, step.size) == value
    assert polled.snapshot() == quiet.snapshot()


def check_steady(rig: Rig, steps: Sequence[Step]) -> None:
    """A steady value stays, and reading it has no effect: none that a late write behind it does not undo."""
    steady_of = getattr(rig.model, "steady", None)
    for step in steps:
        rig.step(step)
        if steady_of is None or step.kind != "read" or rig.trace[-1][1]:  # type: ignore[index]  # effects
            continue
        steady = steady_of(step.offset, step.size, rig.trace[-2])
        assert 0 <= steady <= MAX_STEADY
        deadline = rig.model.next_deadline()
        end = rig.seen + (steady >> STEADY_SHIFT) * 1000
        end = end if deadline is None else min(end, deadline)
        polled, quiet = rig.twin(rig.snapshot()), rig.twin(rig.snapshot())
        if steady & BEHIND_LATE_WRITES:
            check_behind_late_writes(polled, quiet, step, rig.trace[-2], rig.seen)
            continue
        for at in sorted({rig.seen, (rig.seen + end) // 2, end - 1}):
            if rig.seen <= at < end:
                assert polled.model.read(at, step.offset, step.size) == rig.trace[-2]
                assert polled.model.take_effects() == []
                quiet.model.advance(at)
        assert polled.snapshot() == quiet.snapshot()
