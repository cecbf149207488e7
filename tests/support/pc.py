"""The whole board without processes: models of the catalogue at their ports, as a guest reaches them."""

from __future__ import annotations

from kvmbox.base import layout
from kvmbox.contract.catalog import build_model
from kvmbox.contract.model import DeviceModel, Effect, IrqLine
from kvmbox.contract.names import SERIAL_PORTS
from kvmbox.devices.pc_board import BoardOptions, whole_board
from kvmbox.remote.bus.routing import Bus, Mapping

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
        for device in whole_board(
            BoardOptions(
                *(SERIAL_PORTS, 0, layout.MIN_MEMORY),
                uart_pace=pace,
                testdev=True,
            )
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
