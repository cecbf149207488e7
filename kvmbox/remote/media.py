"""The permissions of devices with media and virtqueues: the part of `grants` that other runs do not load."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import kvmbox.wire.media_effects  # noqa: F401 - adds the effects that some models have
from kvmbox import board
from kvmbox.devices.media import Flush, Window
from kvmbox.remote.guest_memory import ContentAccess, TransferAccess

if TYPE_CHECKING:
    from kvmbox.board import DeviceSpec
    from kvmbox.devices.model import Effect
    from kvmbox.remote.follow_up import Application
    from kvmbox.remote.grants import Grants, Host
    from kvmbox.remote.medium import MediumAccess
    from kvmbox.remote.window import DataWindow


def window_of(device: DeviceSpec, host: Host) -> DataWindow | None:
    """The window of a device, at the register that all of its media name. ValueError if that is not one."""
    registers = {one.window for one in device.granted(board.Medium) if one.window is not None}
    if len(registers) > 1:
        raise ValueError(f"device {device.name} has more than one window")
    return host.window(registers.pop()) if registers else None


def media_of(grants: Grants) -> Mapping[int, MediumAccess]:
    """The media among the resources of a device, by their numbers."""
    return {
        number: one
        for number, one in enumerate(grants.resources)
        if not isinstance(one, TransferAccess | ContentAccess)
    }


def check(grants: Grants, index: int, effect: Effect) -> Application | None:
    """See `Grants.check`, for the effects of `devices.media`."""
    medium = media_of(grants).get
    match effect:
        case Window(tag, resource, offset, size, to_guest) if grants.window is not None:
            found = medium(resource)
            if found is None or not found.allows(size, to_guest=bool(to_guest)):
                return None
            return grants.window.open, (index, resource, found, tag, offset, size, to_guest), 1
        case _ if grants.queues is not None:
            return grants.queues.check(index, effect, grants.irq_lines, medium)
        case Flush(tag, resource) if (found := medium(resource)) is not None:
            return found.flush, (index, tag), 1
        case _:
            return None
