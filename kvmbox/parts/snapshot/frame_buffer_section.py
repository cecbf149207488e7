"""The frame buffer in a snapshot: a section, if the guest has one. Its device says what is at 0xA0000."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from kvmbox.contract.model import SnapshotError
from kvmbox.contract.names import VBE
from kvmbox.devices.vga.dispi import VbeDispi
from kvmbox.host.frame_buffer import frame_buffer, show_window
from kvmbox.parts.snapshot.description import VIDEO, device_section
from kvmbox.parts.snapshot.file_layout import damaged

if TYPE_CHECKING:
    from kvmbox.base.memory import GuestMemory


def take_video(memory: GuestMemory) -> dict[str, bytes]:
    """The section of the frame buffer, without the zeros at its end."""
    return {VIDEO: memory.video[0].pages[:].rstrip(b"\0")} if memory.video else {}


def give_video(names: Collection[str], section: Callable[[str], bytes], memory: GuestMemory) -> None:
    """Make a frame buffer if one of the sections has it, and show it as its device does.

    `names` are those of the sections, and `section` gives one. Raises SnapshotFileError.
    """
    if VIDEO not in names:
        return
    data = section(VIDEO)
    region = frame_buffer(memory)
    if len(data) > region.size:
        raise damaged(f"a frame buffer of {len(data)} bytes")
    region.pages[: len(data)] = data
    if device_section(VBE) in names:
        dispi = VbeDispi()
        try:
            dispi.restore(section(device_section(VBE)))
        except SnapshotError as error:
            raise damaged(f"device {VBE}: {error}") from error
        if dispi.bank is not None:  # else the RAM there is what the snapshot has of it
            show_window(memory, dispi.bank)
