"""The disks of a guest as the core of a run knows them: what a part has opened, and a snapshot has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from kvmbox.host.disks import DiskRequest, DiskStore


class RunDisk(Protocol):
    """A disk of the guest, as a snapshot has it."""

    @property
    def name(self) -> str:
        """Its name among the resources of the host."""
        ...

    @property
    def request(self) -> DiskRequest:
        """What was asked for."""
        ...

    @property
    def store(self) -> DiskStore:
        """Its bytes."""
        ...

    @property
    def is_image(self) -> bool:
        """Whether it is what the guest was booted from."""
        ...

    @property
    def is_in_memory(self) -> bool:
        """Whether all of its bytes are in the VMM, and in a snapshot."""
        ...
