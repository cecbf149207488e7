"""Trees that are fetched and built, by tools that shell scripts play; and guests that are typed to."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.foreign import trees
from tests.foreign.observe import End, observe
from tests.foreign.trees import Tree, built
from tests.lab.packages import Unavailable
from tests.support.patience import patience

pytestmark = pytest.mark.thorough

TREE = Tree("someone/kernel", "c0ffee", ("CC=gcc -w", "all"))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a PATH on which there are no tools yet."""
    monkeypatch.setattr(trees, "TREES", tmp_path / "trees")
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path


def play(cache: Path, **bodies: str) -> None:
    """Put shell scripts in the place of tools; those without a body succeed."""
    for name in ("git", "make", "gcc", "perl", "nasm"):
        tool = cache / "bin" / name
        tool.write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{bodies.get(name, '')}\n")
        tool.chmod(0o755)


CLONES = 'for last; do :; done; [ "$1" = clone ] && mkdir "$last"; echo "$*" >>"$0.log"'


def test_tree_is_cloned_at_its_commit_and_built_once(cache: Path) -> None:
    play(cache, git=CLONES, make='echo "$*" >>"$0.log"; echo image >"$2/kernel.img"')

    image = built(TREE, "kernel.img")

    assert image.read_text() == "image\n"
    assert "checkout --quiet c0ffee" in (cache / "bin/git.log").read_text()
    assert (cache / "bin/make.log").read_text().endswith("CC=gcc -w all\n")
    assert built(TREE, "kernel.img") == image
    assert len((cache / "bin/make.log").read_text().splitlines()) == 1
    with pytest.raises(Unavailable, match=r"someone/kernel was built without fs\.img"):
        built(TREE, "fs.img")


def test_tree_that_cannot_be_built_is_unavailable_and_leaves_nothing(cache: Path) -> None:
    play(cache, git=CLONES, make="echo 'no rule' >&2; exit 2")
    with pytest.raises(Unavailable, match="make fails: no rule"):
        built(TREE, "kernel.img")
    assert list((cache / "trees").iterdir()) == []


def test_tree_without_tools_is_unavailable(cache: Path) -> None:
    with pytest.raises(Unavailable, match="git not found: someone/kernel cannot be fetched and built"):
        built(TREE, "kernel.img")


def test_tree_with_images_needs_git_alone(cache: Path) -> None:
    play(cache, git=CLONES.replace('mkdir "$last"', 'mkdir "$last" && >"$last/a.img"'))
    for name in ("make", "gcc", "perl", "nasm"):
        (cache / "bin" / name).unlink()

    assert built(Tree("someone/images", "c0ffee"), "a.img").exists()


def test_observe_types_behind_what_it_sees_in_order() -> None:
    asks = "for _ in range(2): print('name?', flush=True); print('<' + input() + '>', flush=True)"

    seen = observe(
        [sys.executable, "-I", "-S", "-c", asks],
        timeout_s=patience(60),
        typed=((r"name\?", "one\n"), (r"name\?", "two\n")),
    )

    assert (seen.end, seen.output) == (End.ITSELF, "name?\n<one>\nname?\n<two>\n")


def test_observe_does_not_mind_that_nobody_reads_what_is_typed() -> None:
    closes = "import os; os.close(0); print('name?', flush=True)"

    seen = observe(
        [sys.executable, "-I", "-S", "-c", closes], timeout_s=patience(60), typed=((r"name\?", "x\n"),)
    )

    assert (seen.end, seen.status) == (End.ITSELF, 0)
