"""The VMM's side of PCI: where base address registers really decode, and where interrupts really go.

The `pci_fabric` process has the configuration spaces, and says what the guest makes of them
(`devices.pci.model`). The registers of a function are in the process of its own device. This module has the
buses between them.

The frame buffer of a VGA is memory of the guest, and no register. Its base address says where it is, and does
not move it.

Who may be where. A register decodes at the address that the guest has given it, if there is nothing else: no
RAM and no ROM, nothing of the chip set from the I/O APIC up to 4 GiB, no port of the interrupt controllers,
no device and no other register. Where there is, it decodes nowhere, and a person is told once. As soon as the
place is free, it does. So a `pci_fabric` process that is taken over can take a device from its place, which
is no more than a guest can do, and cannot put it over anything.

Interrupts. A function's pin is wired to one of the four of the router, which the guest routes to an ISA
interrupt, or to none. Each ISA interrupt that can be chosen has one source here: the OR of what is routed to
it. With MSI-X enabled the pin is silent. A vector is one more output pin of the model: its rise is a message.
The model says which one (`Message`), whenever the guest writes that into its table, and a message counts only
if it goes to a local APIC. What rises while a vector is masked is sent when it is not any more; the pending
bits of the table do not show it. A vector that rises while MSI-X is off is the pin. With MSI enabled, each
rise of the pin is the message that the configuration space has.

Locks. A channel's lock is taken before the one here, and that one before the router's. Nothing is asked of a
device process here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence
from struct import Struct
from typing import TYPE_CHECKING, Final

import kvmbox.wire.pci_effect_table  # noqa: F401 - adds the effects that some models have
from kvmbox.base import layout
from kvmbox.contract.pci_effects import INTX_OFF, MSIX_MASKED, MSIX_ON, Control, Decode, Message, Route
from kvmbox.contract.pci_grants import Intx, PciBus, Vectors
from kvmbox.remote.bus.routing import Mapping

if TYPE_CHECKING:
    from kvmbox.base.memory import GuestMemory
    from kvmbox.contract.device_spec import PciGrant
    from kvmbox.contract.model import Effect
    from kvmbox.contract.pci_function import Bar, Piece, PlacedFunction
    from kvmbox.remote.bus.movable import MovingBus
    from kvmbox.remote.bus.routing import BusDevice, DirectDevice
    from kvmbox.remote.channel.effect_calls import Application

_FLAGS: Final = INTX_OFF | MSIX_ON | MSIX_MASKED
_NOWHERE: Final = -1
_NO_LINE: Final = 0xFF
_STATE: Final = Struct("<4s4B")  # magic, and the line of each of the router's interrupts
_FUNCTION: Final = Struct("<BB")  # flags, level of the pin
_PLACE: Final = Struct("<??Q")  # whether it is to be anywhere, whether it is there, and the address
_VECTOR: Final = Struct("<QIBB")  # address, data, whether it is sent, whether it waits
_MAGIC: Final = b"PCI\x02"


class _Region:
    """What one base address register places, and where."""

    __slots__ = ("address", "bar", "device", "direct", "firmware", "is_told", "mappings", "name")

    def __init__(self, name: str, bar: Bar, firmware: int) -> None:
        self.name = name
        self.bar = bar
        self.firmware = firmware
        """Where it is after a reset."""
        self.address = _NOWHERE
        """Where the guest wants it."""
        self.mappings: list[Mapping] = []
        """Where it is, in its pieces."""
        self.device: BusDevice | None = None
        self.direct: DirectDevice | None = None
        self.is_told = False

    def pieces(self, *, msix: bool) -> Sequence[Piece]:
        """Its pieces as long as the function has MSI-X enabled, or not."""
        return self.bar.with_msix if msix and self.bar.with_msix is not None else self.bar.pieces

    def at(self, address: int, *, msix: bool) -> list[Mapping]:
        """What it is on the bus at an address."""
        assert self.device is not None
        return [
            Mapping(address + one.start, one.count, self.device, one.register, direct=self.direct)
            for one in self.pieces(msix=msix)
        ]


_DELIVERY: Final = 8
"""The first bit of the delivery mode in the data of a message (Intel SDM 3, 11.11.2)."""
_INTERRUPTS: Final = (0, 1)
"""The modes that are interrupts: fixed, and lowest priority. Not SMI, NMI or INIT."""


class Vector:
    """A message of a function: called with the level of the model's output pin."""

    __slots__ = ("_bus", "address", "data", "function", "is_sent", "waits")

    def __init__(self, bus: PciFabric, function: Function) -> None:
        self._bus = bus
        self.function = function
        self.power_on()

    def power_on(self) -> None:
        """No message is known."""
        self.address = self.data = 0
        self.is_sent = self.waits = False

    def __call__(self, level: int, _coalesced: int) -> None:
        """The pin has a new level: only a rise counts."""
        if level:
            self._bus.rise(self)


