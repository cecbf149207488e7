"""Options of QEMU's that are typed by habit: the hint says what they are here."""

from __future__ import annotations

import re

import pytest

from kvmbox.cli.main import run_command
from kvmbox.cli.qemu_hints import OPTIONS
from kvmbox.run.options.option_table import SECTIONS


@pytest.mark.parametrize(
    ("line", "word", "hint"),
    [
        (["-kernel", "k.elf"], "-kernel", "name the image without an option"),
        (["-m", "128", "k.elf"], "-m", "--memory 128M"),
        (["k.elf", "-smp", "2"], "-smp", "--cpus N"),
        (["--smp=2", "k.elf"], "--smp=2", "--cpus N"),
        (["-nographic", "k.elf"], "-nographic", "not needed"),
        (["-s", "-S", "k.elf"], "-s", "--gdb :1234"),
    ],
)
def test_option_of_qemu_is_answered_with_ours(
    capsys: pytest.CaptureFixture[str], line: list[str], word: str, hint: str
) -> None:
    assert run_command(["run", *line]) == 2
    told = capsys.readouterr().err.splitlines()
    assert told[0] == f"kvmbox: error: No such option '{word}'."
    assert told[1].startswith("hint: for QEMU's -")
    assert hint in told[1]


@pytest.mark.parametrize("word", ["-x", "--foo", "-kernels", "--s"])
def test_other_option_has_the_usual_hint(capsys: pytest.CaptureFixture[str], word: str) -> None:
    assert run_command(["run", word, "k.elf"]) == 2
    assert "hint: try 'kvmbox run --help'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "ours", [["--append", "quiet"], ["--no-reboot"], ["--cpu", "base"], ["--serial=COM2=none"]]
)
def test_option_of_both_is_not_taken_for_the_wrong_one(
    capsys: pytest.CaptureFixture[str], ours: list[str]
) -> None:
    assert run_command(["run", "k.elf", *ours, "--timout", "5"]) == 2
    assert capsys.readouterr().err.startswith(
        "kvmbox: error: No such option '--timout'. Did you mean '--timeout'?"
    )


def test_options_that_hints_name_are_there() -> None:
    ours = {option.spelling for section in SECTIONS for option in section.options}
    named = {word for hint in OPTIONS.values() for word in re.findall(r"--[a-z][a-z-]+", hint)}
    assert named <= ours


def test_memory_in_mebibytes_by_habit_is_answered(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["run", "--memory", "128", "k.elf"]) == 2
    assert "'128' is in bytes, which is too little: 128M is in MiB" in capsys.readouterr().err
