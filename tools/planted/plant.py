"""A planted bug: what is in `bugs/NAME.toml`, and how it gets into a copy of the sources."""

from __future__ import annotations

import shutil
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

BUGS: Final = Path(__file__).parent / "bugs"
TOP: Final = Path(__file__).parents[2]
COPIED: Final = ("kvmbox", "tests", "guests", "tools")
LEFT_OUT: Final = ("*.so", "*.bin", "__pycache__", "build", "planted")
"""What is compiled would not have the bug. Images of guests are linked to."""


@dataclass(frozen=True, slots=True)
class Change:
    """In `file`, `old` is there once and becomes `new`."""

    file: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Plant:
    """One bug.

    `size`: bytes from the buffer to the pointer behind it. `reads`, `writes`: whether the guest can do that
    behind the buffer. `arguments`: of `kvmbox run`. `models`: those whose fuzzer may find it. `fuzzers`:
    others that may. `tests`: of the device.
    """

    name: str
    kind: str
    cves: tuple[str, ...]
    was: str
    here: str
    changes: tuple[Change, ...]
    size: int = 0
    reads: bool = True
    writes: bool = True
    arguments: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    fuzzers: tuple[str, ...] = ()
    tests: tuple[str, ...] = ()

    @classmethod
    def load(cls, path: Path) -> Self:
        """Raises TypeError or ValueError for a file that is none."""
        given = tomllib.loads(path.read_text(encoding="utf-8"))
        changes = tuple(Change(**one) for one in given.pop("change"))
        fields: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in given.items()
        }
        return cls(path.stem, fields.pop("class"), changes=changes, **fields)

    def apply(self, top: Path) -> None:
        """Change the sources below `top`. ValueError if they are no longer as the bug needs them."""
        for change in self.changes:
            path = top / change.file
            text = path.read_text(encoding="utf-8")
            old = change.old
            if text.count(old) != 1:
                raise ValueError(
                    f"{self.name}: {text.count(old)} places of {change.file} are as it wants one"
                )
            path.write_text(text.replace(old, change.new), encoding="utf-8")
        shutil.copy(Path(__file__).parent / "native.py", top / "kvmbox/devices/native.py")


def plants() -> list[Plant]:
    """All of them, by name."""
    return [Plant.load(path) for path in sorted(BUGS.glob("*.toml"))]


def scratch_copy(to: Path) -> None:
    """The sources, as a checkout that has no compiled halves."""
    for name in COPIED:
        shutil.copytree(TOP / name, to / name, ignore=shutil.ignore_patterns(*LEFT_OUT, "guest_images"))
    shutil.copytree(TOP / "kvmbox/guest_images", to / "kvmbox/guest_images")
    for name in ("firmware/tables.bin", "sandbox/filters.bin"):
        shutil.copy(TOP / "kvmbox" / name, to / "kvmbox" / name)
    shutil.copy(TOP / "pyproject.toml", to)