class Function:
    """A function, its interrupt pin, its vectors, and the regions of its base address registers."""

    __slots__ = ("_bus", "first_vector", "flags", "level", "message", "pirq", "regions", "vectors")

    def __init__(self, bus: PciFabric, placed: PlacedFunction) -> None:
        self._bus = bus
        self.pirq = placed.pirq
        self.regions = {
            index: _Region(f"{placed.device or 'VGA'}, base address {index}", bar, address)
            for index, bar, address in placed.bars
        }
        self.message = Vector(bus, self)
        """Its MSI. Without the capability it never is enabled."""
        self.vectors: list[Vector] = [self.message] if placed.has_msi else []
        self.first_vector: int | None = None
        self.flags = 0
        self.level = 0

    def __call__(self, level: int, _coalesced: int) -> None:
        """The model's INTx pin has a new level."""
        self._bus.set_pin(self, level)

    @property
    def asserts(self) -> bool:
        """Whether the router sees its pin high."""
        return bool(self.level and not self.flags & (INTX_OFF | MSIX_ON) and not self.message.is_sent)

    def messages(self, count: int, first: int) -> list[Vector]:
        """Its `count` vectors of MSI-X, which are the model's output pins from number `first` on."""
        self.first_vector = first
        self.vectors = [Vector(self._bus, self) for _ in range(count)]
        return self.vectors

    def check(self, _index: int, effect: Effect) -> Application | None:
        """What an effect of the function's own device calls, None if it may not have it."""
        match effect:
            case Message(pin, address, data, enabled) if self.first_vector is not None:
                if 0 <= pin - self.first_vector < len(self.vectors):
                    vector = self.vectors[pin - self.first_vector]
                    return self._bus.set_message, (vector, address, data, enabled), 0
        return None


