"""The whole board without processes: models of the catalogue at their ports, as a guest reaches them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType, FunctionType, MethodType, ModuleType
from typing import Any

from kvmbox import layout
from kvmbox.board import SERIAL_PORTS, BoardOptions, pc_board
from kvmbox.bus import Bus, Mapping
from kvmbox.devices.catalog import build_model
from kvmbox.devices.model import DeviceModel, Effect, IrqLine

PORT_BITS = 16


class AtTime:
    """A model as the bus sees it, asked at the board's time."""

    def __init__(self, board: Pc, model: DeviceModel, natural_sizes: frozenset[int]) -> None:
        self._board = board
        self._model = model
        self.natural_sizes = natural_sizes

    def read(self, offset: int, size: int) -> int:
        """What the model answers now."""
        return self._model.read(self._board.now, offset, size)

    def write(self, offset: int, size: int, value: int) -> None:
        """Tell the model now."""
        self._model.write(self._board.now, offset, size, value)


class Pc:
    """Every device there is, on one bus of ports, at a time that only the test moves."""

    def __init__(self, *, pace: bool = False) -> None:
        self.now = 0
        self.ports = Bus(PORT_BITS)
        self.models: dict[str, DeviceModel] = {}
        for device in pc_board(
            BoardOptions(SERIAL_PORTS, rtc_base=0, memory_size=layout.MIN_MEMORY, uart_pace=pace)
        ):
            model = build_model(device.model, dict(device.parameters))
            self.models[device.name] = model
            for place in device.ports:
                at_time = AtTime(self, model, device.natural_sizes)
                self.ports.attach(Mapping(place.first, place.count, at_time, place.offset))

    def effects(self, name: str) -> list[Effect]:
        """What the device caused since the last call."""
        return self.models[name].take_effects()

    def state(self) -> dict[str, bytes]:
        """The whole state of all devices; their effects must have been taken."""
        return {name: model.snapshot() for name, model in self.models.items()}


def rising_edges(effects: list[Effect]) -> int:
    """How often a line rose, those counted that were folded into others."""
    return sum(1 + one.coalesced for one in effects if isinstance(one, IrqLine) and one.level)


def footprint(thing: object) -> int:
    """Bytes of `thing` and all that it holds, as Python counts them: what a guest's input could make grow.

    Modules, classes and functions are not counted: they are code, and shared.
    """
    seen: set[int] = set()
    waiting: list[object] = [thing]
    total = 0
    while waiting:
        one = waiting.pop()
        if id(one) in seen or isinstance(one, type | FunctionType | MethodType | ModuleType):
            continue
        seen.add(id(one))
        total += sys.getsizeof(one)
        if isinstance(one, dict):
            waiting += [*one.keys(), *one.values()]
        elif isinstance(one, list | tuple | set | frozenset):
            waiting += one
        waiting += vars(one).values() if hasattr(one, "__dict__") else ()
        for kind in type(one).__mro__:
            slots = vars(kind).get("__slots__", ())
            names = (slots,) if isinstance(slots, str) else slots
            waiting += [getattr(one, name) for name in names if hasattr(one, name)]
    return total


def lines_executed(action: Callable[[], object]) -> int:
    """How many lines of Python `action` takes: a measure of work that no clock blurs."""
    count = 0

    def trace(_frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        action()
    finally:
        sys.settrace(before)
    return count
