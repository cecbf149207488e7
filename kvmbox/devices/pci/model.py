"""PCI's configuration space of all functions of bus 0, and the router of their interrupts.

Sources: PCI Local Bus Specification 3.0, 3.2.2.3.2 (mechanism #1), 6.1 (header), 6.2.5 (base addresses), 6.8
(MSI, MSI-X); Intel 82371SB (PIIX3) datasheet, 2.1.6 (PIRQRC). The reset control register of the same chip is
in the middle of the address register: `reset_control`.

Theory of operation
-------------------
    0  CONFIG_ADDRESS   4 bytes at a time; other accesses are none to it. Offset 1 is the reset control.
    4  CONFIG_DATA      1, 2 or 4 bytes of the register that the address names, if its bit 31 is set

A function is 256 bytes, and a mask of the bits that the guest can write. The parameter `functions` has them
as the firmware leaves them, with places and interrupts given out: so they are after a reset. The registers
behind the header that no mask makes read-only just keep what is written.

The model does no decoding. It tells where each base address register would decode (`Decode`), how a function
may interrupt (`Control`, `Message`), and where the router's registers lead (`Route`): only what a write has
changed. A register with 0 or all ones in it, as while a driver asks for the size, decodes nowhere.

Reading has no effect, and depends on writes alone: all values are steady.
"""

from __future__ import annotations

import struct

from kvmbox.contract.model import NANOSECONDS, SnapshotError, TimelessModel, steady_for
from kvmbox.contract.pci_effects import INTX_OFF, MSIX_MASKED, MSIX_ON, Control, Decode, Message, Route
from kvmbox.devices.pci.reset_control import RST_CNT, ResetControl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Final

    Run = tuple[int, int, bytes]

CONFIG_ADDRESS: Final = 0
CONFIG_DATA: Final = 4

COMMAND: Final = 0x04
BASE_ADDRESSES: Final = 0x10
CAPABILITIES: Final = 0x34
INTERRUPT_LINE: Final = 0x3C

IO_SPACE: Final = 1 << 0
MEMORY_SPACE: Final = 1 << 1
BUS_MASTER: Final = 1 << 2
SERR: Final = 1 << 8
INTX_DISABLE: Final = 1 << 10

IS_IO: Final = 1 << 0
IS_WIDE: Final = 2 << 1
IS_PREFETCHABLE: Final = 1 << 3

MSI: Final = 0x05
MSIX: Final = 0x11
ROUTER: Final = 0x8086, 0x7000
PIRQ: Final = 0x60
NO_IRQ: Final = 0x80

_ONES: Final = 0xFFFF_FFFF
_SIZE: Final = 256
_BARS: Final = 6
_FIXED: Final = struct.Struct("<B4HB3sBBBB2H6I6BB")
_RUN: Final = struct.Struct("<BBB")  # offset, length, the writable bits of each byte
_MESSAGE: Final = struct.Struct("<2xHQH")  # of MSI: control, address, data
_HEADER: Final = struct.Struct("<4sI")
_MAGIC: Final = b"PCI\x01"
_RESERVED_IRQS: Final = (0, 1, 2, 8, 13)
_IO_END: Final = (1 << 16,)
_MEMORY_ENDS: Final = (1 << 32, 1 << 64)
"""Where a register ends in which all ones were written, or in the low half of which."""
_STAYS: Final = steady_for(NANOSECONDS)


def pack_function(
    number: int,
    ids: tuple[int, int, int, int],
    class_code: int,
    *,
    revision: int = 0,
    header: int = 0,
    line: int = 0,
    pin: int = 0,
    command: int = 0,
    status: int = 0,
    bars: tuple[tuple[int, int], ...] = (),
    capabilities: int = 0,
    runs: Iterable[Run] = (),
) -> bytes:
    """A function of the parameter `functions`.

    `number` is device << 3 | function. `ids` are those of vendor and device, then of the subsystem. `bars`
    are (value, binary logarithm of the size) of each base address register; size 0 for none. `runs` are
    (offset, writable bits of each byte, bytes) behind the header.
    """
    bars = (*bars, *[(0, 0)] * (_BARS - len(bars)))
    behind = [_RUN.pack(offset, len(data), mask) + data for offset, mask, data in runs]
    fixed = _FIXED.pack(
        number,
        *ids,
        revision,
        class_code.to_bytes(3, "little"),
        *(header, capabilities, line, pin),
        *(command, status),
        *(value for value, _ in bars),
        *(size for _, size in bars),
        len(behind),
    )
    return fixed + b"".join(behind)


