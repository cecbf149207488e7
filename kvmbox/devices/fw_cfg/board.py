"""fw_cfg on the board: its ports and its content."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from kvmbox.base import layout
from kvmbox.contract.device_spec import AddressRange, Content, DeviceSpec, Memory
from kvmbox.firmware.fw_cfg import FwCfgContent, FwCfgItem, content_of, machine_items


def fw_cfg(memory_size: int, cpus: int, items: Sequence[FwCfgItem]) -> DeviceSpec:
    """fw_cfg of such a machine, with `items` beyond those that every guest is told."""
    content = (
        content_of([*machine_items(memory_size, cpus), *items])
        if items
        else _usual_content(memory_size, cpus)
    )
    return DeviceSpec(
        "fw_cfg",
        "fwcfg",
        "fw_cfg",
        ports=(
            AddressRange(layout.FW_CFG_PORT, 2),
            AddressRange(layout.FW_CFG_DMA_PORT, 8, offset=4),
        ),
        parameters={"directory": content.directory, "small": content.small},
        # The request block, and the control word that is written back to it.
        grants=(Memory(max_bytes=16, max_ranges=1), Content(content.parts)),
        natural_sizes=frozenset({2, 4}),
        on_demand=True,
    )


@lru_cache(maxsize=4)
def _usual_content(memory_size: int, cpus: int) -> FwCfgContent:
    """What every guest of such a machine is told."""
    return content_of(machine_items(memory_size, cpus))