class PciFabric:
    """The buses and the interrupts of a machine's PCI. Thread-safe."""

    def __init__(
        self,
        grant: PciBus,
        ports: MovingBus,
        mmio: MovingBus,
        ram: GuestMemory,
        irq_source: Callable[[int], Callable[[int, int], None]],
        note: Callable[[str], None] = lambda _line: None,
    ) -> None:
        """`irq_source` is that of `grants.Host`. `note` tells a person a line."""
        self._ports = ports
        self._mmio = mmio
        self._ram = ram
        self._note = note
        self._lock = threading.Lock()
        self._functions = {one.number: Function(self, one) for one in grant.functions}
        self._by_device = {one.device: self._functions[one.number] for one in grant.functions if one.device}
        self._routes = list(layout.PIRQ_LINES)
        self._sources = {line: irq_source(line) for line in layout.PIRQ_CHOICES}
        self._high: set[int] = set()
        self._send: Callable[[int, int], None] | None = None

    # --- Building -----------------------------------------------------------------------------------------

    def function(self, device: str) -> Function:
        """The function of a device."""
        return self._by_device[device]

    def bind(
        self, device: str, grant: PciGrant, lines: list[Callable[[int, int], None]]
    ) -> Callable[[int, Effect], Application | None]:
        """What a grant allows: output pins, which are added to `lines`. Returns what checks effects."""
        if isinstance(grant, PciBus):
            return self.check
        function = self._by_device[device]
        if isinstance(grant, Intx):
            lines.append(function)
        elif isinstance(grant, Vectors):
            lines += function.messages(grant.count, len(lines))
        return function.check

    def connect(self, device: str, target: BusDevice, direct: DirectDevice | None) -> None:
        """The registers of `device`, if it is a function, are `target`'s."""
        if device in self._by_device:
            for region in self._by_device[device].regions.values():
                region.device, region.direct = target, direct

    def attach(self, send: Callable[[int, int], None] | None) -> None:
        """From now on `send(address, data)` has messages; None: nobody has. The vCPUs of before are gone."""
        with self._lock:
            self._send = send
            self._ports.forget_watchers()
            self._mmio.forget_watchers()

    def power_on(self) -> None:
        """Everything is as the firmware leaves it."""
        with self._lock:
            self._routes[:] = layout.PIRQ_LINES
            for function in self._functions.values():
                function.flags = function.level = 0
                for vector in function.vectors:
                    vector.power_on()
                for region in function.regions.values():
                    region.address = region.firmware
                    self._leave(region)
            self._settle()
            self._drive()

    # --- What the process may ask for ---------------------------------------------------------------------

    def check(self, _index: int, effect: Effect) -> Application | None:
        """What an effect of the device with the configuration spaces calls, None if it may not have it."""
        match effect:
            case Decode(number, bar, address, enabled) if number in self._functions:
                region = self._functions[number].regions.get(bar)
                if region is None or address % region.bar.size:
                    return None
                return self._decode, (region, address if enabled else _NOWHERE), 0
            case Route(pin, line, enabled) if pin < len(self._routes):
                if enabled and line not in self._sources:
                    return None
                return self._route, (pin, line if enabled else _NO_LINE), 0
            case Control(number, flags) if number in self._functions and not flags & ~_FLAGS:
                return self._control, (self._functions[number], flags), 0
            case Message(number, address, data, enabled) if number in self._functions:
                message = self._functions[number].message
                if message in self._functions[number].vectors:
                    return self.set_message, (message, address, data, enabled), 0
        return None

    def _decode(self, region: _Region, address: int) -> None:
        with self._lock:
            region.address = address
            self._leave(region)
            self._settle()

    def _route(self, pin: int, line: int) -> None:
        with self._lock:
            self._routes[pin] = line
            self._drive()

    def _control(self, function: Function, flags: int) -> None:
        with self._lock:
            turned, function.flags = function.flags ^ flags, flags
            if turned & MSIX_ON:
                for region in function.regions.values():
                    if region.bar.with_msix is not None:
                        self._leave(region)
                self._settle()
            self._drive()
            for vector in function.vectors:
                self._try_to_send(vector)

    # --- Places -------------------------------------------------------------------------------------------

    def _leave(self, region: _Region) -> None:
        if region.mappings:
            self._bus_of(region.bar).move(region.mappings, [])
            region.mappings = []

    def _settle(self, regions: Collection[_Region] | None = None) -> None:
        """Put each region, or each of `regions`, where it is to be, if there is room."""
        for function in self._functions.values():
            for region in function.regions.values():
                is_meant = regions is None or region in regions
                if is_meant and region.address != _NOWHERE and not region.mappings:
                    self._place(region, msix=bool(function.flags & MSIX_ON))

    def _place(self, region: _Region, *, msix: bool) -> None:
        bar = region.bar
        if not bar.pieces and region.address == region.firmware:
            return  # the frame buffer, which is memory, and stays
        if region.device is not None and self._is_free(bar, region.address):
            mappings = region.at(region.address, msix=msix)
            if self._bus_of(bar).move([], mappings):
                region.mappings = mappings
                return
        if not region.is_told:
            region.is_told = True
            place = f"{'port' if bar.is_io else 'address'} {region.address:#x}"
            why = "something else is at" if bar.pieces else "the frame buffer does not move to"
            self._note(f"{region.name} decodes nowhere: {why} {place}")

    def _is_free(self, bar: Bar, address: int) -> bool:
        """Whether nothing that is on no bus is there."""
        end = address + bar.size
        if bar.is_io:
            taken = [(first, first + count) for first, count in layout.INTERRUPT_CONTROLLER_PORTS]
        else:
            taken = [(layout.CHIP_SET_START, layout.MMIO_HOLE_END)]
            taken += [(layout.FRAME_BUFFER, layout.FRAME_BUFFER + layout.FRAME_BUFFER_SIZE)]
            taken += [(region.start, region.end) for region in (*self._ram.regions, *self._ram.roms)]
        return not any(address < other and first < end for first, other in taken)

    def _bus_of(self, bar: Bar) -> MovingBus:
        return self._ports if bar.is_io else self._mmio

    # --- Interrupts ---------------------------------------------------------------------------------------

    def set_pin(self, function: Function, level: int) -> None:
        """The model of `function` has given its INTx pin a level."""
        with self._lock:
            function.message.waits = bool(level and not function.level and function.message.is_sent)
            function.level = level
            self._drive()
            self._try_to_send(function.message)

    def _drive(self) -> None:
        """Give each ISA interrupt the level that it has to have."""
        high = {self._routes[one.pirq] for one in self._functions.values() if one.asserts} - {_NO_LINE}
        for line in sorted(high ^ self._high):
            self._sources[line](int(line in high), 0)
        self._high = high

    def rise(self, vector: Vector) -> None:
        """The model of the vector's function wants its message sent."""
        with self._lock:
            if vector.function.flags & MSIX_ON:
                vector.waits = True
                self._try_to_send(vector)
            else:
                vector.function.level = 1
                self._drive()

    def set_message(self, vector: Vector, address: int, data: int, enabled: int) -> None:
        """The guest has written the message of a vector."""
        with self._lock:
            vector.address, vector.data, vector.is_sent = address, data, bool(enabled)
            self._drive()
            self._try_to_send(vector)

    def _try_to_send(self, vector: Vector) -> None:
        if not vector.waits or not vector.is_sent:
            return
        function = vector.function
        if vector is not function.message and function.flags & (MSIX_ON | MSIX_MASKED) != MSIX_ON:
            return
        vector.waits = False
        if (
            self._send is not None
            and 0 <= vector.address - layout.LOCAL_APIC_BASE < layout.LOCAL_APIC_MESSAGES
            and vector.data >> _DELIVERY & 7 in _INTERRUPTS
        ):
            self._send(vector.address, vector.data)

    # --- State --------------------------------------------------------------------------------------------

    def state(self) -> bytes:
        """What is to be known for `restore`."""
        with self._lock:
            parts = [_STATE.pack(_MAGIC, *self._routes)]
            for function in self._functions.values():
                parts.append(_FUNCTION.pack(function.flags, function.level))
                parts += [
                    _PLACE.pack(one.address != _NOWHERE, bool(one.mappings), max(one.address, 0))
                    for one in function.regions.values()
                ]
                parts += [
                    _VECTOR.pack(one.address, one.data, one.is_sent, one.waits) for one in function.vectors
                ]
            return b"".join(parts)

    def restore(self, state: bytes) -> None:
        """Be as `state` says, but for the levels of ISA interrupts: the router has these. ValueError if it is
        none of this machine's.
        """
        size = _STATE.size + sum(
            _FUNCTION.size + _PLACE.size * len(one.regions) + _VECTOR.size * len(one.vectors)
            for one in self._functions.values()
        )
        if len(state) != size or not state.startswith(_MAGIC):
            raise ValueError("a PCI bus that is not this machine's")
        _, *routes = _STATE.unpack_from(state)
        if not set(routes) <= {*self._sources, _NO_LINE}:
            raise ValueError("a PCI interrupt goes where none can")
        with self._lock:
            self._routes[:] = routes
            self._settle(self._restore_functions(state[_STATE.size :]))  # of two, the one that was there
            self._settle()
            self._high = {self._routes[one.pirq] for one in self._functions.values() if one.asserts}
            self._high.discard(_NO_LINE)

    def _restore_functions(self, state: bytes) -> list[_Region]:
        """Returns the regions that were where they are to be."""
        placed = []
        position = 0

        def next_of(layout_: Struct) -> tuple[int, ...]:
            nonlocal position
            position += layout_.size
            return layout_.unpack_from(state, position - layout_.size)

        for function in self._functions.values():
            flags, level = next_of(_FUNCTION)
            function.flags, function.level = flags & _FLAGS, level & 1
            for region in function.regions.values():
                self._leave(region)
                is_anywhere, is_placed, address = next_of(_PLACE)
                if address % region.bar.size:
                    raise ValueError("a base address that is not aligned")
                region.address = address if is_anywhere else _NOWHERE
                if is_placed:
                    placed.append(region)
            for vector in function.vectors:
                vector.address, vector.data, is_sent, waits = next_of(_VECTOR)
                vector.is_sent, vector.waits = bool(is_sent), bool(waits)
        return placed
