"""The pages of docs/internals against the code: each file and each name that they have exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Final

import pytest

from tests.unit.test_docs import ARCHITECTURE, ROOT, section, tables
from tools import budgets

PAGES: Final = ROOT / "docs/internals"


def rows(page: str) -> list[list[str]]:
    return [row for table in tables((PAGES / page).read_text(encoding="utf-8")) for row in table]


def plain(cell: str) -> str:
    """A cell that is one word of code."""
    assert re.fullmatch(r"`[^`]+`", cell), cell
    return cell.strip("`")


def names(body: list[ast.stmt], owner: str = "") -> set[str]:
    """What a module defines, and what its classes define."""
    found: set[str] = set()
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(f"{owner}{node.name}")
        if isinstance(node, ast.ClassDef):
            found |= names(node.body, f"{owner}{node.name}.")
        if isinstance(node, ast.If):
            found |= names([*node.body, *node.orelse], owner)
        for target in node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]:
            if isinstance(target, ast.Name):
                found.add(f"{owner}{target.id}")
    return found


def defined_in(path: Path) -> set[str]:
    return names(ast.parse(path.read_text(encoding="utf-8")).body)


@pytest.mark.parametrize("row", rows("map.md"), ids=lambda row: row[0])
def test_answers_of_the_map_exist(row: list[str]) -> None:
    question, file, name = row
    assert question.endswith("?")
    assert plain(name) in defined_in(ROOT / plain(file))


def test_map_has_forty_questions_and_none_twice() -> None:
    questions = [row[0] for row in rows("map.md")]
    assert len(set(questions)) == len(questions) >= 40


def test_core_has_thirty_files_that_exist() -> None:
    files = budgets.core()
    assert [row[0] for row in rows("core.md")] == [str(number) for number in range(1, 31)]
    assert len(set(files)) == len(files) == 30
    for path in files:
        assert path.is_file(), path
    assert "(internals/core.md)" in section(ARCHITECTURE, "Code map")


def test_words_are_sorted_and_none_is_explained_twice() -> None:
    words = [row[0] for row in rows("words.md")]
    assert words == sorted(set(words), key=str.lower)
    assert "\n| word |" not in ARCHITECTURE
