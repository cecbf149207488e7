"""A machine without an image boots from a drive, as a PC does: the first --disk, or the first --cdrom."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from kvmbox.base.errors import UsageError
from kvmbox.boot.choose import AUTO

_WAYS: Final = {"disks": "bios", "cdroms": "iso"}
"""How a drive boots that is asked for by an option of this name."""


def boot_from_drive(options: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The file of the drive that boots, and the options that say so. UsageError if there is no drive."""
    for name, way in _WAYS.items():
        drives = options[name]
        if not drives:
            continue
        if options["boot"] not in (AUTO, way):
            raise UsageError(
                f"--boot {options['boot']} has no meaning for a drive, which boots as '{way}'",
                hint="name the image to boot it otherwise",
            )
        first = drives[0].replaced(boots=True)
        return first.path, {**options, "boot": way, name: (first, *drives[1:])}
    raise UsageError(
        "there is nothing to boot: no image, no --disk and no --cdrom", hint="name an image file"
    )
