"""A run whose BIOS has further drives, as a program.

Usage: bios_drives.py IMAGE DRIVES. DRIVES are JSON: a list of [PATH, KIND], where KIND is "disk", "protected"
or "cd". The exit status is the run's.
"""

from __future__ import annotations

import json
import os
import sys
from functools import partial

from kvmbox.board import BootDrive
from kvmbox.errors import KvmboxError
from kvmbox.firmware.builtin_bios import CD_SECTOR, Further
from kvmbox.host.transfers import FileStore
from kvmbox.layout import SECTOR_SIZE
from kvmbox.run import boot_source
from kvmbox.run.caller import ProcessOwner
from kvmbox.run.machine import Machine


def show(drives: list[tuple[str, str]]) -> None:
    """Have all runs of this process show these drives behind the image."""
    sizes = [(kind, os.stat(path).st_size) for path, kind in drives]
    further = Further(
        tuple(size // SECTOR_SIZE for kind, size in sizes if kind != "cd"),
        tuple(size // CD_SECTOR for kind, size in sizes if kind == "cd"),
    )
    units = tuple(
        BootDrive(path, size // SECTOR_SIZE, kind == "disk")
        for (path, _), (kind, size) in zip(drives, sizes, strict=True)
    )
    image_alone = boot_source.BootSource.drives.fget
    assert image_alone is not None

    def all_drives(source: boot_source.BootSource) -> tuple[BootDrive, ...]:
        return (*image_alone(source), *units)

    boot_source.BootSource.drives = property(all_drives)  # type: ignore[method-assign, assignment]
    boot_source.BootOptions = partial(boot_source.BootOptions, further=further)  # type: ignore[misc, assignment]


def main(image: str, drives: list[tuple[str, str]]) -> int:
    """Run to the end; returns the exit status."""
    show(drives)
    flags = {"disk": os.O_RDWR, "protected": os.O_RDONLY, "cd": os.O_RDONLY}
    resources = {path: FileStore(os.open(path, flags[kind])) for path, kind in drives}
    machine = Machine(
        image,
        console="stdio",
        resources=resources,
        say=lambda text: print(text, file=sys.stderr),
    )
    try:
        result = machine.run_here(ProcessOwner())
    except KvmboxError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    if result.failed:
        print(f"error: {result.reason}", file=sys.stderr)
    return result.status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], json.loads(sys.argv[2])))
