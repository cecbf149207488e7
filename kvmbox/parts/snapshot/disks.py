"""The disks of a machine in a snapshot: what is kept of them, and whether those of another day are the same.

A snapshot has what the guest has written to the overlay, and names the file by its size and its SHA-256. A
disk that is written to its file is in no snapshot: the file goes on, and the snapshot would not. The open
window of a device is kept with its bytes, so that a guest may stand in the middle of a sector.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from kvmbox.base.errors import SnapshotFileError
from kvmbox.host.disk.stores import WRITE, DiskRequest
from kvmbox.parts.snapshot.description import (
    DiskFacts,
    WindowFacts,
    disk_section,
    queues_section,
    window_section,
)
from kvmbox.remote.channel.deadlines import REPLY_SLICES
from kvmbox.remote.published.data_window import WindowState

if TYPE_CHECKING:
    from kvmbox.host.disk.stores import RunDisk
    from kvmbox.parts.snapshot.file import SnapshotFile
    from kvmbox.run.machine.device_set import Devices

_SAME_FILES: Final = "start it with the files as they were, or take a new one"


def take_disks(disks: Sequence[RunDisk], sections: dict[str, bytes]) -> tuple[DiskFacts, ...]:
    """The disks, whose overlays go to `sections`. Reads all of their files. Raises SnapshotFileError."""
    found = []
    for disk in disks:
        request = disk.request
        if request.mode == WRITE:
            raise SnapshotFileError(f"disk '{request.path}' is written to its file, which no snapshot has")
        if disk.is_image and not disk.is_in_memory:
            raise SnapshotFileError(f"the disk '{request.path}' that it booted from is too large")
        try:
            checksum = "" if disk.is_image else disk.store.checksum()
        except OSError as error:
            raise SnapshotFileError(f"cannot read disk '{request.path}': {error.strerror}") from error
        sections[disk_section(disk.name)] = disk.store.overlay()
        found.append(DiskFacts(name=disk.name, size=disk.store.size, checksum=checksum, **request.as_dict()))
    return tuple(found)


def requests_of(disks: Iterable[DiskFacts], *, are_cds: bool) -> list[DiskRequest]:
    """What asks for the same disks, or CDs, besides the image."""
    fields = DiskRequest.__match_args__
    return [
        DiskRequest(**{name: getattr(disk, name) for name in fields})
        for disk in disks
        if disk.checksum and disk.is_cd == are_cds
    ]


def give_disks(file: SnapshotFile, facts: Sequence[DiskFacts], disks: Sequence[RunDisk]) -> None:
    """Give the disks what they had. Raises SnapshotFileError if they are others."""
    if [disk.name for disk in disks] != [fact.name for fact in facts]:
        raise file.refuse("it is damaged: its disks are not those of its machine")
    for fact, disk in zip(facts, disks, strict=True):
        same = disk.store.size == fact.size
        try:
            same = same and (disk.is_image or disk.store.checksum() == fact.checksum)
            disk.store.restore_overlay(file.section(disk_section(disk.name)))
        except OSError as error:
            raise file.refuse(f"cannot read disk '{fact.path}': {error.strerror}") from error
        except ValueError as error:
            raise file.refuse(f"it is damaged: {error}") from error
        if not same:
            raise file.refuse(f"disk '{fact.path}' is not what it was", _SAME_FILES)


def take_queues(devices: Devices, sections: dict[str, bytes]) -> tuple[str, ...]:
    """The names of the devices with virtqueues. What the VMM knows of these goes to `sections`."""
    found = []
    for device_type, index, device in devices.pool.places():
        media = devices.pool.channel(device_type).media(index)
        if media is not None and media.queues is not None:
            sections[queues_section(device.name)] = media.queues.state()
            found.append(device.name)
    return tuple(found)


def give_queues(file: SnapshotFile, names: Sequence[str], devices: Devices) -> None:
    """Give it back, and go on with what was to be asked. Raises SnapshotFileError, DeviceProcessError."""
    left = set(names)
    for device_type, index, device in devices.pool.places():
        channel = devices.pool.channel(device_type)
        media = channel.media(index)
        if media is None or media.queues is None or device.name not in left:
            continue
        left.remove(device.name)
        state = file.section(queues_section(device.name))
        try:
            channel.serve(partial(media.queues.restore, index, state, media.by_number.get), REPLY_SLICES)
        except ValueError as error:
            raise file.refuse(f"it is damaged: {error}") from error
    if left:
        raise file.refuse("it is damaged: queues of a device that has none")


def take_windows(devices: Devices, sections: dict[str, bytes]) -> tuple[WindowFacts, ...]:
    """The open windows of all devices, whose bytes go to `sections`."""
    found = []
    for device_type, index, device in devices.pool.places():
        media = devices.pool.channel(device_type).media(index)
        state = None if media is None or media.window is None else media.window.state()
        if state is not None:
            facts = state.as_dict()
            sections[window_section(device.name)] = facts.pop("data")
            found.append(WindowFacts(device=device.name, **facts))
    return tuple(found)


def give_windows(file: SnapshotFile, windows: Iterable[WindowFacts], devices: Devices) -> None:
    """Open them again. Raises SnapshotFileError if they cannot have been."""
    places: Mapping[str, tuple[str, int]] = {
        device.name: (device_type, index) for device_type, index, device in devices.pool.places()
    }
    for facts in windows:
        device_type, index = places.get(facts.device, ("", 0))
        media = devices.pool.channel(device_type).media(index) if device_type else None
        state = facts.as_dict() | {"data": file.section(window_section(facts.device))}
        del state["device"]
        try:
            if media is None or media.window is None or facts.resource not in media.by_number:
                raise ValueError("a window of a device that has none")
            media.window.restore(index, media.by_number[facts.resource], WindowState(**state))
        except ValueError as error:
            raise file.refuse(f"it is damaged: {error}") from error