class _Bar:
    """A base address register: its index, its offset, its size in bytes, and its lowest bits."""

    __slots__ = ("index", "kind", "offset", "size")

    def __init__(self, index: int, kind: int, size: int) -> None:
        self.index = index
        self.offset = BASE_ADDRESSES + 4 * index
        self.kind = kind
        self.size = size

    @property
    def width(self) -> int:
        """How many bytes the register has."""
        return 8 if not self.kind & IS_IO and self.kind & IS_WIDE else 4

    def address(self, config: bytearray) -> int | None:
        """Where it decodes, if it does."""
        is_io = self.kind & IS_IO
        if not config[COMMAND] & (IO_SPACE if is_io else MEMORY_SPACE):
            return None
        value = int.from_bytes(config[self.offset : self.offset + self.width], "little")
        address = value & ~(3 if is_io else 15)
        end = address + self.size
        is_sized = end in (_IO_END if is_io else _MEMORY_ENDS)
        return address if address and not is_sized and end < 1 << (16 if is_io else 64) else None


class _Function:
    """The configuration space of one function."""

    __slots__ = ("bars", "config", "initial", "mask", "msi", "msix", "number", "routes")

    def __init__(self, fields: tuple[object, ...], runs: list[Run]) -> None:
        """`fields` are those of `_FIXED`."""
        number, vendor, device, sub_vendor, sub_device, revision, code, *rest = fields
        header, capabilities, line, pin, command, status, *bars = rest
        config = bytearray(_SIZE)
        struct.pack_into("<4HB", config, 0, vendor, device, command, status, revision)
        config[9:12] = code  # type: ignore[call-overload]  # bytes
        struct.pack_into("<B", config, 14, header)
        struct.pack_into("<2H", config, 0x2C, sub_vendor, sub_device)
        struct.pack_into("<B", config, CAPABILITIES, capabilities)
        struct.pack_into("<2B", config, INTERRUPT_LINE, line, pin)
        mask = bytearray(_SIZE)
        writable = IO_SPACE | MEMORY_SPACE | BUS_MASTER | SERR | INTX_DISABLE
        struct.pack_into("<H", mask, COMMAND, writable)
        mask[0x0C] = mask[INTERRUPT_LINE] = 0xFF
        self.bars: list[_Bar] = []
        values, sizes = bars[:_BARS], bars[_BARS:]
        for index, size in enumerate(sizes[:_BARS]):
            value = int(values[index])  # type: ignore[call-overload]
            struct.pack_into("<I", config, BASE_ADDRESSES + 4 * index, value)
            if size:
                bar = _Bar(index, value & 15, 1 << int(size))  # type: ignore[call-overload]
                self.bars.append(bar)
                bits = -bar.size & (1 << 8 * bar.width) - 1
                mask[bar.offset : bar.offset + bar.width] = bits.to_bytes(bar.width, "little")
        for offset, writable, data in runs:
            config[offset : offset + len(data)] = data
            mask[offset : offset + len(data)] = bytes((writable,)) * len(data)
        self.number = int(number)  # type: ignore[call-overload]
        self.initial = bytes(config)
        self.mask = bytes(mask)
        self.config = config
        self.routes = (vendor, device) == ROUTER
        self.msi = self._capability(MSI)
        self.msix = self._capability(MSIX)

    def _capability(self, wanted: int) -> int:
        """Where the capability with that id is, or 0."""
        place = self.initial[CAPABILITIES]
        while place and self.initial[place] != wanted:
            place = self.initial[place + 1]
        return place

    def decoded(self) -> list[int | None]:
        """Where each base address register decodes, if it does."""
        return [bar.address(self.config) for bar in self.bars]

    def control(self) -> int:
        """The flags of `Control`."""
        flags = INTX_OFF if self.config[COMMAND + 1] & INTX_DISABLE >> 8 else 0
        if self.msix:
            high = self.config[self.msix + 3]
            flags |= (MSIX_ON if high & 0x80 else 0) | (MSIX_MASKED if high & 0x40 else 0)
        return flags

    def message(self) -> tuple[int, int, int]:
        """The address and the data of its message, and whether that is enabled."""
        if not self.msi:
            return 0, 0, 0
        control, address, data = _MESSAGE.unpack_from(self.config, self.msi)
        return address, data, control & 1

    def write(self, register: int, data: bytes) -> None:
        """Change the bits that can be written."""
        for place, byte in enumerate(data, register):
            mask = self.mask[place]
            self.config[place] = self.config[place] & ~mask | byte & mask


def unpack_functions(data: bytes) -> dict[int, _Function]:
    """The parameter `functions`, by number. Raises struct.error if it is none."""
    found = {}
    position = 0
    while position < len(data):
        *fields, count = _FIXED.unpack_from(data, position)
        position += _FIXED.size
        runs = []
        for _ in range(count):
            offset, length, mask = _RUN.unpack_from(data, position)
            position += _RUN.size + length
            runs.append((offset, mask, data[position - length : position]))
        found[fields[0]] = _Function(tuple(fields), runs)
    return found


