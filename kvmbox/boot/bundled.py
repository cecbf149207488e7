"""The guests that come with kvmbox: built images, and what each of them proves; and its BIOS."""

from __future__ import annotations

import os
from typing import Any, Final

from kvmbox.base.errors import StartError
from kvmbox.base.value_classes import Value

# Not pathlib: `kvmbox run` needs two paths of this module, and 2.5 ms for them would be much.
DIRECTORY: Final = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "guest_images")
TABLE: Final = "expectations.toml"


class BundledGuest(Value):
    """One guest. `options` are those that it is meant to be run with."""

    name: str
    path: str
    proves: str
    options: tuple[str, ...]


def find(name: str) -> str | None:
    """The image of the bundled guest `name`, or None if there is none of that name."""
    if "/" in name:
        return None
    for suffix in (".elf", ".bin", ".img", ".bzimage"):
        path = os.path.join(DIRECTORY, name + suffix)
        if os.path.isfile(path):
            return path
    return None


def is_flat(path: str) -> bool:
    """Whether a bundled image is a flat 16-bit one: its name says so, since its content cannot."""
    return os.path.dirname(path) == DIRECTORY and path.endswith(".bin")


def bios_rom() -> bytes:
    """The built-in BIOS. StartError: it cannot be read."""
    try:
        with open(os.path.join(DIRECTORY, "bios.bin"), "rb") as file:
            return file.read()
    except OSError as error:
        raise StartError(
            f"cannot read the built-in BIOS '{error.filename}': {error.strerror}",
            hint="build it: make guests; an installed kvmbox has it",
        ) from error


def runs() -> list[dict[str, Any]]:
    """The table of runs, as guests/expectations.toml describes it; empty where no guest was built."""
    import tomllib

    try:
        with open(os.path.join(DIRECTORY, TABLE), "rb") as file:
            table: list[dict[str, Any]] = tomllib.load(file)["run"]
    except FileNotFoundError:
        return []
    return table


def catalogue() -> list[BundledGuest]:
    """All bundled guests, each with its first run of the table."""
    guests: dict[str, BundledGuest] = {}
    for entry in runs():
        path = find(entry["guest"])
        if path is not None and entry["guest"] not in guests:
            needs = f" (needs {entry['needs']})" if "needs" in entry else ""
            guests[entry["guest"]] = BundledGuest(
                entry["guest"], path, entry["proves"] + needs, tuple(entry.get("options", ()))
            )
    return list(guests.values())
