"""Opening files to read: what is no regular file is refused, in words, and never waited for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kvmbox.base.regular_file import open_regular_file
from kvmbox.cli import system_x86_64
from kvmbox.cli.main import run_command
from tests.support.recordings import recording, small_machine


def test_regular_file_is_opened(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    with os.fdopen(open_regular_file(str(tmp_path / "file")), "rb") as file:
        assert file.read() == b"content"


def test_others_are_refused_by_name(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path, kind in (
        (tmp_path / "fifo", "a FIFO"),
        (tmp_path, "a directory"),
        ("/dev/null", "a character"),
    ):
        with pytest.raises(OSError, match=f"it is {kind}"):
            open_regular_file(str(path))


def test_fifo_that_comes_between_look_and_open_is_refused_and_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "file").write_bytes(b"")
    seen = os.stat(tmp_path / "file")
    before = os.listdir("/proc/self/fd")
    monkeypatch.setattr(os, "stat", lambda _path: seen)
    with pytest.raises(OSError, match="it is a FIFO"):
        open_regular_file(str(tmp_path / "fifo"))
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize(
    "command", [("trace",), ("replay",), ("profile",), pytest.param(("run", "--from"), marks=pytest.mark.kvm)]
)
def test_command_that_gets_a_directory_asks_for_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: tuple[str, ...]
) -> None:
    assert run_command([*command, str(tmp_path)]) == 4
    assert capsys.readouterr().err.endswith(
        "it is a directory, not a regular file\nhint: name a file, not a directory\n"
    )


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (("trace", "FIFO"), 4),
        (("replay", "FIFO"), 4),
        (("replay", "--dump", "FIFO"), 4),
        (("bench", "--load", "FIFO"), 4),
        (("bench", "--compare", "FIFO", "FIFO"), 4),
    ],
)
def test_commands_do_not_wait_at_a_fifo_that_they_are_to_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: tuple[str, ...], status: int
) -> None:
    os.mkfifo(tmp_path / "fifo")
    arguments = [argument.replace("FIFO", str(tmp_path / "fifo")) for argument in command]
    assert run_command(arguments) == status
    assert "it is a FIFO, not a regular file" in capsys.readouterr().err


def test_trace_does_not_wait_at_a_fifo_that_it_is_to_write(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "run.rec").write_bytes(recording(small_machine().records))
    assert run_command(["trace", "--chrome", str(tmp_path / "fifo"), str(tmp_path / "run.rec")]) == 4
    assert "fifo': nobody reads this FIFO" in capsys.readouterr().err


def test_qtest_log_does_not_wait_at_a_fifo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "fifo")
    arguments = ["-qtest", "stdio", "-qtest-log", str(tmp_path / "fifo")]
    assert run_command(arguments, system_x86_64.command, "kvmbox-system-x86_64") == 4
    assert "fifo': nobody reads this FIFO" in capsys.readouterr().err
