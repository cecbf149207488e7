"""docs/properties.md and tools/mutants.toml against the tree, and against each other."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Final

import pytest

from tools.mutants import mutants

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = (ROOT / "docs/properties.md").read_text(encoding="utf-8")
ROWS: Final = dict(re.findall(r"^\| \*\*([\w -]+)\*\*: (.*)$", PAGE, re.MULTILINE))
NAMED: Final = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)))
MUTANTS: Final = mutants([])


@pytest.mark.parametrize(("path", "name"), NAMED, ids=[name for _, name in NAMED])
def test_test_that_shows_a_property_is_there(path: str, name: str) -> None:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_each_property_has_a_mutant_and_each_mutant_a_property() -> None:
    assert {one["property"] for one in MUTANTS} == set(ROWS)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda one: f"{one['property']}-{one['file']}")
def test_mutant_changes_one_place_and_its_test_is_named_by_the_property(mutant: dict[str, str]) -> None:
    assert (ROOT / mutant["file"]).read_text(encoding="utf-8").count(mutant["old"]) == 1
    assert mutant["old"] != mutant["new"]
    assert f"`{mutant['test'].split('::')[0]}::" in ROWS[mutant["property"]]
