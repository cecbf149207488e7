"""--disk, --cdrom: the disks of the guest, and the devices that it finds them at.

They are opened before the board is checked, as they decide which devices there are, and before the VMM is
confined. What the run has done to them is in its result. A person is told of
disks that the guest has written.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from struct import pack
from typing import TYPE_CHECKING

from kvmbox.contract.device_spec import Medium
from kvmbox.contract.names import BOOT_DISK
from kvmbox.devices.bios.board import BootDrive
from kvmbox.devices.ide.board import IdeDrive, ide_board
from kvmbox.devices.qcow2.board import disk_map
from kvmbox.devices.rtc.board import rtc
from kvmbox.devices.virtio.board import virtio_blk
from kvmbox.firmware.builtin_bios import is_diskette, unit_sectors
from kvmbox.firmware.platform import Further
from kvmbox.host.disk.stores import CD_SECTOR, RAW, SECTOR, DiskRequest, DiskStore, open_disk
from kvmbox.parts.disk.boot_image import PaddedStore, image_disk
from kvmbox.parts.disk.places import placed
from kvmbox.run.options.choices import DEFAULT_DISK_OVERLAY
from kvmbox.run.part import Finding, Opening, Part
from kvmbox.wire import protocol

if TYPE_CHECKING:
    from kvmbox.base.outcome import Outcome
    from kvmbox.contract.device_spec import DeviceSpec
    from kvmbox.remote.channel.connection import Channel
    from kvmbox.run.part import Standing
    from kvmbox.run.result.run_result import Draft


class Drive:
    """One drive: what was asked for, its name among the resources of the host, and its store."""

    def __init__(self, name: str, request: DiskRequest, store: DiskStore, *, is_image: bool) -> None:
        self.name = name
        self.request = request
        self.store = store
        self.is_image = is_image

    @property
    def is_in_memory(self) -> bool:
        """See RunDisk."""
        return self.is_image and self.request.format != RAW

    @property
    def sectors(self) -> int:
        """How many sectors it has."""
        return self.store.size // (CD_SECTOR if self.request.is_cd else SECTOR)

    def on_ide(self) -> IdeDrive:
        """The drive as its IDE channel has it."""
        request = self.request
        return IdeDrive(
            self.name,
            self.sectors,
            is_cd=request.is_cd,
            writable=self.store.writable,
            serial=request.serial or f"kvmbox-{self.name}",
        )

    def on_virtio(self, number: int) -> DeviceSpec:
        """The drive as a virtio disk."""
        medium = Medium(self.name, self.store.size, writable=self.store.writable)
        return virtio_blk(number, medium, serial=(self.request.serial or f"kvmbox-{self.name}").encode())

    def in_bios(self) -> BootDrive:
        """The drive as the built-in BIOS has it."""
        return BootDrive(self.name, self.store.size // SECTOR, self.store.writable)

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
        self._requests = [*disks, *cdroms]
        self._overlay = disk_overlay
        self._drives: list[Drive] = []
        self._opening: Opening

    def equip(self, opening: Opening) -> None:
        """See `Part`. The image, if it is a disk, is the first one of its kind."""
        self._opening = opening
        image, boots_drive = opening.source.disk, opening.config.boots_drive
        if image is not None and not boots_drive:
            found = image_disk(image, is_cd=opening.source.is_cd, overlay_bytes=self._overlay)
            self._add(*found, is_image=True)
        for request in self._requests:
            self._add(request, open_disk(request, overlay_bytes=self._overlay))
        opening.disks = self._drives
        if opening.config.of_part("snapshot_when"):
            import hashlib  # noqa: F401 - which the confined VMM could not load any more
        opening.stores |= {drive.name: drive.store for drive in self._drives}
        opening.board += [disk_map(drive.name) for drive in self._drives if drive.store.mapped is not None]
        disks, cds = self._of_kind(is_cd=False), self._of_kind(is_cd=True)
        booted = None if image is None else next(d for d in self._drives if d.is_image or d.request.boots)
        # As in the BIOS, a diskette leaves the first place to a disk.
        left = booted if image is not None and is_diskette(image.size) and len(disks) > 1 else None
        at_ide = [drive.on_ide() for drive in disks if drive.request.on == "ide" and drive is not left]
        places = placed(at_ide, [drive.on_ide() for drive in cds])
        opening.board += ide_board(places)
        if at_ide:  # the CMOS RAM tells of them
            sizes = pack("<4Q", *(0 if one is None or one.is_cd else one.sectors for one in places))
            opening.board.append(rtc(opening.config.rtc_base, opening.config.memory_size, disks=sizes))
        virtio = [drive for drive in disks if drive.request.on != "ide"]
        opening.place_virtio([drive.on_virtio(number) for number, drive in enumerate(virtio)])
        if booted is not None or opening.source.serves_drives:
            _show_in_bios(opening, booted, disks, cds)

    def _add(self, request: DiskRequest, store: DiskStore, *, is_image: bool = False) -> None:
        kind, number = "cd" if request.is_cd else "disk", len(self._of_kind(is_cd=request.is_cd))
        self._drives.append(Drive(f"{kind}{number}", request, store, is_image=is_image))

    def _of_kind(self, *, is_cd: bool) -> list[Drive]:
        return [drive for drive in self._drives if drive.request.is_cd == is_cd]

    def attach(self, machine: Standing) -> None:
        """See `Part`. The processes are there that read the maps of images."""
        pool = machine.devices.pool
        for device_type, index, device in pool.places():
            for drive in self._drives:
                if drive.store.mapped is not None and device.name == disk_map(drive.name).name:
                    drive.store.mapped.connect(partial(_send, pool.channel(device_type), index))

    def ended(self, outcome: Outcome | None) -> Finding | None:
        """See `Part`."""
        del outcome
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


def _show_in_bios(opening: Opening, booted: Drive | None, disks: list[Drive], cds: list[Drive]) -> None:
    """What is `booted`, if anything, is unit 0 of the BIOS's disk device. Other disks follow, then CDs."""
    further = [[drive for drive in drives if drive is not booted] for drives in (disks, cds)]
    opening.drives = tuple(drive.in_bios() for drives in further for drive in drives)
    if booted is not None:
        assert opening.source.disk is not None
        opening.stores[BOOT_DISK] = PaddedStore(booted.store)
        unit = BootDrive(BOOT_DISK, unit_sectors(opening.source.disk.size), booted.store.writable)
        opening.drives = (unit, *opening.drives)
    others = Further(*(tuple(drive.sectors for drive in drives) for drives in further))
    opening.source = opening.source.beside(others)


def _send(channel: Channel, index: int, data: bytes) -> None:
    """Host input for a device, by any thread. Raises DeviceProcessError."""
    channel.request(protocol.RECEIVE, device=index, payload=data, limit=len(data))


PART = Disks
