"""The command line of a run without click: the same as with click, or left to click."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path
from typing import Final

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmbox.base.errors import UsageError
from kvmbox.cli import main
from kvmbox.cli.config import option_defaults
from kvmbox.cli.run import command, quick_parser
from kvmbox.cli.run.execute import Line
from kvmbox.run.options.definition import FLAG, Option
from kvmbox.run.options.option_table import OPTIONS

# click keeps the help option that a command gets from its first group.
GROUP: Final = click.Context(main.cli, **main.cli.context_settings)


@pytest.fixture(autouse=True)
def _no_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(option_defaults.VARIABLE, "none")


def by_click(words: list[str]) -> Line | None:
    """What click reads, or None for what it refuses."""
    try:
        with command.command.make_context("run", list(words), parent=GROUP) as context:
            return command.line_of(context)
    except (click.ClickException, click.exceptions.Exit, UsageError):
        return None


@pytest.mark.parametrize(
    ("line", "values"),
    [
        ("hello32", {}),
        ("--memory 64M hello32 --cpus=2", {"memory": 64 << 20, "cpus": 2}),
        ("--expect a --expect=b hello32", {"expect": ("a", "b")}),
        ("--stats hello32 --json out", {"stats": True, "json_path": "out"}),
        ("--debug-exit none hello32", {"debug_exit": None}),
        ("--module=-x hello32", {"modules": ("-x",)}),
        ("--success-status 43 --restart-budget 3 hello32", {"success_status": 43, "restart_budget": 3}),
        ("--entry 1000:0 --append= -- -odd", {"entry": (0x1000, 0), "append": ""}),
        ("--from a.snap --timeout 1.5", {"from_file": "a.snap", "timeout": 1.5}),
    ],
)
def test_plain_line_is_read_as_click_reads_it(line: str, values: dict[str, object]) -> None:
    words = line.split()
    read = quick_parser.read(words)
    assert read is not None
    assert read == by_click(words)
    assert (read.values, read.typed) == (values, frozenset(values))


@pytest.mark.parametrize(
    "line",
    [
        "",
        "a b",
        "''",
        "-",
        "-h a",
        "--help a",
        "--no-such a",
        "--mem 1M a",
        "--stats=1 a",
        "--memory",
        "--memory --cpus 1 a",
        "--memory=much a",
        "--memory 1M --memory 2M a",
        "--boot fake a",
        "--append -x a",
        "--success-status 0 a",
        "--success-status 256 a",
        "--success-status ' 5' a",
        "--restart-budget 1_0 a",
        "--bios rom",
        "--inject help a",
    ],
)
def test_odd_line_is_left_to_click(line: str) -> None:
    assert quick_parser.read(shlex.split(line)) is None


@pytest.mark.parametrize("text", ["[run]\ncpus = 2", "[smoke]\n", "[[[", "[no-such-command]\n"])
def test_line_is_left_to_click_where_a_configuration_counts(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / option_defaults.NAME).write_text("")
    monkeypatch.delenv(option_defaults.VARIABLE)
    monkeypatch.chdir(tmp_path)
    assert quick_parser.read(["a"]) is not None
    (tmp_path / option_defaults.NAME).write_text(text)
    assert quick_parser.read(["a"]) is None


def test_line_is_left_to_click_where_a_shell_asks_for_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(quick_parser.COMPLETION_VARIABLE, "bash_complete")
    assert quick_parser.read(["a"]) is None


TEXTS = (
    "",
    "-",
    "--",
    "-1",
    "0",
    "1",
    "3",
    "43",
    "256",
    "64M",
    "0x10",
    "none",
    "1000:0",
    "1.5",
    "auto",
    "help",
)


def _words(option: Option) -> st.SearchStrategy[list[str]]:
    texts = st.sampled_from((*TEXTS, *option.choices))
    glued = texts.map(lambda text: [f"{option.spelling}={text}"])
    if option.kind == FLAG:
        return st.just([option.spelling]) | glued
    return texts.map(lambda text: [option.spelling, text]) | glued


PARTS = st.sampled_from(list(OPTIONS.values())).flatmap(_words) | st.sampled_from([["a"], ["--"], ["-x"]])


@given(st.lists(PARTS, max_size=4))
def test_any_line_is_read_as_click_reads_it_or_left_to_click(parts: list[list[str]]) -> None:
    words = [word for part in parts for word in part]
    read = quick_parser.read(words)
    assert read is None or read == by_click(words)


def test_start_of_a_plain_run_does_without_click() -> None:
    code = (
        "import sys, kvmbox.cli.entry, kvmbox.cli.run.execute, kvmbox.cli.exit_status\n"
        "import kvmbox.cli.run.quick_parser, kvmbox.run.api.machine, kvmbox.run.frontend\n"
        "import kvmbox.run.result.run_statistics\n"
        "assert kvmbox.cli.run.quick_parser.read(['hello32', '--stats']) is not None\n"
        "sys.exit('click' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
