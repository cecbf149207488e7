"""The help: every option has its section, and the examples are right."""

from __future__ import annotations

import re
import shlex

import click
import pytest

from kvmbox.cli import main
from kvmbox.cli.help_sections import OTHER, SectionedCommand
from kvmbox.cli.run import command
from kvmbox.run.options.definition import Option, Section

COMMAND = command.command
assert isinstance(COMMAND, SectionedCommand)


def help_of(command: click.Command) -> str:
    return command.get_help(click.Context(command, info_name=command.name))


def test_every_option_of_run_is_in_one_section() -> None:
    named = [option.name for section in COMMAND.sections for option in section.options]
    known = {one.name for one in COMMAND.params if isinstance(one, click.Option)}
    assert len(named) == len(set(named))
    assert known - set(named) == {"debug"}


def test_what_a_file_may_set_takes_no_isolation_away_and_names_no_file() -> None:
    known = {one.name: one for one in COMMAND.params if isinstance(one, click.Option)}
    assert set(known) > COMMAND.configurable
    assert not COMMAND.configurable & {"sandbox", "seccomp", "without", "serial", "debugcon"}
    for name in COMMAND.configurable:
        assert "FILE" not in (known[name].metavar or ""), name


def test_help_shows_the_sections_in_order_and_each_option_once() -> None:
    text = help_of(COMMAND)
    titles = re.findall(r"^(\w.*):$", text, re.MULTILINE)
    assert titles == ["Examples", *(section.title for section in COMMAND.sections), OTHER]
    for parameter in COMMAND.params:
        if isinstance(parameter, click.Option):
            assert len(re.findall(rf"^  .*{max(parameter.opts, key=len)}(?![-\w])", text, re.MULTILINE)) >= 1


@pytest.mark.parametrize("line", [line for line, _ in command.EXAMPLES])
def test_example_is_a_command_line_that_is_read(line: str) -> None:
    kvmbox, name, *arguments = shlex.split(line)
    assert (kvmbox, name) == ("kvmbox", "run")
    context = COMMAND.make_context("run", arguments)
    assert context.params["guest"]


def test_sections_without_examples_and_with_an_option_left_over() -> None:
    @click.command("x", cls=SectionedCommand, sections=[Section("Some", (Option("one"),))])
    @click.option("--one", help="1")
    @click.option("--two", help="2")
    def command(one: str, two: str) -> None:
        """Do it."""

    some, rest = help_of(command).split("Some:\n")[1].split(f"{OTHER}:\n")
    assert "--one" in some
    assert "--two" in rest
    assert "--help" in rest


def test_group_help_has_every_command_once() -> None:
    text = main.cli.get_help(click.Context(main.cli))
    for name, what in main.COMMANDS.items():
        assert len(re.findall(rf"^  {name} +{re.escape(what)}$", text, re.MULTILINE)) == 1
