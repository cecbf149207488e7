"""Where each key of a TOML file stands: the standard library's parser gives values, and no lines.

The text is one that `tomllib` has accepted. So `tomllib` accepts each statement as a text of its own, and
refuses the first lines of a longer statement.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from typing import Any, Final, TypeAlias

Path: TypeAlias = tuple[str | int, ...]
"""Keys and, in arrays of tables, numbers: ("test", 0, "image")."""

_ENDS: Final = ("]", "}", '"""', "'''")
"""What the last line of a statement of several lines has in it."""


def key_lines(text: str) -> dict[Path, int]:
    """The line (from 1) of each table header and of each key outside of arrays."""
    lines: dict[Path, int] = {}
    counts: dict[Path, int] = {}
    table: Path = ()
    for line, statement, found in _statements(text):
        if not statement.lstrip().startswith("["):
            for path in _paths(found):
                lines.setdefault(_numbered((*table, *path), counts), line)
        else:
            *_, path = _paths(found)
            table = _numbered(path, counts)
            if statement.lstrip().startswith("[["):
                number = counts[table] = counts.get(table, -1) + 1
                table = (*table, number)
            lines.setdefault(table, line)
    return lines


def _statements(text: str) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """The statements, each with the line where it begins, and what it says."""
    parts: list[str] = []
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), 1):
        parts.append(line)
        if len(parts) > 1 and not any(end in line for end in _ENDS):
            continue
        statement = "\n".join(parts)
        try:
            found = tomllib.loads(statement)
        except tomllib.TOMLDecodeError:
            continue
        if found:
            yield number + 1 - len(parts), statement, found
        parts.clear()


def _paths(table: dict[str, Any]) -> Iterator[Path]:
    """The paths of all keys, each behind the one that it is in."""
    for key, value in table.items():
        yield (key,)
        inside = value[0] if value == [{}] else value
        if isinstance(inside, dict):
            yield from ((key, *path) for path in _paths(inside))


def _numbered(keys: Path, counts: dict[Path, int]) -> Path:
    """The path, with the number of the last element behind each array of tables that it goes through."""
    path: Path = ()
    for key in keys:
        if path in counts and not isinstance(key, int):
            path = (*path, counts[path])
        path = (*path, key)
    return path
