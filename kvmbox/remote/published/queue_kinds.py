"""The queues that the grant of a device means, and the accesses to it: what the VMM's side of the chip makes.

A grant names the module (`Queues.vmm`), which is loaded when the first device wants it. It has functions of
the same names as those here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from kvmbox.base.memory import GuestMemory
from kvmbox.contract.catalog import CHIPS
from kvmbox.contract.device_spec import Queues
from kvmbox.host.disk.transfers import Settle
from kvmbox.remote.channel.connection import Channel
from kvmbox.remote.published.queues import DeviceQueues
from kvmbox.remote.published.registers import Registers


def _side_of(grant: Queues) -> Any:
    return import_module(f"{CHIPS}.{grant.vmm}")


def queues_of(
    grant: Queues, ram: GuestMemory, come_by: Callable[[Settle], bool], *, compiled: bool = False
) -> DeviceQueues:
    """What a grant wants. `come_by` is that of `DeviceQueues`; `compiled`: where there is such a half."""
    made: DeviceQueues = _side_of(grant).queues_of(grant, ram, come_by, compiled=compiled)
    return made


def registers_of(channel: Channel, index: int, queues: DeviceQueues) -> Mapping[int, Registers]:
    """What makes the accesses to device number `index` behind `channel`, of the chosen half, by size."""
    made: Mapping[int, Registers] = _side_of(queues.grant).registers_of(channel, index, queues)
    return made
