"""A planted bug: what is in `bugs/NAME.toml`, and how it gets into a copy of the sources."""

from __future__ import annotations

import shutil
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from tools.scratch import replace_once

BUGS: Final = Path(__file__).parent / "bugs"


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
    behind the buffer. `arguments`: of `kvmbox run`. `fuzzers`: the targets that may find it. `tests`: of the
    device.
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
            replace_once(top / change.file, change.old, change.new)
        shutil.copy(Path(__file__).parent / "native.py", top / "kvmbox/devices/native.py")


def plants() -> list[Plant]:
    """All of them, by name."""
    return [Plant.load(path) for path in sorted(BUGS.glob("*.toml"))]
