"""Configuration files: which one counts, and what may be in it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from kvmbox.base.errors import UsageError
from kvmbox.cli import main
from kvmbox.cli.config import file_settings, option_defaults
from kvmbox.cli.run import command


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, two levels below `tmp_path`."""
    monkeypatch.delenv(option_defaults.VARIABLE, raising=False)
    inner = tmp_path / "a/b"
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    return inner


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def options(text: str, directory: Path) -> dict[str, object]:
    write(directory / option_defaults.NAME, text)
    return file_settings.options(command.command, "run", option_defaults.find())


def test_nearest_file_counts_alone(directory: Path, tmp_path: Path) -> None:
    write(tmp_path / "kvmbox.toml", "[run]\ncpus = 2")
    near = write(tmp_path / "a/kvmbox.toml", "[run]\nmemory = '1M'")
    found = option_defaults.find()
    assert (found.path, found.tables) == (near, {"run": {"memory": "1M"}})


def test_project_counts_where_it_speaks_of_kvmbox(directory: Path, tmp_path: Path) -> None:
    far = write(tmp_path / "pyproject.toml", "[tool.kvmbox.run]\ncpus = 2")
    write(tmp_path / "a/pyproject.toml", "[project]\nname = 'about kvmbox'")
    write(directory / "pyproject.toml", "this is not TOML, and none of our business")
    found = option_defaults.find()
    assert (found.path, found.tables) == (far, {"run": {"cpus": 2}})


@pytest.mark.parametrize(
    "text",
    [
        "[tool.kvmbox.run]\ncpus = 2",
        "[ tool . 'kvmbox'.run ]\ncpus = 2",
        '["tool"."kvmbox"]\nrun.cpus = 2',
        "[tool] # of all tools\nkvmbox.run.cpus = 2",
        "[tool]\n[tool.other]\n[tool.kvmbox]\nrun = { cpus = 2 }",
        "tool = { kvmbox = { run = { cpus = 2 } } }",
        "tool.kvmbox.run.cpus = 2",
    ],
)
def test_each_spelling_of_the_table_is_found(directory: Path, text: str) -> None:
    path = write(directory / "pyproject.toml", text)
    assert option_defaults.find() == option_defaults.Configuration(path, {"run": {"cpus": 2}})


