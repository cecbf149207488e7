"""What was measured: a row for each guest, program and backend; as lines of output, and as a file."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

GUEST: Final = "guest"
ENTRY: Final = "entry"
OTHER: Final = "other"
_MARK: Final = "row: "
"""What a line with a row begins with: other lines may stand between them."""


@dataclass(frozen=True, slots=True)
class Row:
    """One guest, or one entry of kvm-unit-tests, under one program with one backend of KVM."""

    backend: str
    program: str
    kind: str
    """GUEST, ENTRY, or OTHER: a guest that is in no table of the tests, and was measured by hand."""
    name: str
    result: str
    """The last milestone that a guest reached, an entry's verdict, or that there is no way to start it."""
    reached: int
    of: int
    note: str
    """What ended it: the most telling line of stderr, or how the run was ended."""
    seconds: float
    version: str = ""

    def line(self) -> str:
        """The row as a line of output."""
        return _MARK + json.dumps(dataclasses.asdict(self))


def rows_of(text: str) -> list[Row]:
    """The rows in an output that may have other lines too."""
    return [
        Row(**json.loads(line.removeprefix(_MARK)))
        for line in (line.strip() for line in text.splitlines())
        if line.startswith(_MARK)
    ]


def merged(old: Iterable[Row], new: Iterable[Row]) -> list[Row]:
    """The old rows with the new ones in their places; what is new comes last."""
    rows = {(row.kind, row.name, row.backend, row.program): row for row in old}
    rows.update({(row.kind, row.name, row.backend, row.program): row for row in new})
    return list(rows.values())


def load(file: Path) -> list[Row]:
    """The rows of a file; none where there is no file yet."""
    return [Row(**row) for row in json.loads(file.read_text())] if file.exists() else []


def save(file: Path, rows: Sequence[Row]) -> None:
    """Write rows, a line each: a change is then a change of its line."""
    lines = ",\n".join(json.dumps(dataclasses.asdict(row)) for row in rows)
    file.write_text(f"[\n{lines}\n]\n")
