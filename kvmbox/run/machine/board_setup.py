"""The board of one run: the devices that its options put there, none in the place of another one."""

from __future__ import annotations

from collections.abc import Sequence

from kvmbox.base.errors import UsageError
from kvmbox.contract.device_spec import DeviceSpec, Medium, Resource, StopValue
from kvmbox.devices.bios.board import BootDrive
from kvmbox.devices.pc_board import BoardOptions, pc_board

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kvmbox.firmware.fw_cfg import FwCfgItem
    from kvmbox.run.options.config import RunConfig


def board_of(
    config: RunConfig,
    *,
    bios: bool = False,
    drives: Sequence[BootDrive] = (),
    fw_cfg: Sequence[FwCfgItem] = (),
) -> list[DeviceSpec]:
    """The devices of this run, with those behind the built-in BIOS, whose drives are `drives`.

    `fw_cfg` are items beyond those that every guest is told: the module `fw_cfg_option` has the user's.

    Raises UsageError if two devices claim the same port.
    """
    options = BoardOptions(
        serial_ports=tuple(config.serial),
        rtc_base=config.rtc_base,
        memory_size=config.memory_size,
        debug_exit_port=config.debug_exit_port,
        uart_pace=config.uart_pace,
        cpus=config.cpus,
        testdev=config.testdev,
        fw_cfg=tuple(fw_cfg),
        has_bios=bios,
        boot_drives=tuple(drives),
    )
    board = pc_board(options)
    if config.testdev or bios:
        from kvmbox.devices.pc_board import pc_extras

        board += pc_extras(options)
    board += config.devices
    refuse_conflicts(config, board)
    return board


def refuse_conflicts(config: RunConfig, board: Sequence[DeviceSpec]) -> None:
    """UsageError if two devices claim the same port: one that the user puts somewhere, and another one."""
    for device in board:
        if device.granted(StopValue):
            for other in board:
                if other is not device and _overlap(device, other):
                    raise UsageError(f"--debug-exit {config.debug_exit_port:#x} belongs to {other.name}")
    for device in config.devices:
        for other in board:
            if other is not device and (other.name == device.name or _overlap(device, other)):
                raise UsageError(f"device {device.name} is in the place of {other.name}")
        for name in [one.name for one in device.grants if isinstance(one, Resource | Medium)]:
            if name not in config.resources:
                raise UsageError(f"device {device.name} needs a resource '{name}'")


def _overlap(one: DeviceSpec, other: DeviceSpec) -> bool:
    return any(
        mine.first < theirs.first + theirs.count and theirs.first < mine.first + mine.count
        for mine_all, theirs_all in ((one.ports, other.ports), (one.mmio, other.mmio))
        for mine in mine_all
        for theirs in theirs_all
    )
