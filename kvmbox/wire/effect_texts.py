"""What an effect does, in words.

Each text is a function of the effect, and of what names the wire at a pin.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import kvmbox.wire.bulk_effect_table
import kvmbox.wire.pci_effect_table  # noqa: F401 - whoever shows effects decodes them all
from kvmbox.contract import bulk_data, model
from kvmbox.contract.pci_effects import Control, Decode, Message, Route

if TYPE_CHECKING:
    from kvmbox.contract.model import Ranges

_LATE: Final = ("forbids", "allows", "lets pin 0 pulse for")


def _rise_text(effect: model.RisesAt, wire: Callable[[int], str]) -> str:
    if effect.at == model.NO_RISE:
        return f"announces nothing for {wire(effect.pin)}"
    return f"announces that {wire(effect.pin)} rises at {effect.at} ns"


def _irq_text(effect: model.IrqLine, wire: Callable[[int], str]) -> str:
    missed = f" ({effect.coalesced} coalesced)" if effect.coalesced else ""
    return f"{'raises' if effect.level else 'lowers'} {wire(effect.pin)}{missed}"


def ranges_text(ranges: Ranges) -> str:
    """Ranges of memory for a person, bounded."""
    shown = ", ".join(f"{size} bytes at {address:#x}" for address, size in ranges[:8])
    return (shown or "nothing") + (", …" if len(ranges) > 8 else "")


def excerpt(data: bytes, limit: int = 32) -> str:
    """The beginning of data for a person, as a literal without its b."""
    return repr(data[:limit])[1:] + ("…" if len(data) > limit else "")


def _function_text(number: int) -> str:
    return f"{number >> 3:02x}.{number & 7}"


TEXTS: Final[Mapping[type[model.Effect], Callable[[Any, Callable[[int], str]], str]]] = {
    model.IrqLine: _irq_text,
    model.HostOutput: lambda effect, _: f"sends {excerpt(effect.data)}",
    model.InputRoom: lambda effect, _: f"has room for {effect.count} bytes",
    model.Reset: lambda *_: "asks for a reset",
    model.Stop: lambda *_: "asks for a stop",
    model.MemoryRead: lambda effect, _: f"asks for memory (tag {effect.tag}): {ranges_text(effect.ranges)}",
    model.MemoryWrite: lambda effect, _: (
        f"writes {len(effect.data)} bytes to memory at {effect.address:#x}: {excerpt(effect.data)}"
    ),
    model.Transfer: lambda effect, _: (
        f"asks to {'read' if effect.to_guest else 'write'} resource {effect.resource} at byte "
        f"{effect.offset} (tag {effect.tag}): {ranges_text(effect.ranges)}"
    ),
    model.ContentRead: lambda effect, _: (
        f"asks for {effect.size} bytes of resource {effect.resource} at byte {effect.offset}"
        f" (tag {effect.tag})"
    ),
    model.TakeLine: lambda effect, wire: f"{'takes' if effect.taken else 'gives back'} {wire(effect.pin)}",
    model.Suspend: lambda effect, _: f"asks to suspend (wake-up {effect.wakes:#x})",
    model.LateWrites: lambda effect, _: f"{_LATE[effect.allowed]} late writes to register {effect.register}",
    model.RisesAt: _rise_text,
    bulk_data.Window: lambda effect, _: (
        f"lets the guest {'read' if effect.to_guest else 'write'} {effect.size} bytes of medium "
        f"{effect.resource} at byte {effect.offset} (tag {effect.tag})"
    ),
    bulk_data.Aperture: lambda effect, _: (
        f"lets {effect.size} bytes at {effect.address:#x} be plain memory"
        if effect.is_plain
        else f"asks for {effect.size} bytes of the window at {effect.address:#x}"
    ),
    bulk_data.Flush: lambda effect, _: f"asks to flush medium {effect.resource} (tag {effect.tag})",
    bulk_data.Queue: lambda effect, _: (
        f"has queue {effect.index} of {effect.size} at {effect.descriptors:#x}, {effect.available:#x}, "
        f"{effect.used:#x}"
    ),
    bulk_data.Walk: lambda effect, _: (
        f"wants the chains of queue {effect.index}, {effect.count} at a time"
        if effect.count
        else f"wants no chains of queue {effect.index}"
    ),
    bulk_data.ChainRead: lambda effect, _: (
        f"asks for {effect.size} bytes of chain {effect.handle} at {effect.skip}"
    ),
    bulk_data.ChainWrite: lambda effect, _: (
        f"writes {len(effect.data)} bytes to chain {effect.handle} at {effect.skip}: {excerpt(effect.data)}"
    ),
    bulk_data.ChainTransfer: lambda effect, _: (
        f"asks to {'read' if effect.to_guest else 'write'} {effect.size} bytes of medium "
        f"{effect.resource} at byte {effect.offset} for chain {effect.handle} at {effect.skip}"
    ),
    bulk_data.ChainServe: lambda effect, _: (
        f"has {effect.size} bytes of medium {effect.resource} at byte {effect.offset} "
        f"{'read' if effect.to_guest else 'written'} for chain {effect.handle} at {effect.skip}, then status "
        f"{effect.good} or {effect.bad} at {effect.place}, and gives it back"
    ),
    bulk_data.Connect: lambda effect, _: (
        f"connects queue {effect.index} {'behind' if effect.to_guest else 'with'} medium {effect.resource}, "
        f"{effect.header} bytes before a packet"
    ),
    bulk_data.ConfigChanged: lambda _effect, _: "tells of its configuration",
    bulk_data.ChainUsed: lambda effect, _: f"gives back chain {effect.handle} with {effect.written} bytes",
    Decode: lambda effect, _: (
        f"{'places' if effect.enabled else 'removes'} base address {effect.bar} of function "
        f"{_function_text(effect.function)}" + (f" at {effect.address:#x}" if effect.enabled else "")
    ),
    Route: lambda effect, _: (
        f"routes INT{'ABCD'[effect.pin % 4]}# to {f'IRQ {effect.line}' if effect.enabled else 'nowhere'}"
    ),
    Control: lambda effect, _: (
        f"sets how function {_function_text(effect.function)} interrupts to {effect.flags:#x}"
    ),
    Message: lambda effect, wire: (
        f"{'sends' if effect.enabled else 'keeps'} {wire(effect.pin)} as {effect.data:#x} to "
        f"{effect.address:#x}"
    ),
    bulk_data.FrameBuffer: lambda effect, _: (
        f"clears {effect.clear} bytes of the frame buffer, and shows "
        f"{f'its piece {effect.bank}' if effect.shown else 'RAM'} at 0xa0000"
    ),
}
