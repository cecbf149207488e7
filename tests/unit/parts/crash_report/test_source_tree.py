"""Lines of source files: where a path is found, and what a hostile name or directory does not reach."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvmbox.base.errors import StartError
from kvmbox.parts.crash_report.source_tree import MOST_BYTES, MOST_PARTS, MOST_SHOWN, SourceTree


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[SourceTree]:
    (tmp_path / "secret.c").write_text("secret\n")
    root = tmp_path / "kernel"
    (root / "mm").mkdir(parents=True)
    (root / "mm" / "fault.c").write_text("one\n\ttwo\tthree  \nfour")
    (root / "main.c").write_text("main\n")
    tree = SourceTree([str(root)])
    yield tree
    tree.close()


@pytest.mark.parametrize(
    "path",
    [
        "mm/fault.c",
        "./mm//fault.c",
        "mm/../mm/fault.c",
        "/build/of/somebody/kernel/mm/fault.c",
        "../../mm/fault.c",
    ],
)
def test_path_is_found_without_its_leading_directories(tree: SourceTree, path: str) -> None:
    assert tree.line(path, 2) == "two     three"


def test_path_in_the_directory_itself_is_found_whole(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    inner = tmp_path.joinpath(*tmp_path.parts[1:])
    inner.mkdir(parents=True)
    (tmp_path / "lib" / "a.c").write_text("right\n")
    (inner / "lib").mkdir()
    (inner / "lib" / "a.c").write_text("wrong\n")
    tree = SourceTree([str(tmp_path)])
    assert tree.line(str(tmp_path.resolve() / "lib" / "a.c"), 1) == "right"
    tree.close()


def test_first_directory_that_has_the_file_counts(tree: SourceTree, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "main.c").write_text("other main\n")
    both = SourceTree([str(other), tree.directories[0]])
    assert both.line("/x/main.c", 1) == "other main"
    assert both.line("/x/mm/fault.c", 1) == "one"
    both.close()


@pytest.mark.parametrize(
    ("path", "number"),
    [("main.c", 0), ("main.c", -1), ("main.c", 3), ("mm", 1), ("", 1), ("/", 1), ("..", 1), ("none.c", 1)],
)
def test_what_is_not_there_is_none(tree: SourceTree, path: str, number: int) -> None:
    assert tree.line(path, number) is None


@pytest.mark.parametrize("path", ["../secret.c", "mm/../../secret.c", "secret.c", "mm/../../../secret.c"])
def test_nothing_outside_is_reached(tree: SourceTree, path: str) -> None:
    assert tree.line(path, 1) is None


def test_absolute_path_outside_is_not_reached(tree: SourceTree, tmp_path: Path) -> None:
    assert tree.line(str(tmp_path / "secret.c"), 1) is None


def test_symbolic_links_are_not_followed(tree: SourceTree, tmp_path: Path) -> None:
    root = tmp_path / "kernel"
    (root / "file.c").symlink_to("../secret.c")
    (root / "inside.c").symlink_to("main.c")
    (root / "up").symlink_to("..")
    for path in ("file.c", "inside.c", "up/secret.c"):
        assert tree.line(path, 1) is None


def test_fifo_is_no_source_file(tree: SourceTree, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "kernel" / "pipe.c")
    assert tree.line("pipe.c", 1) is None  # and nobody waits for a writer


def test_files_are_read_up_to_a_limit_together(tree: SourceTree, tmp_path: Path) -> None:
    for name, size in (("big.c", MOST_BYTES - 4), ("last.c", 5)):
        (tmp_path / "kernel" / name).write_bytes(b"x\n" + bytes(size - 2))
    assert tree.line("big.c", 1) == "x"
    assert tree.line("last.c", 1) is None
    assert tree.line("big.c", 1) == "x"


def test_line_is_fit_for_a_terminal(tree: SourceTree, tmp_path: Path) -> None:
    (tmp_path / "kernel" / "evil.c").write_bytes(b"\x1b[2J\xff\r\n" + b"y" * 1000 + b"\n")
    assert tree.line("evil.c", 1) == "\\x1b[2J�"
    assert tree.line("evil.c", 2) == "y" * MOST_SHOWN + "…"


def test_path_of_absurd_length_is_none(tree: SourceTree) -> None:
    assert tree.line("a/" * MOST_PARTS + "main.c", 1) is None
    assert tree.line("a\0b.c", 1) is None
    assert tree.line("x" * 5000, 1) is None


@pytest.mark.parametrize(
    ("name", "why"), [("none", "No such file"), ("file", "Not a directory"), ("a\0b", "no path")]
)
def test_directory_that_cannot_be_opened_is_an_error_of_the_start(
    name: str, why: str, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StartError, match=f"cannot open --source '.*': .*{why}"):
        SourceTree([str(tmp_path), str(tmp_path / name)])


def test_close_twice_is_harmless(tree: SourceTree) -> None:
    tree.close()
    tree.close()
    assert tree.line("main.c", 1) is None
