"""The pages of docs/internals against the code: each file and each name that they have exists."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.unit.test_docs import ARCHITECTURE, ROOT, section, tables
from tools import budgets, tricks

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


def imported(tree: ast.AST) -> Iterator[tuple[str, Path]]:
    """Each name that code imports from kvmbox, and the file where it is defined, or its own."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                home = ROOT.joinpath(*str(node.module).split("."))
                module = home.with_suffix(".py")
                yield alias.name, module if module.exists() else home / f"{alias.name}.py"


@pytest.mark.parametrize("trick", tricks.TRICKS)
def test_names_that_a_trick_is_turned_off_by_exist(trick: str) -> None:
    """A name that nobody has would be set in vain, and the trick would seem to save nothing."""
    code = ast.parse("\n".join(tricks.TRICKS[trick].get(where, "") for where in tricks.WHERE))
    homes = {"bytecode": ROOT / "kvmbox/base/bytecode.py", "entry": ROOT / "kvmbox/cli/entry.py"}
    homes |= dict(imported(code))
    for node in ast.walk(code):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            first, second, *_ = parts = ast.unparse(node).split(".")
            text = homes[first].read_text(encoding="utf-8")
            defined = names(ast.parse(text).body)
            is_imported = re.search(rf"\bimport\b.*\b{second}\b", text)
            assert is_imported or {".".join(parts), ".".join(parts[1:])} & defined


def test_tricks_are_those_that_are_measured() -> None:
    """Each trick of tools/tricks.toml has a row with its switch, and each switch is one."""
    switches = [row[4] for row in rows("tricks.md")]
    measured = [name for cell in switches for name in re.findall(r"`([a-z][a-z-]*)`", cell)]
    assert sorted(measured) == sorted(tricks.TRICKS)
    for what in (row[0] for row in rows("tricks.md")):
        for path in re.findall(r"`([\w/]+(?:/|\.\w+))`", what):
            assert (ROOT / "kvmbox" / path).exists() or (ROOT / path).exists(), path
