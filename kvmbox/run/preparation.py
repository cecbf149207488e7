"""What a run has before there is a machine: its parts, its image, and its processes, which were asked for.

The spawner is started first, because it must not inherit anything. Device processes start while the VMM
builds the machine (`assembly`).
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from kvmbox.base.value_classes import Value
from kvmbox.host.process.cpu_placement import Placement, place
from kvmbox.remote.process.device_pool import DevicePool
from kvmbox.remote.transport.ipc_table import TRANSPORTS
from kvmbox.run.machine.board_setup import board_of, refuse_conflicts
from kvmbox.run.machine.boot_source import BootSource
from kvmbox.run.options.isolation import design_here
from kvmbox.run.part import Opening
from kvmbox.run.parts import Parts, origin_of
from kvmbox.sandbox.seccomp import device_filter

if TYPE_CHECKING:
    from collections.abc import Callable

    from kvmbox.base.judge import Judge
    from kvmbox.boot.boot_files import HostFiles
    from kvmbox.firmware.fw_cfg import FwCfgItem
    from kvmbox.run.frontend import Caller
    from kvmbox.run.machine.start_state import Origin
    from kvmbox.run.options.config import RunConfig
    from kvmbox.run.result.stage_times import Timeline


class Prepared(Value):
    """A run whose machine can be built."""

    opening: Opening
    parts: Parts
    origin: Origin
    files: HostFiles
    pool: DevicePool
    placement: Placement


def prepare(
    config: RunConfig,
    caller: Caller,
    judge: Judge,
    say: Callable[[str], None],
    ready_by: int | None,
    timeline: Timeline,
    cleanup: ExitStack,
) -> Prepared:
    """Start the spawner, read the image, open what parts need, and ask for the device processes."""
    parts, origin = Parts(config), origin_of(config)
    files = origin.files()
    items: tuple[FwCfgItem, ...] = ()
    with origin.blamed():
        if config.fw_cfg:
            from kvmbox.run.options.fw_cfg_option import read_files

            items = read_files(config, files, say)
        board_of(config, fw_cfg=items)  # what contradicts itself is refused before anything starts
    placement = place(config.pin, config.cpus)
    cleanup.callback(placement.close)
    design = design_here(config.design, config.require, placement, say)
    pool = DevicePool(design)
    cleanup.callback(pool.close)
    pool.ready_by = ready_by
    with origin.blamed():
        source = BootSource.read(config, files)  # it tells which devices there are
        opening = Opening(config, caller, judge, source, say)
        parts.equip(opening, cleanup)
        opening.complete(
            board_of(config, bios=source.has_bios, drives=opening.drives, fw_cfg=(*source.fw_cfg, *items))
        )
        refuse_conflicts(config, opening.board)
    origin.check_board(opening.board)  # before a part empties a file
    parts.open(opening)
    pool.tap = opening.tap
    timeline.mark("spawner started")
    transport = TRANSPORTS[design.ipc]
    pool.launch(
        opening.board,
        device_filter(pipes=transport.uses_pipes) if design.filters else b"",
        cpu=placement.cpu,
        spare_cpus=placement.spares,
        may_spin=transport.spins and placement.has_room_to_spin,
        require=config.require,
        on_demand=True,
    )
    timeline.mark("device processes asked for")
    return Prepared(opening, parts, origin, files, pool, placement)
