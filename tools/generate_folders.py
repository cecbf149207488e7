"""Writes the page of the folders of kvmbox: what each `__init__` says. `make generated` runs it."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Final

PROJECT: Final = Path(__file__).resolve().parent.parent
PAGE: Final = PROJECT / "docs/internals/folders.md"
GENERATED: Final = "<!-- generated -->"
"""The first line of a page that nobody writes: `tests/unit/test_docs.py` does not count its words."""
HEAD: Final = f"""{GENERATED}
# Folders

`make generated` writes this page. Each row is the beginning of a folder's `__init__.py`.

| folder | what it has | files |
|---|---|---|
"""


def rows() -> list[tuple[str, str, int]]:
    """Each folder with modules: its path, what it has, and how many modules."""
    found = []
    for path in sorted((PROJECT / "kvmbox").rglob("__init__.py")):
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        first = " ".join(text.partition("\n\n")[0].split())
        folder = f"{path.parent.relative_to(PROJECT)}/"
        found.append((folder, first, sum(1 for _ in path.parent.glob("*.py")) - 1))
    return found


def page() -> str:
    """The page."""
    return HEAD + "".join(f"| `{folder}` | {text} | {files} |\n" for folder, text, files in rows())


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
