"""Completion: the scripts, and the words that click gives them."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from kvmbox.cli import completion, main
from kvmbox.cli.run import quick_parser


def complete(line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> list[str]:
    words = line.split(" ")
    monkeypatch.setenv(quick_parser.COMPLETION_VARIABLE, "bash_complete")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
    assert main.run_command([]) == 0
    return [entry.partition(",")[2] for entry in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_script_asks_with_the_variable(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run_command(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert f"{quick_parser.COMPLETION_VARIABLE}={shell}_complete" in script


def test_bash_reads_the_script(capsys: pytest.CaptureFixture[str]) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash")
    main.run_command(["completion", "bash"])
    script = capsys.readouterr().out
    read = subprocess.run([bash, "-n"], input=script, text=True, capture_output=True, check=False)
    assert (read.returncode, read.stderr) == (0, "")


def test_words_are_commands_options_values_and_guests(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        "kvmbox.boot.bundled.runs", lambda: [{"guest": "hello"}, {"guest": "help"}, {"guest": "x"}]
    )
    assert complete("kvmbox ru", monkeypatch, capsys) == ["run"]
    assert set(complete("kvmbox ", monkeypatch, capsys)) == set(main.COMMANDS)
    assert complete("kvmbox run --serial-o", monkeypatch, capsys) == ["--serial-overflow"]
    assert complete("kvmbox run --on-device-crash r", monkeypatch, capsys) == ["restart"]
    assert complete("kvmbox run hel", monkeypatch, capsys) == ["hello", "help"]
    assert complete("kvmbox run ./hel", monkeypatch, capsys) == ["./hel"]  # a file, which the shell completes


def test_unknown_shell_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run_command(["completion", "tcsh"]) == 2
    assert "'tcsh' is not one of" in capsys.readouterr().err
