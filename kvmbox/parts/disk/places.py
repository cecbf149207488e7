"""Where drives are: which one is the master or the slave of which IDE channel. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeVar

from kvmbox.base.errors import UsageError

PLACES: Final = ("primary master", "primary slave", "secondary master", "secondary slave")

_FOR_CDS: Final = (2, 3, 1, 0)
"""In which order CDs take them: the first one is where guests, used to QEMU's -cdrom, look for it."""

_Drive = TypeVar("_Drive")


def placed(disks: Sequence[_Drive], cds: Sequence[_Drive]) -> list[_Drive | None]:
    """What is at each of `PLACES`: the CDs at theirs, and disks, in their order, at the others.

    Raises UsageError for more drives than places.
    """
    if len(disks) + len(cds) > len(PLACES):
        raise UsageError(
            f"{len(disks) + len(cds)} drives at IDE, which has room for {len(PLACES)}",
            hint="--disk FILE,on=virtio takes no place there",
        )
    found: list[_Drive | None] = [None] * len(PLACES)
    for place, drive in zip(_FOR_CDS, cds, strict=False):
        found[place] = drive
    free = [place for place, drive in enumerate(found) if drive is None]
    for place, drive in zip(free, disks, strict=False):
        found[place] = drive
    return found
