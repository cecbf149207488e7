"""The permissions of devices with media and virtqueues: the part of `grants` that other runs do not load."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import kvmbox.wire.bulk_effect_table  # noqa: F401 - adds the effects that some models have
from kvmbox.base.value_classes import Value
from kvmbox.contract import device_spec
from kvmbox.contract.bulk_data import RISES, Flush, Window
from kvmbox.remote.published.guest_memory import ContentAccess, TransferAccess

if TYPE_CHECKING:
    from kvmbox.contract.device_spec import DeviceSpec
    from kvmbox.contract.model import Effect
    from kvmbox.remote.channel.effect_calls import Application
    from kvmbox.remote.published.data_window import DataWindow
    from kvmbox.remote.published.medium import MediumAccess
    from kvmbox.remote.published.queues import DeviceQueues


class Media(Value):
    """What a device has beyond the other `Grants`: media by the number of the resource, the window to them if
    it may have one, and virtqueues.
    """

    by_number: Mapping[int, MediumAccess]
    window: DataWindow | None
    queues: DeviceQueues | None

    def check(self, index: int, effect: Effect) -> Application | None:
        """See `Grants.check`."""
        medium = self.by_number.get
        match effect:
            case Window(tag, resource, offset, size, to_guest) if self.window is not None:
                found = medium(resource)
                if found is None or not found.allows(size, to_guest=bool(to_guest)):
                    return None
                if to_guest & RISES and self.window.line is None:
                    return None
                return self.window.open, (index, resource, found, tag, offset, size, to_guest), 1
            case _ if self.queues is not None:
                return self.queues.check(index, effect, medium)
            case Flush(tag, resource) if (found := medium(resource)) is not None:
                return found.flush, (index, tag), 1
            case _:
                return None

    def guarded_by(self, lock: object) -> None:
        """`lock` is that of the channel."""
        if self.window is not None:
            self.window.guarded_by(lock)

    def forget(self) -> None:
        """The device has been reset, or is gone: there is no window, and there are no queues."""
        if self.window is not None:
            self.window.drop()
        if self.queues is not None:
            self.queues.forget()


def media_of(
    device: DeviceSpec,
    resources: Sequence[TransferAccess | ContentAccess | MediumAccess],
    lines: Sequence[Callable[[int, int], None]],
    window: Callable[[int], DataWindow],
    queues: Callable[[str, device_spec.Queues], DeviceQueues],
) -> Media:
    """The media of a device. `lines` are its interrupt lines by pin. `window` and
    `queues` are those of `grants.Host`. ValueError if the device names more than one register as window.
    """
    registers = {one.window for one in device.granted(device_spec.Medium) if one.window is not None}
    if len(registers) > 1:
        raise ValueError(f"device {device.name} has more than one window")
    granted = device.granted(device_spec.Queues)
    owned = queues(device.name, granted[-1]) if granted else None
    if owned is not None:
        owned.interrupts.lines = lines
    opened = window(registers.pop()) if registers else None
    if opened is not None and lines:
        opened.line = lines[0]
    return Media(
        {
            number: one
            for number, one in enumerate(resources)
            if not isinstance(one, TransferAccess | ContentAccess)
        },
        opened,
        owned,
    )