class PciHost(TimelessModel):
    """See the module.

    >>> ids = 0x8086, 0x1237, 0, 0
    >>> host = PciHost(functions=pack_function(0, ids, 0x060000))
    >>> host.write(0, CONFIG_ADDRESS, 4, 0x8000_0000)
    >>> hex(host.read(0, CONFIG_DATA, 4))
    '0x12378086'
    """

    __slots__ = ("_address", "_functions", "_reset")

    def __init__(self, *, functions: bytes) -> None:
        super().__init__()
        self._address = 0
        self._functions = unpack_functions(functions)
        self._reset = ResetControl()

    def _selected(self) -> _Function | None:
        address = self._address
        return self._functions.get(address >> 8 & 0xFFFF) if address >> 31 else None

    def read(self, now: int, offset: int, size: int) -> int:
        """See DeviceModel."""
        if (offset, size) == (CONFIG_ADDRESS, 4):
            return self._address
        if (offset, size) == (RST_CNT, 1):
            return self._reset.read(now, offset, size)
        function = self._selected() if offset >= CONFIG_DATA and offset + size <= CONFIG_DATA + 4 else None
        if function is None:
            return (1 << 8 * size) - 1
        register = self._address & 0xFC | offset - CONFIG_DATA
        return int.from_bytes(function.config[register : register + size], "little")

    def write(self, now: int, offset: int, size: int, value: int) -> None:
        """See DeviceModel."""
        if (offset, size) == (CONFIG_ADDRESS, 4):
            self._address = value & _ONES
        elif (offset, size) == (RST_CNT, 1):
            self._reset.write(now, offset, size, value)
            self._effects += self._reset.take_effects()
        elif offset >= CONFIG_DATA and offset + size <= CONFIG_DATA + 4:
            function = self._selected()
            if function is not None:
                data = (value & (1 << 8 * size) - 1).to_bytes(size, "little")
                self._configure(function, self._address & 0xFC | offset - CONFIG_DATA, data)

    def _configure(self, function: _Function, register: int, data: bytes) -> None:
        decoded, control, message = function.decoded(), function.control(), function.message()
        routes = function.config[PIRQ : PIRQ + 4]
        function.write(register, data)
        changes = zip(function.bars, decoded, function.decoded(), strict=True)
        for bar, before, after in changes:
            if before != after:
                effect = Decode(function.number, bar.index, after or 0, int(after is not None))
                self._effects.append(effect)
        if function.control() != control:
            self._effects.append(Control(function.number, function.control()))
        if function.message() != message:
            self._effects.append(Message(function.number, *function.message()))
        if function.routes:
            for pin, (old, new) in enumerate(zip(routes, function.config[PIRQ : PIRQ + 4], strict=True)):
                if old != new:
                    line = new & 15
                    self._effects.append(
                        Route(pin, line, int(not new & NO_IRQ and line not in _RESERVED_IRQS))
                    )

    def steady(self, offset: int, size: int, value: int) -> int:
        """See SteadyModel."""
        return _STAYS

    def reset(self, now: int) -> None:
        """See DeviceModel. The VMM knows where everything is after a reset."""
        self._address = 0
        self._reset.reset(now)
        for function in self._functions.values():
            function.config[:] = function.initial

    def snapshot(self) -> bytes:
        """See DeviceModel."""
        configs = [bytes(function.config) for function in self._functions.values()]
        return _HEADER.pack(_MAGIC, self._address) + self._reset.snapshot() + b"".join(configs)

    def restore(self, state: bytes) -> None:
        """See DeviceModel."""
        size = len(self._reset.snapshot())
        behind = _HEADER.size + size
        if len(state) != behind + _SIZE * len(self._functions) or not state.startswith(_MAGIC):
            raise SnapshotError(f"not a snapshot of this model and version ({_MAGIC!r})")
        found = []
        for index, function in enumerate(self._functions.values()):
            config = state[behind + _SIZE * index : behind + _SIZE * (index + 1)]
            if any(
                (one ^ two) & ~mask
                for one, two, mask in zip(config, function.initial, function.mask, strict=True)
            ):
                raise SnapshotError(f"bits of function {function.number:#x} that nothing changes")
            found.append(config)
        self._reset.restore(state[_HEADER.size : behind])
        _, self._address = _HEADER.unpack_from(state)
        for function, config in zip(self._functions.values(), found, strict=True):
            function.config[:] = config
        self._effects = []
