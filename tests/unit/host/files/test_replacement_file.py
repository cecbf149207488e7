"""Files that are made beside the ones that they replace: who may read them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kvmbox.host.files.replacement_file import PRIVATE, SHARED, open_beside, write_beside


@pytest.fixture
def umask() -> Iterator[Callable[[int], int]]:
    """Sets the umask for the test."""
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


def mode_of(path: str | Path) -> int:
    return os.stat(path).st_mode & 0o7777


def made(path: Path, mode: int) -> int:
    """The mode of a new file that is to be at `path`."""
    descriptor, beside = open_beside(str(path), mode)
    os.close(descriptor)
    assert os.path.dirname(beside) == str(path.parent)
    return mode_of(beside)


@pytest.mark.parametrize(
    ("mask", "mode", "found"),
    [
        (0, PRIVATE, 0o600),
        (0o022, PRIVATE, 0o600),
        (0o277, PRIVATE, 0o400),
        (0, SHARED, 0o666),
        (0o027, SHARED, 0o640),
    ],
)
def test_new_file_has_its_mode_less_the_umask(
    tmp_path: Path, umask: Callable[[int], int], mask: int, mode: int, found: int
) -> None:
    umask(mask)
    assert made(tmp_path / "a", mode) == found


@pytest.mark.parametrize(
    ("old", "mode", "found"),
    [
        (0o400, PRIVATE, 0o400),
        (0o600, PRIVATE, 0o600),
        (0o644, PRIVATE, 0o600),
        (0o4755, PRIVATE, 0o600),
        (0o600, SHARED, 0o600),
        (0o640, SHARED, 0o640),
        (0o666, SHARED, 0o644),
    ],
)
@pytest.mark.usefixtures("umask")
def test_file_that_is_replaced_is_never_opened_to_more_users(
    tmp_path: Path, old: int, mode: int, found: int
) -> None:
    (tmp_path / "a").touch()
    (tmp_path / "a").chmod(old)
    assert made(tmp_path / "a", mode) == found


def test_link_is_replaced_and_its_file_stays(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "link").symlink_to("file")
    write_beside(str(tmp_path / "link"), b"new")
    assert not (tmp_path / "link").is_symlink()
    assert (tmp_path / "link").read_bytes() == b"new"
    assert (tmp_path / "file").read_bytes() == b"old"


def test_name_in_an_open_directory_is_meant_there(tmp_path: Path) -> None:
    directory = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    write_beside("a", b"new", directory=directory)
    os.close(directory)
    assert (tmp_path / "a").read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["a"]


def test_what_cannot_be_replaced_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(IsADirectoryError):
        write_beside(str(tmp_path / "a"), b"new")
    assert os.listdir(tmp_path) == ["a"]
