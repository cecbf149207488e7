"""Files that are written: opened in time, and never one that is needed for something else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kvmbox.base.errors import HostOutputError, StartError, UsageError
from kvmbox.cli.json_files import open_output, write_output
from kvmbox.host.files.file_conflicts import refuse_shared


def test_json_file_is_emptied_at_once_and_filled_later(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    path.write_text("old", encoding="utf-8")
    file = open_output(str(path))
    assert path.read_bytes() == b""
    write_output(str(path), file, "{}\n")
    assert path.read_text(encoding="utf-8") == "{}\n"


def test_no_json_file_is_no_file() -> None:
    assert open_output(None) is None
    write_output(None, None, "nothing")


def test_json_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="cannot write --json '/no/such/file': No such file or directory"):
        open_output("/no/such/file")
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(StartError, match="nobody reads this FIFO"):
        open_output(str(tmp_path / "fifo"))


def test_json_file_that_is_full_is_named() -> None:
    with pytest.raises(HostOutputError, match="cannot write --json '/dev/full': No space left on device"):
        write_output("/dev/full", open_output("/dev/full"), "{}")


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str, str]:
    """A file, a hard link to it, and a name of nothing."""
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(b"x")
    os.link(one, other)
    return str(one), str(other), str(tmp_path / "new")


def test_file_that_is_read_and_written_is_refused(files: tuple[str, str, str]) -> None:
    one, other, new = files
    refuse_shared([("--json", new)], [("the image", one), ("a module", other)])
    with pytest.raises(UsageError, match=r"--json '.*other' is also the image"):
        refuse_shared([("--record", new), ("--json", other)], [("the image", one)])


def test_file_that_is_written_twice_is_refused(files: tuple[str, str, str], tmp_path: Path) -> None:
    one, other, new = files
    refuse_shared([("--json", one), ("--record", new)])
    with pytest.raises(UsageError, match=r"--record '.*other' is also --json"):
        refuse_shared([("--json", one), ("--record", other)])
    os.symlink(new, tmp_path / "link")
    for name in (new, f"{tmp_path}/./new", str(tmp_path / "link")):
        with pytest.raises(UsageError, match="is also --json"):
            refuse_shared([("--json", new), ("--record", name)])


def test_name_with_a_nul_is_refused() -> None:
    with pytest.raises(UsageError, match=r"a disk 'a\\x00b' has a NUL"):
        refuse_shared([], [("a disk", "a\0b")])


def test_what_is_no_file_may_be_used_often(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for name in ("/dev/null", str(tmp_path / "fifo")):
        refuse_shared([("--json", name), ("--record", name)], [("the image", name)])
