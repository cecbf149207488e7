"""tools/performance_tables.py: only what is between the markers changes."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

PROJECT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "performance_tables", PROJECT / "tools/performance_tables.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_tables_replace_what_is_between_the_markers(tool: ModuleType) -> None:
    page = "before\n<!-- bench: begin (how) -->\nold\nold\n<!-- bench: end -->\nafter\n"
    spliced = tool.splice(page, "new\n\n")
    assert spliced == "before\n<!-- bench: begin (how) -->\nnew\n<!-- bench: end -->\nafter\n"
    assert tool.splice(spliced, "new") == spliced


@pytest.mark.parametrize(
    "page",
    [
        "no markers",
        "<!-- bench: begin -->\nno end",
        "<!-- bench: end -->\n<!-- bench: begin -->\n",
        "<!-- bench: begin -->\n<!-- bench: begin -->\n<!-- bench: end -->",
    ],
)
def test_page_without_its_markers_is_refused(tool: ModuleType, page: str) -> None:
    with pytest.raises(ValueError, match="each once"):
        tool.splice(page, "new")


def test_page_of_the_project_has_its_markers(tool: ModuleType) -> None:
    assert "TABLES" in tool.splice(tool.PAGE.read_text(encoding="utf-8"), "TABLES")
