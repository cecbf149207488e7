"""The planted bugs and the reach of devices: what their commands stand on, without running a machine."""

from __future__ import annotations

import ast
import re
import struct
from pathlib import Path

import pytest

from kvmbox.jail.linux import SYS_EXIT
from kvmbox.sandbox.seccomp import device_filter
from kvmbox.sandbox.syscall_names import NUMBERS
from tests.fuzz.table import TABLE
from tools.blocks import fill, line, said_once, table
from tools.planted.attack import Outcome, what_ended
from tools.planted.plant import BUGS, Plant, plants
from tools.reach.bpf import ALLOW, I386, actions, let_through
from tools.scratch import PROJECT

PLANTS = plants()


@pytest.mark.parametrize("plant", PLANTS, ids=[plant.name for plant in PLANTS])
def test_planted_bug_fits_the_sources_and_has_a_guest(plant: Plant, tmp_path: Path) -> None:
    for change in plant.changes:
        (tmp_path / change.file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / change.file).write_bytes((PROJECT / change.file).read_bytes())
    (tmp_path / "kvmbox/devices/pit").mkdir(parents=True, exist_ok=True)
    plant.apply(tmp_path)
    for change in plant.changes:
        ast.parse((tmp_path / change.file).read_text(encoding="utf-8"))
    assert all(re.fullmatch(r"CVE-\d{4}-\d{4,}", one) for one in plant.cves)
    assert (BUGS / f"{plant.name}.c").is_file()
    assert all((PROJECT / test).is_file() for test in plant.tests)
    assert set(plant.fuzzers) <= set(TABLE)


def test_planted_bug_that_the_sources_have_outgrown_is_refused(tmp_path: Path) -> None:
    (tmp_path / "kvmbox/devices/pit").mkdir(parents=True)
    (tmp_path / "kvmbox/devices/pit/model.py").write_text("other\n", encoding="utf-8")
    with pytest.raises(ValueError, match="has 0 times"):
        Plant.load(BUGS / "pit-index.toml").apply(tmp_path)


def test_outcome_of_an_attack_says_who_ended_what() -> None:
    held = "kvmbox: error: device process 'uart' was killed (SIGKILL): it called rt_sigaction(0x2), which"
    again = f"{held}; the same request had broken the 2 processes before it: write"
    assert str(Outcome(8, "", held, taken=False)) == "held at `rt_sigaction` (8)"
    assert what_ended(again) == "held at `rt_sigaction`, three times"
    assert str(Outcome(0, "", "", taken=True)) == "**a shell runs**"
    assert str(Outcome(-11, "", "", taken=False)) == "kvmbox ends by SIGSEGV"
    assert str(Outcome(0, "an error\nalive\n", "", taken=False)) == "an error"


def test_filter_of_device_processes_lets_through_what_its_policy_says() -> None:
    programs = [device_filter()]
    assert let_through(programs, SYS_EXIT) == "any"
    assert let_through(programs, NUMBERS["mmap"]) == "some"
    assert not let_through(programs, NUMBERS["openat"])
    assert not any(let_through(programs, number, I386) for number in range(400))


def test_filters_let_through_only_what_each_of_them_does() -> None:
    all_of_it = struct.pack("<HBBI", 0x06, 0, 0, ALLOW)
    assert let_through([all_of_it], NUMBERS["openat"]) == "any"
    assert not let_through([all_of_it, device_filter()], NUMBERS["openat"])


def test_filter_with_unknown_code_is_refused() -> None:
    with pytest.raises(ValueError, match="0x87"):
        actions(struct.pack("<HBBI", 0x87, 0, 0, 0), 1)


def test_lines_replace_a_part_of_a_page_and_nothing_else(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    other = "<!-- generated: u -->\nu\n<!-- end -->\n"
    page.write_text(f"a\n{other}<!-- generated: t -->\nold\nold\n<!-- end -->\nb\n", encoding="utf-8")
    fill(page, "t", [line("h"), line("---"), line("6")])
    made = f"a\n{other}<!-- generated: t -->\n| h |\n| --- |\n| 6 |\n<!-- end -->\nb\n"
    assert page.read_text(encoding="utf-8") == made
    with pytest.raises(ValueError, match="no part"):
        fill(page, "other", [])
    page.write_text("<!-- generated: t -->\n<!-- generated: u -->\n<!-- end -->\n", encoding="utf-8")
    with pytest.raises(ValueError, match="no end"):
        fill(page, "t", [])


def test_cell_of_several_words_that_repeats_its_neighbour_is_a_ditto() -> None:
    assert said_once(["no", "no", "a shell", "a shell", "a shell"]) == ["no", "no", "a shell", "″", "″"]


def test_columns_and_rows_of_a_table_with_the_same_cells_are_one() -> None:
    rows = [("first", "1", "2", "1"), ("second", "3", "4", "3"), ("third", "1", "2", "1")]
    assert table(("what", "a", "b", "c"), rows) == [
        line("what", "a; c", "b"),
        line("---", "---", "---"),
        line("first; third", "1", "2"),
        line("second", "3", "4"),
    ]
