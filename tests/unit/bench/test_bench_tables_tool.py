"""tools/performance_tables.py: only what is between the markers changes."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from kvmbox.bench.plan import NONE, choose
from kvmbox.bench.results import Results

PROJECT = Path(__file__).parents[3]
SHM = "process/filter/shm"


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


@pytest.fixture
def results() -> Results:
    measured = Results.of(choose(only=["post", "inb_from_device"]), {"kernel": "Linux 6.1"})
    for round_ in range(3):
        for row in ("post", "inb_from_device"):
            measured.record(round_, NONE, row, 10_000.0)
            measured.record(round_, SHM, row, 11_000.0)
    measured.rounds = 3
    return measured


def test_blocks_are_replaced_and_nothing_else(tool: ModuleType, results: Results) -> None:
    page = (
        "a\n<!-- bench: post -->\nold\nold\n<!-- bench: end -->\nb\n"
        "<!-- bench: heading -->\n<!-- bench: end -->\nc\n"
    )
    filled = tool.filled(page, results)
    assert filled.startswith("a\n<!-- bench: post -->\n### post: OUT to the POST port\n")
    assert "old" not in filled
    assert "inb_from_device" not in filled
    assert "|\n<!-- bench: end -->\nb\n<!-- bench: heading -->\nkvmbox ? bench on Linux 6.1" in filled
    assert filled.endswith("\n<!-- bench: end -->\nc\n")
    assert tool.filled(filled, results) == filled


def test_patterns_narrow_a_table(tool: ModuleType, results: Results) -> None:
    wide = tool.filled("<!-- bench: post -->\n<!-- bench: end -->\n", results)
    narrow = tool.filled("<!-- bench: post none -->\n<!-- bench: end -->\n", results)
    assert SHM in wide
    assert SHM not in narrow
    assert "| none |" in narrow


@pytest.mark.parametrize(
    ("page", "problem"),
    [
        ("no markers", "no block"),
        ("<!-- bench: post -->\nno end", "no block"),
        ("<!-- bench: end -->\n<!-- bench: post -->\n", "no block"),
        ("<!-- bench: post -->\n<!-- bench: post -->\n<!-- bench: end -->", "has no end"),
        ("<!-- bench: post -->\n<!-- bench: end -->\n<!-- bench: post -->\n", "without an end"),
        ("<!-- bench: rtc_read -->\n<!-- bench: end -->\n", "no table 'rtc_read'"),
    ],
)
def test_page_or_block_that_is_wrong_is_refused(
    tool: ModuleType, results: Results, page: str, problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        tool.filled(page, results)


def test_page_of_the_project_has_its_blocks(tool: ModuleType) -> None:
    assert tool.BEGIN in tool.PAGE.read_text(encoding="utf-8")