def test_project_that_names_kvmbox_elsewhere_is_not_parsed(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(directory / "pyproject.toml", "[project]\nname = 'kvmbox'\n[tool.other]\nkvmbox = 'kvmbox.tools'")
    monkeypatch.setitem(sys.modules, "tomllib", None)  # its import raises
    assert option_defaults.find().tables == {}


def test_own_file_wins_over_the_project_beside_it(directory: Path) -> None:
    write(directory / "pyproject.toml", "[tool.kvmbox.run]\ncpus = 2")
    own = write(directory / "kvmbox.toml", "")
    assert option_defaults.find().path == own


def test_variable_names_another_file_or_none(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(directory / "kvmbox.toml", "[run]\ncpus = 2")
    other = write(directory / "other", "[run]\ncpus = 3")
    monkeypatch.setenv(option_defaults.VARIABLE, other)
    assert option_defaults.find().tables == {"run": {"cpus": 3}}
    monkeypatch.setenv(option_defaults.VARIABLE, "none")
    assert option_defaults.find() == option_defaults.Configuration(None, {})


def test_file_of_another_user_is_passed_over(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(directory / "kvmbox.toml", "[run]\ncpus = 2")
    owner = Path(path).stat().st_uid
    if owner == 0:
        os.chown(path, 12345, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    found = option_defaults.find()
    assert path in found.passed_over
    assert found.path != path


def test_values_become_what_the_command_line_would_say(directory: Path) -> None:
    text = """
        [run]
        memory = 1048576
        timeout = 0.5
        no-reboot = true
        expect = ["one", "two"]
        ipc = "shm"
    """
    assert options(text, directory) == {
        "memory": "1048576",
        "timeout": "0.5",
        "no_reboot": True,
        "expect": ["one", "two"],
        "ipc": "shm",
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[run]\nmemroy = 1", "[run] has no option 'memroy'"),
        ("[run]\nguest = 'x'", "has no option 'guest'"),
        ("[run]\nsandbox = 'none'", "'sandbox' cannot be set in a file"),
        ("[run]\nwithout = ['seccomp']", "'without' cannot be set in a file"),
        ("[run]\nrecord = 'x'", "'record' cannot be set in a file"),
        ("[run]\nmemory = '64Q'", "'memory': '64Q' is not a size"),
        ("[run]\nmemory = []", "'memory' is a string or a number"),
        ("[run]\nmemory = true", "'memory' is a string or a number"),
        ("[run]\nexpect = 'one'", "'expect' is a list of strings"),
        ("[run]\nexpect = [1]", "'expect' is a list of strings"),
        ("[run]\nno-reboot = 1", "'no-reboot' is true or false"),
        ("memory = '64M'", "'memory' is no table of a command"),
        ("[run", "is not TOML"),
        ("a = " + "[" * 100_000, "is not TOML"),
        ("a = " + "1" * 5000, "is not TOML"),
    ],
)
def test_wrong_file_is_named_with_what_is_wrong(text: str, words: str, directory: Path) -> None:
    with pytest.raises(UsageError) as caught:
        options(text, directory)
    assert str(directory / "kvmbox.toml") in str(caught.value)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["tool = 1 # kvmbox", "tool.kvmbox = 1"])
def test_wrong_project_is_named(text: str, directory: Path) -> None:
    write(directory / "pyproject.toml", text)
    with pytest.raises(UsageError, match="is no table"):
        option_defaults.find()


def test_file_that_is_too_long_is_refused(directory: Path) -> None:
    write(directory / "kvmbox.toml", "#" * (option_defaults.MOST_BYTES + 1))
    with pytest.raises(UsageError, match="more than 1 MiB"):
        option_defaults.find()


def test_fifo_does_not_block(directory: Path) -> None:
    os.mkfifo(directory / "kvmbox.toml")
    assert option_defaults.find().tables == {}


def test_file_of_another_user_is_not_even_read(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path(write(directory / "kvmbox.toml", "x" * (option_defaults.MOST_BYTES + 1)))
    if path.stat().st_uid == 0:
        os.chown(path, 12345, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert str(path) in option_defaults.find().passed_over


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_is_passed_over(
    directory: Path, make: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    make(directory / "kvmbox.toml")
    assert str(directory / "kvmbox.toml") in option_defaults.find().passed_over
    assert main.run_command(["config"]) == 0
    assert "passed over, because it is a " in (out := capsys.readouterr().out)
    assert "another user" not in out


def test_fifo_that_somebody_writes_to_is_passed_over(directory: Path) -> None:
    os.mkfifo(directory / "kvmbox.toml")
    writer = os.open(directory / "kvmbox.toml", os.O_RDWR)
    try:
        assert option_defaults.find().tables == {}
    finally:
        os.close(writer)


def test_table_of_no_command_is_an_error(directory: Path) -> None:
    write(directory / "kvmbox.toml", "[rnu]\ntimeout = 5")
    with pytest.raises(UsageError, match="no command 'rnu'"):
        main.cli.get_command(click.Context(main.cli, **main.cli.context_settings), "run")


def test_unreadable_file_is_an_error_with_a_way_out(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(option_defaults.VARIABLE, str(directory / "nothing"))
    with pytest.raises(UsageError, match="cannot read") as caught:
        option_defaults.find()
    assert caught.value.hint == "KVMBOX_CONFIG=none leaves configuration files out"


def test_command_line_wins_and_the_rest_counts_as_given(directory: Path) -> None:
    write(directory / "kvmbox.toml", "[run]\ncpus = 2\nmemory = '2M'")
    context = click.Context(main.cli, **main.cli.context_settings)
    command = main.cli.get_command(context, "run")
    assert command is not None
    inner = command.make_context("run", ["hello32", "--cpus", "3"], parent=context)
    assert (inner.params["cpus"], inner.params["memory"]) == (3, 2 << 20)


def test_completion_reads_no_configuration(directory: Path) -> None:
    write(directory / "kvmbox.toml", "[run]\nnonsense = 2")
    context = click.Context(main.cli, resilient_parsing=True)
    assert main.cli.get_command(context, "run") is command.command


def test_config_command_shows_what_counts(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(directory / "kvmbox.toml", "[run]\ncpus = 2\nexpect = ['a', 'b']")
    assert main.run_command(["config"]) == 0
    assert capsys.readouterr().out == f"{path}\n  run --cpus 2\n  run --expect a\n  run --expect b\n"


def test_config_command_names_an_unknown_command(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(directory / "kvmbox.toml", "[rnu]\ncpus = 2")
    assert main.run_command(["config"]) == 2
    assert "there is no command 'rnu'" in capsys.readouterr().err
