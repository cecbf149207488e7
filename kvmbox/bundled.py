"""The guests that come with kvmbox: built images, and what each of them proves."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from kvmbox.lean import Value

DIRECTORY: Final = Path(__file__).parent / "guest_images"
TABLE: Final = "expectations.toml"


class BundledGuest(Value):
    """One guest. `options` are those that it is meant to be run with."""

    name: str
    proves: str
    path: Path
    options: tuple[str, ...]


def find(name: str) -> Path | None:
    """The image of the bundled guest `name`, or None if there is none of that name."""
    if "/" in name:
        return None
    for suffix in (".elf", ".bin"):
        path = DIRECTORY / f"{name}{suffix}"
        if path.is_file():
            return path
    return None


def is_flat(path: Path) -> bool:
    """Whether a bundled image is a flat 16-bit one: its name says so, since its content cannot."""
    return path.parent == DIRECTORY and path.suffix == ".bin"


def runs() -> list[dict[str, Any]]:
    """The table of runs, as guests/expectations.toml describes it; empty where no guest was built."""
    import tomllib

    try:
        text = (DIRECTORY / TABLE).read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    table: list[dict[str, Any]] = tomllib.loads(text)["run"]
    return table


def catalogue() -> list[BundledGuest]:
    """All bundled guests, each with its first run of the table."""
    guests: dict[str, BundledGuest] = {}
    for entry in runs():
        path = find(entry["guest"])
        if path is not None and entry["guest"] not in guests:
            guests[entry["guest"]] = BundledGuest(
                entry["guest"], entry["proves"], path, tuple(entry.get("options", ()))
            )
    return list(guests.values())
