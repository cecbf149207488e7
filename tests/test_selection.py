"""`make test` and `make check`: what the first leaves out has a marker, and the second leaves out nothing."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.support.quick import LONG, is_quick

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
MARKERS = [line.partition(":")[0] for line in PROJECT["tool"]["pytest"]["ini_options"]["markers"]]

PARALLEL = ["-n", "auto", "--dist", "worksteal", "-q"]


def runs_of_pytest(target: str) -> list[list[str]]:
    """The arguments of pytest in each run that `make target` makes of it, behind those of all runs."""
    own = ("JOBS", "MAKE", "PYTEST")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(own)}
    done = subprocess.run(
        ["make", "--dry-run", "--no-print-directory", target],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [shlex.split(line) for line in done.stdout.splitlines() if "-m pytest" in line]
    runs = [line[line.index("pytest") + 1 :] for line in lines]
    assert all(run[: len(PARALLEL)] == PARALLEL for run in runs)
    return [run[len(PARALLEL) :] for run in runs]


def test_check_runs_each_test_and_what_make_test_runs_of_runs_once_more() -> None:
    everything, again = runs_of_pytest("check")
    assert everything == []
    assert again[:2] == ["-m", "not thorough"]
    assert again[2:]
    assert all(re.fullmatch(r"tests/integration/test_run_\w+\.py", path) for path in again[2:])


def test_test_leaves_out_only_what_has_the_marker() -> None:
    assert runs_of_pytest("test") == [["-m", "not thorough"]]


@pytest.mark.parametrize("marker", MARKERS)
def test_marker_is_used(marker: str) -> None:
    used = re.compile(rf"pytest\.mark\.{marker}\b")
    assert any(used.search(path.read_text()) for path in (ROOT / "tests").rglob("*.py"))


@pytest.mark.parametrize("folder", ["chaos", "differential", "foreign", "fuzz", "lab"])
def test_each_file_of_a_folder_that_is_left_out_has_the_marker(folder: str) -> None:
    files = sorted((ROOT / "tests" / folder).glob("test_*.py"))
    assert files
    for path in files:
        assert re.search(r"^pytestmark = (\[\s*)?.*pytest\.mark\.thorough", path.read_text(), re.MULTILINE), (
            path
        )


@pytest.mark.parametrize(
    ("file", "markers", "changed", "wanted"),
    [
        ("tests/unit/run/test_loop.py", {"parametrize"}, [], True),
        ("tests/regression/test_cve_classes.py", set(), [], True),
        ("tests/unit/run/test_loop.py", {"kvm"}, [], False),
        ("tests/unit/run/test_loop.py", {"hypothesis"}, [], False),
        ("tests/unit/run/test_loop.py", {"hypothesis"}, ["kvmbox/run/loop.py"], True),
        ("tests/unit/run/test_loop.py", {"thorough"}, ["kvmbox/run/loop.py"], False),
        ("tests/unit/wire/test_page_orders.py", set(), [], False),
        ("tests/unit/wire/test_page_orders.py", set(), ["tests/unit/wire/test_page_orders.py"], True),
        ("tests/integration/test_run_net.py", {"kvm"}, ["kvmbox/run/loop.py"], False),
        ("tests/integration/test_run_net.py", {"kvm"}, ["tests/integration/test_run_net.py"], True),
    ],
)
def test_quick_runs_what_starts_nothing_and_what_has_changed(
    file: str, markers: set[str], changed: list[str], wanted: bool
) -> None:
    assert is_quick(file, markers, changed) == wanted


def test_what_is_long_for_a_quick_run_is_there() -> None:
    assert [name for name in LONG if not (ROOT / "tests/unit" / name).is_file()] == []
