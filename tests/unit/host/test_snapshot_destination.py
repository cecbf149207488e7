"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import signal
import stat
from pathlib import Path

import pytest

import kvmbox.host.files.atomic_file as destination_module
from kvmbox.base.errors import SnapshotFileError
from kvmbox.host.files.atomic_file import Committer, Destination, TemporaryFile
from kvmbox.host.process.early_signals import END_SIGNALS
from tests.support.family import children_of


class Named(Destination):
    """Where the file system wants a name at once."""

    unnamed = False


@pytest.mark.parametrize("kind", [Destination, Named])
def test_file_appears_with_the_commit(tmp_path: Path, kind: type[Destination]) -> None:
    path = tmp_path / "a.snap"
    path.write_bytes(b"old")
    destination = kind(str(path))
    os.write(destination.descriptor, b"new")
    assert path.read_bytes() == b"old"
    destination.commit()
    destination.abandon()
    destination.close()
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["a.snap"]


@pytest.mark.parametrize("kind", [Destination, Named])
def test_abandoned_file_leaves_nothing(tmp_path: Path, kind: type[Destination]) -> None:
    destination = kind(str(tmp_path / "a.snap"))
    destination.abandon()
    destination.abandon()
    destination.close()
    assert os.listdir(tmp_path) == []


def test_link_stays_and_its_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to("real")
    destination = Destination(str(tmp_path / "link"))
    os.write(destination.descriptor, b"new")
    destination.commit()
    destination.close()
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"


def test_file_is_for_its_user_alone_also_behind_a_link(tmp_path: Path) -> None:
    (tmp_path / "strict").touch(mode=0o400)
    (tmp_path / "open").touch(mode=0o644)
    for name in ("strict", "open"):
        (tmp_path / f"link to {name}").symlink_to(name)
    for name, mode in (
        ("new", 0o600),
        ("strict", 0o400),
        ("open", 0o600),
        ("link to strict", 0o400),
        ("link to open", 0o600),
    ):
        destination = Destination(str(tmp_path / name))
        destination.commit()
        destination.close()
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == mode, name


def test_place_where_no_file_can_be_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path, tmp_path / "fifo", tmp_path / "none" / "a.snap", Path("/dev/null"), "a\0b"):
        with pytest.raises(SnapshotFileError, match="cannot write snapshot"):
            Destination(str(path))
    assert os.listdir(tmp_path) == ["fifo"]


def test_empty_path_is_no_file_and_not_the_folder() -> None:
    with pytest.raises(SnapshotFileError, match="cannot write snapshot '': it is no path"):
        Destination("")


@pytest.fixture(params=[Destination, Named])
def two(tmp_path: Path, request: pytest.FixtureRequest) -> list[Destination]:
    return [request.param(str(tmp_path / name)) for name in ("a", "b")]


def test_killed_committer_leaves_no_file_behind(tmp_path: Path) -> None:
    two = [Destination(str(tmp_path / name)) for name in ("a", "b")]
    committer = Committer(two)
    os.write(two[0].descriptor, b"a")
    (pid,) = children_of(os.getpid())
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(OSError, match="gone"):
        committer.commit(0)
    committer.close()
    for one in two:
        one.close()
    assert os.listdir(tmp_path) == []


def test_committer_renames_what_it_is_told_to_and_removes_the_rest(
    tmp_path: Path, two: list[Destination]
) -> None:
    committer = Committer(two)
    os.write(two[1].descriptor, b"b")
    committer.commit(1)
    assert (tmp_path / "b").read_bytes() == b"b"
    committer.close()
    for one in two:
        one.close()
    assert os.listdir(tmp_path) == ["b"]


def test_committer_tells_why_it_could_not(tmp_path: Path, two: list[Destination]) -> None:
    committer = Committer(two)
    (tmp_path / "a").mkdir()
    with pytest.raises(OSError, match="directory") as caught:
        committer.commit(0)
    assert caught.value.errno == errno.EISDIR
    committer.commit(1)
    committer.close()
    for one in two:
        one.close()
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


def test_committer_outlives_a_signal_that_ends_the_run_for_the_whole_group(
    tmp_path: Path, two: list[Destination]
) -> None:
    committer = Committer(two)
    committer.commit(1)  # it is up
    (pid,) = children_of(os.getpid())
    for number in END_SIGNALS:
        os.kill(pid, number)
    committer.commit(0)
    committer.close()
    for one in two:
        one.close()
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


def test_committer_removes_the_names_of_sockets(tmp_path: Path) -> None:
    paths = [tmp_path / "a.sock", tmp_path / "b.sock"]
    for path in paths:
        path.touch()
    committer = Committer([TemporaryFile(str(path)) for path in paths])
    committer.commit(0)  # it is up
    assert all(path.exists() for path in paths)
    committer.close()
    assert not any(path.exists() for path in paths)


def test_stopped_committer_is_waited_for_once_and_does_not_do_late_what_it_was_told(
    tmp_path: Path, two: list[Destination], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(destination_module, "PATIENCE_MS", 10)
    committer = Committer(two)
    (pid,) = children_of(os.getpid())
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(OSError, match="does not answer") as caught:
        committer.commit(0)
    assert caught.value.errno == errno.ETIMEDOUT
    with pytest.raises(OSError, match="does not answer"):
        committer.commit(1)
    committer.close()
    os.kill(pid, signal.SIGCONT)
    os.waitpid(pid, 0)
    for one in two:
        one.close()
    assert os.listdir(tmp_path) == []


def test_end_does_not_wait_for_ever_for_a_stopped_committer(
    tmp_path: Path, two: list[Destination], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(destination_module, "PATIENCE_MS", 10)
    committer = Committer(two)
    (pid,) = children_of(os.getpid())
    os.kill(pid, signal.SIGSTOP)
    committer.close()
    os.kill(pid, signal.SIGCONT)
    os.waitpid(pid, 0)
    for one in two:
        one.close()
    assert os.listdir(tmp_path) == []


def test_committer_leaves_no_process_and_no_descriptor(two: list[Destination]) -> None:
    before = os.listdir("/proc/self/fd")
    Committer(two).close()
    assert os.listdir("/proc/self/fd") == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
    for one in two:
        one.close()
