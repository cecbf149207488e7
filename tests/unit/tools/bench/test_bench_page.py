"""Pages with measurements: only what is between markers changes; the project's page agrees with its data."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvmbox.base.errors import UsageError
from kvmbox.tools.bench import markdown_page
from kvmbox.tools.bench.answer import TABLES
from kvmbox.tools.bench.measuring_plan import NONE, QEMU, choose, isolated
from kvmbox.tools.bench.plot import drawn
from kvmbox.tools.bench.results import Results, load

PROJECT = Path(__file__).parents[4]
DATA = PROJECT / "docs/performance.json"
PAGES = [PROJECT / "docs/performance.md", PROJECT / "docs/rfc-answer.md"]


@pytest.fixture
def results() -> Results:
    measured = Results.of(choose(only=["post", "inb_from_device"], peer=True), {"kernel": "Linux 6.1"})
    for round_ in range(3):
        for name, value in ((NONE, 10_000.0), (isolated("shm"), 11_000.0), (QEMU, 10_000.0)):
            measured.record(round_, name, "inb_from_device", value)
    measured.rounds = 3
    return measured


def test_blocks_are_replaced_and_nothing_else(results: Results) -> None:
    text = (
        "a\n<!-- generated: bench answer -->\nold\nold\n<!-- end -->\nb\n"
        "<!-- generated: bench heading -->\n<!-- end -->\nc\n"
    )
    filled = markdown_page.filled("p.md", text, results)
    assert filled.startswith(
        "a\n<!-- generated: bench answer -->\n| access | QEMU, time | none | shm |\n|:--|--:|--:|--:|\n"
    )
    assert "old" not in filled
    assert "| 1.10 |\n<!-- end -->\nb\n<!-- generated: bench heading -->\nkvmbox ? bench on Linux" in filled
    assert filled.endswith("\n<!-- end -->\nc\n")
    assert markdown_page.filled("p.md", filled, results) == filled


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("no markers", "has no marker"),
        ("<!-- generated: bench answer -->\nno end", "a marker has no end"),
        ("<!-- end -->\n<!-- generated: bench answer -->\n", "a marker has no end"),
        (2 * "<!-- generated: bench answer -->\n" + "<!-- end -->", "a marker has no end"),
        ("<!-- generated: bench answer -->\n<!-- end -->\n<!-- generated: bench pure -->\n", "has no end"),
        ("<!-- generated: bench post -->\n<!-- end -->\n", "there is no table 'post'"),
    ],
)
def test_page_that_is_wrong_is_refused_and_named(text: str, problem: str) -> None:
    with pytest.raises(UsageError, match=rf"--page 'p\.md'.*{problem}"):
        markdown_page.check("p.md", text)


def test_table_that_was_not_measured_is_refused(results: Results) -> None:
    with pytest.raises(UsageError, match="nothing was measured for its table 'busy'"):
        markdown_page.filled("p.md", "<!-- generated: bench busy -->\n<!-- end -->\n", results)


def test_results_without_qemu_are_refused(results: Results) -> None:
    del results.samples["inb_from_device"][QEMU]
    with pytest.raises(UsageError, match="compares with QEMU, which was not measured"):
        markdown_page.filled("p.md", "<!-- generated: bench answer -->\n<!-- end -->\n", results)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_page_of_the_project_has_the_numbers_of_its_data(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    again = markdown_page.filled(str(path), text, load(str(DATA)))
    assert again == text, f"kvmbox bench --load {DATA} --page {path}"


def test_pages_of_the_project_have_every_table_once_but_the_largest() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in PAGES)
    wanted = {markdown_page.HEADING, *TABLES} - {"overview", "pure", "disks"}
    assert {name: text.count(f"{markdown_page.BEGIN}{name} -->") for name in wanted} == dict.fromkeys(
        wanted, 1
    )


def test_picture_of_the_project_has_the_numbers_of_its_data() -> None:
    picture = (PROJECT / "docs/performance.svg").read_text(encoding="utf-8")
    for ratios in drawn(load(str(DATA))).values():
        for ratio in ratios.values():
            assert f">{ratio.median:.2f}</text>" in picture, f"kvmbox bench --load {DATA} --plot …"
