"""--disk, --cdrom: the disks of the guest, and the devices that it finds them at.

They are opened before the board is checked, as they decide which devices there are, and before the VMM is
confined. What the run has done to them is in its result. A person is told of
disks that the guest has written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from kvmbox.board import IdeDrive, ide_board
from kvmbox.host.disks import CD_SECTOR, SECTOR, DiskRequest, DiskStore, open_disk
from kvmbox.parts.disk.places import placed
from kvmbox.run.choices import DEFAULT_DISK_OVERLAY
from kvmbox.run.part import Finding, Opening, Part

if TYPE_CHECKING:
    from kvmbox.outcome import Outcome
    from kvmbox.run.result import Draft

IDE: Final = "ide"


class Drive:
    """One drive: what was asked for, its name among the resources of the host, and its store."""

    def __init__(self, name: str, request: DiskRequest, store: DiskStore) -> None:
        self.name = name
        self.request = request
        self.store = store

    def on_ide(self) -> IdeDrive:
        """The drive as its IDE channel has it. A disk that cannot be written refuses that by itself."""
        request = self.request
        return IdeDrive(
            self.name,
            self.store.size // (CD_SECTOR if request.is_cd else SECTOR),
            is_cd=request.is_cd,
            serial=request.serial or f"kvmbox-{self.name}",
        )

    def as_json(self) -> dict[str, object]:
        """What is told of it."""
        return {
            "name": self.name,
            "path": self.request.path,
            "kind": "cd" if self.request.is_cd else "disk",
            "mode": self.request.mode,
            "size": self.store.size,
            "summary": self.store.summary(),
        }


class Disks(Part):
    """The disks of one run."""

    def __init__(
        self,
        disks: Sequence[DiskRequest] = (),
        cdroms: Sequence[DiskRequest] = (),
        disk_overlay: int = DEFAULT_DISK_OVERLAY,
    ) -> None:
        """`disk_overlay` is in bytes."""
        self._requests = [*(("disk", one) for one in disks), *(("cd", one) for one in cdroms)]
        self._overlay = disk_overlay
        self._drives: list[Drive] = []
        self._opening: Opening | None = None

    def equip(self, opening: Opening) -> None:
        """See `Part`."""
        self._opening = opening
        counts: dict[str, int] = {}
        for kind, request in self._requests:
            number = counts[kind] = counts.get(kind, -1) + 1
            store = open_disk(request, overlay_bytes=self._overlay)
            self._drives.append(Drive(f"{kind}{number}", request, store))
            opening.stores[f"{kind}{number}"] = store
        ide = [drive for drive in self._drives if drive.request.on == IDE]
        cds = [drive.on_ide() for drive in ide if drive.request.is_cd]
        opening.board += ide_board(placed([d.on_ide() for d in ide if not d.request.is_cd], cds))

    def ended(self, outcome: Outcome | None) -> Finding | None:
        """See `Part`."""
        del outcome
        assert self._opening is not None
        for drive in self._drives:
            if drive.store.changed:
                self._opening.say(drive.store.summary())
        return None

    def report(self, draft: Draft) -> None:
        """See `Part`."""
        draft.facts["disks"] = [drive.as_json() for drive in self._drives]

    def close(self) -> None:
        """See `Part`."""
        for drive in self._drives:
            drive.store.close()


PART = Disks
