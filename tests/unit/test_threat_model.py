"""docs/threat-model.md and SECURITY.md against the tree: every test that they name is there."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/threat-model.md").read_text(encoding="utf-8")
SECURITY = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
TEST_ID = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")

NAMED = sorted(set(TEST_ID.findall(PAGE)))
ROWS = re.findall(r"^\| \*\*([IGDVMS]\d+)\*\* (.*)$", PAGE, re.MULTILINE)

BUG_CLASSES = {
    "CVE-2015-3214", "CVE-2010-0309", "CVE-2016-8669", "CVE-2020-27173", "CVE-2015-3456", "CVE-2025-71104",
    "XSA-199",
}  # fmt: skip


@cache
def functions_of(path: str) -> frozenset[str]:
    """The test functions of a file, as pytest collects them."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return frozenset(
        node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    )


@pytest.mark.parametrize(("path", "name"), NAMED, ids=[name for _, name in NAMED])
def test_named_test_exists(path: str, name: str) -> None:
    assert (ROOT / path).is_file(), path
    assert name in functions_of(path)


def test_page_names_tests_in_no_other_way() -> None:
    # A name that the pattern above does not take would go unchecked.
    assert len(re.findall("::", PAGE)) == len(TEST_ID.findall(PAGE))


def test_every_threat_names_a_test() -> None:
    assert len(ROWS) > 25
    for number, row in ROWS:
        assert TEST_ID.search(row), number


def test_threats_are_numbered_without_gaps() -> None:
    numbers: dict[str, list[int]] = {}
    for number, _ in ROWS:
        numbers.setdefault(number[0], []).append(int(number[1:]))
    assert set(numbers) == set("IGDVMS")
    for letter, found in numbers.items():
        assert found == list(range(1, len(found) + 1)), letter


def test_every_row_of_the_table_is_a_numbered_threat() -> None:
    table = PAGE.split("| threat | what is done | shown by |\n|---|---|---|\n")[1].split("\n\n")[0]
    assert len(table.splitlines()) == len(ROWS)


def test_named_bug_classes_are_in_the_page_and_have_their_tests() -> None:
    regression = {name for path, name in NAMED if path.startswith("tests/regression/")}
    for bug in BUG_CLASSES:
        assert bug in PAGE
        digits = "_".join(re.findall(r"\d+", bug))
        assert any(digits in name for name in regression), bug


def test_every_regression_test_states_the_class_of_its_bug() -> None:
    paths = sorted((ROOT / "tests/regression").glob("test_*.py"))
    assert paths
    for path in paths:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                assert ast.get_docstring(node), f"{path.name}::{node.name}"


def test_security_page_names_options_and_layers_that_exist() -> None:
    import click

    from kvmbox.cli import main
    from kvmbox.jail import layers

    command = main.cli.get_command(click.Context(main.cli), "run")
    assert command is not None
    known = {name for parameter in command.params for name in parameter.opts}
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", SECURITY))
    assert named <= known
    for layer in re.findall(r"--require ([a-z-]+)", SECURITY):
        assert layer in layers.NAMES.values()
