"""`kvmbox profile`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kvmbox.cli.main import run_command
from kvmbox.parts.profile import formats


def test_profile_prints_the_hottest_functions(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "run.folded"
    file.write_text("main;spin 3\nmain 1\n")
    assert run_command(["profile", str(file), "--top", "1"]) == 0
    assert capfd.readouterr().out.split("\n")[0] == "4 samples"


@pytest.mark.parametrize(
    ("name", "words"),
    [("missing", "No such file"), ("fifo", "it is a FIFO"), ("bad", "line 1"), ("large", "larger than")],
)
def test_profile_of_a_file_that_is_none_says_why(
    name: str, words: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "bad").write_bytes(b"\x00\x1b[2J")
    (tmp_path / "large").write_bytes(b"main 1\n" * 20)
    monkeypatch.setattr(formats, "MOST_BYTES", 100)
    assert run_command(["profile", str(tmp_path / name)]) == 4
    error = capfd.readouterr().err
    assert error.startswith("kvmbox: error: cannot read the profile")
    assert words in error
