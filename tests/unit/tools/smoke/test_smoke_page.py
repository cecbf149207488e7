"""docs/smoke.md against the code: keys, conventions, verdicts, statuses, options, and its suite."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import click

from kvmbox.cli.main import cli
from kvmbox.tools.smoke.report.summary import FAILED, NOTHING_TESTED, PASSED
from kvmbox.tools.smoke.suite.conventions import CONVENTIONS
from kvmbox.tools.smoke.suite.suite_file import parse_suite
from kvmbox.tools.smoke.suite.suite_keys import FIELDS, START_FIELDS
from kvmbox.tools.smoke.suite.test_case import Verdict

PAGE: Final = (Path(__file__).parents[4] / "docs/smoke.md").read_text(encoding="utf-8")


def rows(*heading: str) -> list[list[str]]:
    """The cells of the table with this heading."""
    line = re.escape("| " + " | ".join(heading) + " |")
    (table,) = re.findall(rf"^{line}\n\|[-|]+\n((?:\|.*\|\n)+)", PAGE, re.MULTILINE)
    return [[cell.strip() for cell in one.split("|")[1:-1]] for one in table.splitlines()]


def test_keys_are_all_of_them_in_order_with_what_they_accept() -> None:
    table = {key.strip("`"): value for key, value, _ in rows("key", "value", "meaning")}
    assert list(table) == [field.name for field in FIELDS.values() if not field.is_option]
    for name, value in table.items():
        if name != "convention":
            assert value == FIELDS[name].accepts, name
    (options,) = re.findall(r"The other keys are (.*?)No key takes", PAGE, re.DOTALL)
    named = re.findall(r"`([a-z_]+)`", options)
    assert [name for name in named if name in FIELDS] == [
        one.name for one in FIELDS.values() if one.is_option
    ]


def test_keys_of_a_start_are_all_of_them_in_order_with_what_they_accept() -> None:
    table = {key.strip("`"): value for key, value, _ in rows("key of a start", "value", "meaning")}
    assert table == {one.name: one.accepts for one in START_FIELDS.values() if not one.is_option}


def test_options_of_suites_are_options_of_run_and_none_takes_isolation_away() -> None:
    run = cli.get_command(click.Context(cli), "run")
    assert run is not None
    names = {parameter.name for parameter in run.params}
    options = {field.name for field in FIELDS.values() if field.is_option}
    assert options <= names
    assert options & {"sandbox", "seccomp", "ipc", "without", "pin"} == set()


def test_conventions_and_verdicts() -> None:
    table = rows("`convention`", "who uses it", "success")
    assert [name.strip("`") for name, _, _ in table] == list(CONVENTIONS)
    assert [name for name, _ in rows("verdict", "meaning")] == [verdict.value for verdict in Verdict]


def test_statuses_are_those_of_the_help() -> None:
    documented = [status for status, _ in rows("exit status", "meaning")]
    command = cli.get_command(click.Context(cli), "smoke")
    assert command is not None
    assert command.help is not None
    assert documented == re.findall(r"^ *(\d+)  ", command.help, re.MULTILINE)
    assert {str(PASSED), str(FAILED), str(NOTHING_TESTED)} <= set(documented)


def test_options_of_the_section_are_those_of_the_command() -> None:
    """The list itself is that of --help."""
    command = cli.get_command(click.Context(cli), "smoke")
    assert command is not None
    known = {name for parameter in command.params for name in parameter.opts if name.startswith("-")}
    section = PAGE.split("\n## Options\n")[1].split("\n## ")[0]
    documented = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", section))
    assert {"-j", "--shard"} <= documented
    assert documented <= known | {"--help"}


def test_suites_of_the_page_are_some() -> None:
    texts = re.findall(r"^```toml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert [[test.name for test in parse_suite(text, "page.toml")] for text in texts] == [
        ["hello", "unit tests", "login"],
        ["power off", "wrong user"],
    ]
