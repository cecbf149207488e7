"""Byte ports of the debug process on the board."""

from __future__ import annotations

from typing import Any, Final

from kvmbox.base import layout
from kvmbox.contract import stop_values
from kvmbox.contract.device_spec import (
    AddressRange,
    DeviceSpec,
    Grant,
    Output,
    Reset,
    StopClean,
    StopPanic,
    StopValue,
    WrittenByte,
)

_WIDE: Final = frozenset({2, 4})


def debug_device(
    name: str, model: str, *ports: AddressRange, grants: tuple[Grant, ...], **more: Any
) -> DeviceSpec:
    """A device of the debug process, and `more` of it."""
    return DeviceSpec(name, "debug", model, ports=ports, grants=grants, on_demand=True, **more)


def first_ports(debug_exit_port: int | None) -> list[DeviceSpec]:
    """The debug console, POST, and debug-exit at this port, if at any."""
    post = AddressRange(layout.POST_PORT, 1)
    devices = [
        debug_device(
            *("debugcon", "debugcon"),
            *(AddressRange(port, 1) for port in layout.DEBUGCON_PORTS),
            grants=(Output("debugcon"),),
            coalesced=layout.DEBUGCON_PORTS,
        ),
        debug_device("POST", "post", post, grants=(), coalesced=(post.first,), latches=(post.first,)),
    ]
    if debug_exit_port is not None:
        exits = {"debug-exit": debug_exit_port, "debug-exit-501": layout.EXTRA_DEBUG_EXIT_PORT}
        # The user's port wins: it may be the extra one, or beside it.
        if abs(debug_exit_port - layout.EXTRA_DEBUG_EXIT_PORT) < layout.DEBUG_EXIT_PORT_COUNT:
            del exits["debug-exit-501"]
        for name, port in exits.items():
            ports = AddressRange(port, layout.DEBUG_EXIT_PORT_COUNT)
            stop = (StopValue(),)
            devices.append(
                debug_device(name, "debug_exit", ports, grants=stop, natural_sizes=_WIDE, stopped_by=b"")
            )
    clean = (StopClean((WrittenByte(0, stop_values.SHUTDOWN[-1]),)),)
    shutdown = AddressRange(layout.SHUTDOWN_PORT, 1)
    devices.append(
        debug_device("shutdown", "shutdown_port", shutdown, grants=clean, stopped_by=stop_values.SHUTDOWN)
    )
    return devices


def last_ports() -> list[DeviceSpec]:
    """pvpanic, and the reset control register of a machine without PCI."""
    panic = AddressRange(layout.PVPANIC_PORT, 1)
    # All four ports, because a wide access to the first one is none to the second one.
    reset = AddressRange(layout.PCI_ADDRESS_PORT, 4)
    return [
        debug_device("pvpanic", "pvpanic", panic, grants=(StopPanic(),)),
        debug_device("reset-control", "reset_control", reset, grants=(Reset(),), natural_sizes=_WIDE),
    ]
